#include "faces/mcp/limits.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fcntl.h>
#include <fmt/format.h>
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

Result<void> append_record(const std::filesystem::path& file, const boost::json::object& record) {
  TRY(make_directories(file.parent_path(), 0700));
  const Fd out(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!out) return fail(system_error(fmt::format("open {}", file.string()), errno, ErrorCode::environment));
  const auto line = boost::json::serialize(record) + "\n";
  // One write: lines of several processes do not mix.
  if (::write(out.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    return fail(system_error(fmt::format("write {}", file.string()), errno, ErrorCode::environment));
  return {};
}

}  // namespace gpumod::mcp
