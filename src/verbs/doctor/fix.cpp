#include "verbs/doctor/fix.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/login.h"

namespace gpumod {

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

}  // namespace gpumod
