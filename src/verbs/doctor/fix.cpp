#include "verbs/doctor/fix.h"

#include <boost/json.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/login.h"
#include "verbs/doctor/look_within.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr Duration logind_patience = 10s;

/// Only ever less than before, and of what is the user's: through a descriptor, so that no link is followed.
Result<void> restrict_mode(const Fix& fix) {
  const Fd file(::open(fix.subject.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) return fail(system_error(fmt::format("open {}", fix.subject), errno, ErrorCode::environment));
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return fail(system_error(fix.subject, errno, ErrorCode::environment));
  if (info.st_uid != ::geteuid())
    return fail(ErrorCode::refused, fmt::format("{} belongs to somebody else", fix.subject),
                fmt::format("As its owner: chmod {:o} {}", fix.mode, fix.subject));
  if (::fchmod(file.get(), info.st_mode & fix.mode) != 0)
    return fail(system_error(fmt::format("change the mode of {}", fix.subject), errno, ErrorCode::environment));
  return {};
}

}  // namespace

Result<void> carry_out(const Fix& fix, const std::string& bus) {
  switch (fix.kind) {
    case Fix::Kind::enable_linger: return enable_linger(bus, logind_patience);
    case Fix::Kind::make_folder: return make_directories(fix.subject, fix.mode);
    case Fix::Kind::restrict_mode: return restrict_mode(fix);
  }
  return {};
}

Task<json::array> carry_out_all(Loop& loop, std::vector<Check> checks, std::function<Result<void>(const Fix&)> hand,
                                Duration patience) {
  json::array fixed;
  for (const auto& check : checks) {
    for (const auto& fix : check.fixes) {
      const std::function<Result<void>()> work = [hand, fix] { return hand(fix); };
      Error late{
          ErrorCode::environment, fmt::format("it did not come back within {}", format_seconds(patience)), {}, {}};
      auto back = co_await look_within<Result<void>>(loop, patience, work, std::move(late));
      const auto done = back ? std::move(*back) : Result<void>(fail(back.error()));
      fixed.push_back(json::object{{"check", check.id},
                                   {"text", describe(fix)},
                                   {"done", done.has_value()},
                                   {"problem", done ? json::value(nullptr) : json::value(done.error().message)}});
    }
  }
  co_return fixed;
}

}  // namespace gpumod
