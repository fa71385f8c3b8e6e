#include "verbs/change_record.h"

#include <boost/json.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"

namespace gpumod {

namespace json = boost::json;

std::filesystem::path change_record_of(const Paths& paths) {
  return paths.state / "mcp.log";
}

json::object record_of_begin(json::object about) {
  about["time"] = format_wall(wall_now());
  about["what"] = "begun";
  return about;
}

json::object record_of_end(json::object about, const Result<json::value>& answer) {
  about["time"] = format_wall(wall_now());
  about["what"] = "ended";
  about["outcome"] = answer ? std::string_view("done") : to_string(answer.error().code);
  return about;
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

Result<void> append_record(const std::filesystem::path& file, const json::object& record, Bytes most) {
  TRY(make_directories(file.parent_path(), 0700));
  const auto line = json::serialize(record) + "\n";
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
  const auto written = ::write(out.get(), line.data(), line.size());
  if (written == static_cast<ssize_t>(line.size())) return {};
  if (written >= 0) errno = ENOSPC;  // a part of it found room
  const auto error = failed("write");
  // Half a line would spoil the next one.
  (void)!::ftruncate(out.get(), info.st_size);
  return error;
}

}  // namespace gpumod
