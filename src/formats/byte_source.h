// formats/ — readers of model files: bytes in, facts out. GGUF, safetensors, Hugging Face configurations.
// It knows base/ and model/; it must never know what is done with a fact: no service, no memory budget, no engine.
//
// Model files come from strangers. Every length is checked against the size of the file before it is used, products are
// checked for overflow, counts are bounded, and nothing recurses deeper than a few levels.
//
// This file: random access to a file's bytes. pread, not mmap: a mapped file that somebody truncates while it is read
// kills the reader with SIGBUS, and a signal handler for that is worse than a copy of a few pages. A short read is an
// ordinary error with a place in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace gpumod {

class ByteSource {
 public:
  ByteSource(std::string name, std::uint64_t size) : name_(std::move(name)), size_(size) {}
  virtual ~ByteSource() = default;
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  const std::string& name() const { return name_; }  ///< printable: for messages
  std::uint64_t size() const { return size_; }       ///< when it was opened
  /// Up to `count` bytes from `offset`; fewer only at the end. Errors: failed.
  virtual Result<std::size_t> read_at(std::uint64_t offset, char* into, std::size_t count) const = 0;

 private:
  std::string name_;
  std::uint64_t size_;
};

/// Opens a regular file without ever blocking. Errors: not_found; configuration when it is a folder, a FIFO, a device.
Result<std::unique_ptr<ByteSource>> open_byte_source(const std::filesystem::path& path);

/// Bytes that are already in memory, and outlive the source.
class MemorySource : public ByteSource {
 public:
  MemorySource(std::string name, std::string_view bytes) : ByteSource(std::move(name), bytes.size()), bytes_(bytes) {}
  Result<std::size_t> read_at(std::uint64_t offset, char* into, std::size_t count) const override;

 private:
  std::string_view bytes_;
};

/// Walks a source from its beginning, little-endian, through a window of 64 KiB. Nothing behind `limit` is read: a
/// header that goes on for longer is refused. Every error names the file, the offset and what was expected there.
class Cursor {
 public:
  Cursor(const ByteSource& source, std::uint64_t limit);

  std::uint64_t offset() const { return offset_; }
  /// Bytes up to the end of the file.
  std::uint64_t left() const { return source_.size() - offset_; }

  Result<void> take(char* into, std::size_t count, std::string_view what);
  Result<void> skip(std::uint64_t count, std::string_view what) {
    TRY(have(count, what));
    offset_ += count;
    return {};
  }
  /// An unsigned number of 1, 2, 4 or 8 bytes.
  Result<std::uint64_t> number(std::size_t bytes, std::string_view what);
  /// "FILE: at byte N: …" of kind `configuration`.
  tl::unexpected<Error> wrong(std::string_view message) const;

 private:
  Result<void> have(std::uint64_t count, std::string_view what) const {
    if (count <= limit_ - offset_) return {};
    return too_short(count, what);
  }
  Result<void> too_short(std::uint64_t count, std::string_view what) const;

  const ByteSource& source_;
  std::uint64_t limit_;
  std::uint64_t offset_ = 0;
  std::uint64_t window_at_ = 0;
  std::string window_;
};

/// a * b, or false when it does not fit.
inline bool multiply(std::uint64_t a, std::uint64_t b, std::uint64_t& product) {
  return !__builtin_mul_overflow(a, b, &product);
}

}  // namespace gpumod
