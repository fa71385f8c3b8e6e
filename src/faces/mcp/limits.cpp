#include "faces/mcp/limits.h"

#include <algorithm>

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

}  // namespace gpumod::mcp
