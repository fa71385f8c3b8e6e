// Owned file descriptors, and the few whole-file operations everybody needs. Every descriptor is close-on-exec.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"

namespace gpumod {

/// Owns a file descriptor; -1 means none.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

/// Why something cannot be written: the environment's fault, with the remedy, where the errno is one of a disk that is full,
/// read-only or somebody else's, or of a path that leads nowhere; failed otherwise.
Error unwritable(std::string_view what, int error_number);

/// Reads a whole file of at most `limit` bytes. Refuses what is not a regular file, so a FIFO never blocks us.
/// Errors: not_found if it does not exist, configuration if too large or not regular, failed otherwise.
Result<std::string> read_file(const std::filesystem::path& path, std::size_t limit);

/// For small files of /proc and /sys, whose size reads as zero.
Result<std::string> read_pseudo_file(const std::string& path, std::size_t limit = 1 << 20);

/// Writes beside the target, syncs, renames: a reader sees the old content or the new, never half.
/// Errors: unwritable().
Result<void> write_file_atomically(const std::filesystem::path& path, std::string_view content, unsigned mode = 0600);

/// Creates the directory and its parents; the last one gets `mode`. Errors: unwritable().
Result<void> make_directories(const std::filesystem::path& path, unsigned mode = 0700);

}  // namespace gpumod
