#include "control/lock.h"

#include <charconv>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "control/machine.h"

namespace gpumod {

namespace {

std::filesystem::path lock_file(const Paths& paths) {
  return paths.runtime / "lock";
}

/// "4242 mode switch code" as the holder wrote it.
std::string written_by_holder(int fd) {
  char buffer[256];
  const ssize_t n = ::pread(fd, buffer, sizeof buffer, 0);
  return n > 0 ? printable(trim(std::string_view(buffer, static_cast<std::size_t>(n)))) : std::string();
}

}  // namespace

Result<MutationLock> MutationLock::acquire(const Paths& paths, const std::string& about) {
  TRY(ensure_runtime_directory(paths));
  const auto path = lock_file(paths);
  Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return fail(or_elsewhere(unwritable(fmt::format("open {}", path.string()), errno), "GPUMOD_RUNTIME_DIR"));
  struct flock whole {};
  whole.l_type = F_WRLCK;
  if (::fcntl(file.get(), F_OFD_SETLK, &whole) != 0) {
    if (errno != EAGAIN && errno != EACCES)
      return fail(system_error(fmt::format("lock {}", path.string()), errno, ErrorCode::environment));
    const auto holder = written_by_holder(file.get());
    const auto space = holder.find(' ');
    return fail(ErrorCode::busy,
                holder.empty()
                    ? "another change is under way"
                    : fmt::format("another change is under way: {} (pid {})",
                                  space == std::string::npos ? "" : holder.substr(space + 1), holder.substr(0, space)),
                "Wait until it is done, or take it back: gpumod mode cancel.");
  }
  const auto text = fmt::format("{} {}\n", ::getpid(), about);
  if (::ftruncate(file.get(), 0) != 0 || ::pwrite(file.get(), text.data(), text.size(), 0) < 0)
    return fail(or_elsewhere(unwritable(fmt::format("write {}", path.string()), errno), "GPUMOD_RUNTIME_DIR"));
  return MutationLock(std::move(file));
}

std::optional<MutationHolder> mutation_holder(const Paths& paths) {
  Fd file(::open(lock_file(paths).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  struct flock whole {};
  whole.l_type = F_WRLCK;
  // Asking takes nothing: somebody who wants to write is never turned away by somebody who looks.
  if (!file || ::fcntl(file.get(), F_OFD_GETLK, &whole) != 0 || whole.l_type == F_UNLCK) return std::nullopt;
  const auto words = written_by_holder(file.get());
  MutationHolder holder;
  const auto [rest, problem] = std::from_chars(words.data(), words.data() + words.size(), holder.pid);
  if (problem == std::errc()) holder.about = trim(std::string_view(rest, words.data() + words.size()));
  // It writes who it is when it takes the lock, and never again.
  struct stat info {};
  if (::fstat(file.get(), &info) == 0)
    holder.since =
        WallTime(std::chrono::seconds(info.st_mtim.tv_sec) + std::chrono::microseconds(info.st_mtim.tv_nsec / 1000));
  return holder;
}

}  // namespace gpumod
