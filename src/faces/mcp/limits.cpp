#include "faces/mcp/limits.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

namespace gpumod::mcp {

namespace {

constexpr std::size_t clients_together = 4;

}  // namespace

bool RateLimit::take(const std::string& client, int per_minute, TimePoint now) {
  while (!taken_.empty() && now - taken_.front().first >= 60s)
    taken_.pop_front();
  const auto of_client =
      std::count_if(taken_.begin(), taken_.end(), [&](const auto& one) { return one.second == client; });
  const auto limit = static_cast<std::size_t>(per_minute);
  if (static_cast<std::size_t>(of_client) >= limit || taken_.size() >= clients_together * limit) return false;
  taken_.emplace_back(now, client);
  return true;
}

namespace {

/// The file that has the name, locked. Whoever waits for the lock may find that the file has another name by then.
Result<Fd> open_locked(const std::filesystem::path& file) {
  for (;;) {
    Fd out(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!out) return fail(system_error(fmt::format("open {}", file.string()), errno, ErrorCode::environment));
    int locked = 0;
    do
      locked = ::flock(out.get(), LOCK_EX);
    while (locked != 0 && errno == EINTR);
    if (locked != 0) return fail(system_error(fmt::format("lock {}", file.string()), errno, ErrorCode::environment));
    struct stat ours {};
    struct stat named {};
    if (::fstat(out.get(), &ours) == 0 && ::lstat(file.c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
        ours.st_ino == named.st_ino)
      return out;
  }
}

}  // namespace

Result<void> append_record(const std::filesystem::path& file, const boost::json::object& record, Bytes most) {
  TRY(make_directories(file.parent_path(), 0700));
  const auto line = boost::json::serialize(record) + "\n";
  const auto failed = [&](const char* what) {
    return fail(system_error(fmt::format("{} {}", what, file.string()), errno, ErrorCode::environment));
  };
  auto out = TRY(open_locked(file));
  struct stat info {};
  if (::fstat(out.get(), &info) != 0) return failed("look at");
  if (info.st_size > 0 && Bytes(info.st_size + static_cast<std::int64_t>(line.size())) > most) {
    // Nobody writes meanwhile: who opened it before waits for the lock, and sees then that it was put away.
    if (::rename(file.c_str(), (file.string() + ".1").c_str()) != 0) return failed("put away");
    out = TRY(open_locked(file));
    if (::fstat(out.get(), &info) != 0) return failed("look at");
  }
  if (::write(out.get(), line.data(), line.size()) == static_cast<ssize_t>(line.size())) return {};
  const auto error = failed("write");
  // Half a line would spoil the next one.
  (void)!::ftruncate(out.get(), info.st_size);
  return error;
}

}  // namespace gpumod::mcp
