#include "base/fd.h"

#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace gpumod {

void Fd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Error unwritable(std::string_view what, int error_number) {
  Error error = system_error(what, error_number);
  switch (error_number) {
    case ENOSPC:
    case EDQUOT: error.hint = "Make room there."; break;
    case EROFS:
    case EACCES:
    case EPERM: error.hint = "Make it readable and writable for you."; break;
    case ENOTDIR:
    case EEXIST: error.hint = "A folder is needed there: move away what stands in its place."; break;
    default: return error;
  }
  error.code = ErrorCode::environment;
  return error;
}

namespace {

Result<std::string> read_to_end(int fd, const std::string& path, std::size_t limit) {
  std::string content;
  char buffer[64 * 1024];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n == 0) return content;
    if (n < 0) {
      if (errno == EINTR) continue;
      return fail(system_error(fmt::format("read {}", path), errno));
    }
    if (content.size() + static_cast<std::size_t>(n) > limit)
      return fail(ErrorCode::configuration, fmt::format("{} is larger than {} bytes", path, limit));
    content.append(buffer, static_cast<std::size_t>(n));
  }
}

Result<Fd> open_for_reading(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) {
    const auto code = errno == ENOENT || errno == ENOTDIR ? ErrorCode::not_found : ErrorCode::failed;
    return fail(system_error(fmt::format("open {}", path), errno, code));
  }
  return fd;
}

Result<void> write_all(int fd, std::string_view content, const std::filesystem::path& path) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return fail(unwritable(fmt::format("write {}", path.string()), errno));
    }
    content.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

Result<std::string> read_file(const std::filesystem::path& path, std::size_t limit) {
  Fd fd = TRY(open_for_reading(path.native()));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail(system_error(fmt::format("stat {}", path.string()), errno));
  if (!S_ISREG(info.st_mode))
    return fail(ErrorCode::configuration, fmt::format("{} is not a regular file", path.string()));
  return read_to_end(fd.get(), path.native(), limit);
}

Result<std::string> read_pseudo_file(const std::string& path, std::size_t limit) {
  Fd fd = TRY(open_for_reading(path));
  return read_to_end(fd.get(), path, limit);
}

Result<void> write_file_atomically(const std::filesystem::path& path, std::string_view content, unsigned mode) {
  std::string temporary = path.string() + ".XXXXXX";  // mkostemp(3) replaces the six X
  Fd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return fail(unwritable(fmt::format("create a file beside {}", path.string()), errno));
  auto written = write_all(fd.get(), content, path);
  if (written && (::fchmod(fd.get(), mode) != 0 || ::fsync(fd.get()) != 0))
    written = fail(unwritable(fmt::format("sync {}", path.string()), errno));
  if (written && ::rename(temporary.c_str(), path.c_str()) != 0)
    written = fail(unwritable(fmt::format("rename to {}", path.string()), errno));
  if (!written) ::unlink(temporary.c_str());
  return written;
}

Result<void> make_directories(const std::filesystem::path& path, unsigned mode) {
  std::error_code problem;
  if (std::filesystem::is_directory(path, problem)) return {};
  if (path.has_parent_path()) TRY(make_directories(path.parent_path(), 0700));
  // Somebody else may have made it meanwhile.
  if (::mkdir(path.c_str(), mode) != 0 && !(errno == EEXIST && std::filesystem::is_directory(path, problem)))
    return fail(unwritable(fmt::format("create directory {}", path.string()), errno));
  return {};
}

}  // namespace gpumod
