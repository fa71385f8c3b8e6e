// Loaded into gpumod by LD_PRELOAD, for tests only: a death by SIGKILL at a chosen sync of the state database.
//
// SQLite asks the kernel to make a transaction durable with fdatasync (or fsync), and gpumod carries a command out only
// after that has returned. So these calls are the moments between "journaled" and "done", and they can be counted.
//
//   GPUMOD_TEST_KILL_AT_SYNC=N      die at the N-th sync of state.db, state.db-wal or state.db-journal
//   GPUMOD_TEST_KILL_HOW=lost       before it, and what was written since the last sync is taken back: after a power
//                                   cut the disk may know nothing of it
//                        written    before it; the kernel keeps what was written, so the next process reads it
//                        synced     after it, and before gpumod learns that it was done
//
// Only `gpumod worker` is touched, which writes that database; and what it starts in turn is not even loaded into.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

/// A piece of a file as it was before a write, until the next sync makes the write last.
struct Piece {
  std::string path;
  off_t offset = 0;
  std::string bytes;
  off_t file_size = 0;
};

struct Trap {
  std::mutex mutex;
  long syncs_left = 0;  ///< 0: not armed
  std::string how;
  std::vector<Piece> unsynced;
};

Trap& trap() {
  static Trap it;
  return it;
}

template <typename Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

std::string text_of(const char* variable) {
  const char* value = std::getenv(variable);
  return value ? value : "";
}

bool is_worker() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string words((std::istreambuf_iterator<char>(file)), {});
  const auto second = words.find('\0');
  return second != std::string::npos && std::string_view(words.c_str() + second + 1) == "worker";
}

/// "" unless it is a file of the state database that lasts: its shared memory (-shm) does not.
std::string database_file(int fd) {
  const auto link = "/proc/self/fd/" + std::to_string(fd);
  char path[4096];
  const ssize_t size = ::readlink(link.c_str(), path, sizeof path);
  if (size <= 0) return {};
  const std::string_view whole(path, static_cast<std::size_t>(size));
  const auto name = whole.substr(whole.rfind('/') + 1);
  const bool lasts = name == "state.db" || name == "state.db-wal" || name == "state.db-journal";
  return lasts ? std::string(whole) : std::string();
}

void remember(int fd, std::size_t count, off_t offset) {
  auto& it = trap();
  if (it.syncs_left == 0) return;
  const std::lock_guard guard(it.mutex);
  Piece piece{database_file(fd), offset, std::string(count, '\0'), 0};
  struct stat about {};
  if (piece.path.empty() || ::fstat(fd, &about) != 0) return;
  piece.file_size = about.st_size;
  const ssize_t there = ::pread(fd, piece.bytes.data(), count, offset);
  piece.bytes.resize(there > 0 ? static_cast<std::size_t>(there) : 0);
  it.unsynced.push_back(std::move(piece));
}

using Write = ssize_t (*)(int, const void*, std::size_t, off_t);
using Sync = int (*)(int);

/// Newest first, so that the oldest piece of what was written twice is what stays.
void take_back(const std::vector<Piece>& pieces) {
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
    const int fd = ::open(piece->path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) continue;  // it is gone altogether
    const bool done = real<Write>("pwrite")(fd, piece->bytes.data(), piece->bytes.size(), piece->offset) >= 0 &&
                      ::ftruncate(fd, piece->file_size) == 0;
    if (!done) ::abort();
    ::close(fd);
  }
}

[[noreturn]] void die() {
  ::kill(::getpid(), SIGKILL);
  for (;;)
    ::pause();
}

int sync(int fd, const char* name) {
  const auto really = real<Sync>(name);
  auto& it = trap();
  if (it.syncs_left == 0) return really(fd);
  const std::lock_guard guard(it.mutex);
  const auto path = database_file(fd);
  if (path.empty()) return really(fd);
  const bool last = --it.syncs_left == 0;
  if (last && it.how == "lost") take_back(it.unsynced);
  if (last && it.how != "synced") die();
  const int result = really(fd);
  if (last) die();
  std::erase_if(it.unsynced, [&](const Piece& piece) { return piece.path == path; });
  return result;
}

__attribute__((constructor)) void arm() {
  if (!is_worker()) return;
  ::unsetenv("LD_PRELOAD");
  trap().how = text_of("GPUMOD_TEST_KILL_HOW");
  trap().syncs_left = std::atol(text_of("GPUMOD_TEST_KILL_AT_SYNC").c_str());
}

}  // namespace

extern "C" {

int fdatasync(int fd) {
  return sync(fd, "fdatasync");
}

int fsync(int fd) {
  return sync(fd, "fsync");
}

ssize_t pwrite(int fd, const void* bytes, size_t count, off_t offset) {
  remember(fd, count, offset);
  return real<Write>("pwrite")(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void* bytes, size_t count, off_t offset) {
  remember(fd, count, offset);
  return real<Write>("pwrite64")(fd, bytes, count, offset);
}

}  // extern "C"
