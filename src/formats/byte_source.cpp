#include "formats/byte_source.h"

#include <algorithm>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"

namespace gpumod {

namespace {

constexpr std::size_t window_size = 64 * 1024;

class FileSource : public ByteSource {
 public:
  FileSource(std::string name, std::uint64_t size, Fd file)
      : ByteSource(std::move(name), size), file_(std::move(file)) {}

  Result<std::size_t> read_at(std::uint64_t offset, char* into, std::size_t count) const override {
    std::size_t filled = 0;
    while (filled < count) {
      const ssize_t n = ::pread(file_.get(), into + filled, count - filled, static_cast<off_t>(offset + filled));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail(system_error(fmt::format("read {}", name()), errno));
      if (n == 0) break;
      filled += static_cast<std::size_t>(n);
    }
    return filled;
  }

 private:
  Fd file_;
};

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

Result<std::unique_ptr<ByteSource>> open_byte_source(const std::filesystem::path& path) {
  const auto name = printable(path.string());
  Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file) {
    const int problem = errno;
    const bool missing = problem == ENOENT || problem == ENOTDIR || problem == ELOOP;
    return fail(
        system_error(fmt::format("open {}", name), problem, missing ? ErrorCode::not_found : ErrorCode::failed));
  }
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return fail(system_error(fmt::format("look at {}", name), errno));
  if (!S_ISREG(info.st_mode))
    return fail(ErrorCode::configuration, fmt::format("{} is {}, not a model file", name, kind_of(info.st_mode)));
  return std::make_unique<FileSource>(name, static_cast<std::uint64_t>(info.st_size), std::move(file));
}

Result<std::size_t> MemorySource::read_at(std::uint64_t offset, char* into, std::size_t count) const {
  if (offset >= bytes_.size()) return std::size_t{0};
  const auto size = std::min(count, bytes_.size() - static_cast<std::size_t>(offset));
  std::memcpy(into, bytes_.data() + offset, size);
  return size;
}

Cursor::Cursor(const ByteSource& source, std::uint64_t limit)
    : source_(source), limit_(std::min(limit, source.size())) {}

tl::unexpected<Error> Cursor::wrong(std::string_view message) const {
  return fail(ErrorCode::configuration, fmt::format("{}: at byte {}: {}", source_.name(), offset_, message));
}

Result<void> Cursor::too_short(std::uint64_t count, std::string_view what) const {
  if (count > left())
    return wrong(fmt::format("expected {} ({} bytes), but the file ends at byte {}", what, count, source_.size()));
  return wrong(fmt::format("the header goes on for more than {} MiB", limit_ >> 20));
}

Result<void> Cursor::take(char* into, std::size_t count, std::string_view what) {
  TRY(have(count, what));
  std::size_t filled = 0;
  while (filled < count) {
    const bool inside = offset_ >= window_at_ && offset_ < window_at_ + window_.size();
    if (!inside) {
      window_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(window_size, left())));
      window_at_ = offset_;
      window_.resize(TRY(source_.read_at(offset_, window_.data(), window_.size())));
      if (window_.empty())
        return wrong(fmt::format("expected {}, but the file has become shorter while it was read", what));
    }
    const auto from = static_cast<std::size_t>(offset_ - window_at_);
    const auto size = std::min(count - filled, window_.size() - from);
    std::memcpy(into + filled, window_.data() + from, size);
    filled += size;
    offset_ += size;
  }
  return {};
}

Result<std::uint64_t> Cursor::number(std::size_t bytes, std::string_view what) {
  unsigned char raw[8] = {};
  // A vocabulary is a hundred thousand numbers with a text behind each; nearly all lie within the window.
  if (offset_ >= window_at_ && offset_ + bytes <= std::min(window_at_ + window_.size(), limit_)) {
    std::memcpy(raw, window_.data() + (offset_ - window_at_), bytes);
    offset_ += bytes;
  } else {
    TRY(take(reinterpret_cast<char*>(raw), bytes, what));
  }
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i)
    value |= static_cast<std::uint64_t>(raw[i]) << (8 * i);
  return value;
}

}  // namespace gpumod
