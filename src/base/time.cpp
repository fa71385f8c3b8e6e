#include "base/time.h"

#include <cmath>
#include <ctime>

#include <fmt/format.h>

namespace gpumod {

std::string format_seconds(Duration d) {
  const double value = seconds(d);
  if (value < 10) return fmt::format("{:.1f} s", value);
  if (value < 120) return fmt::format("{:.0f} s", value);
  const auto whole = std::lround(value);
  return fmt::format("{} min {} s", whole / 60, whole % 60);
}

std::string format_wall(WallTime time) {
  const std::time_t whole = std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
  std::tm utc{};
  ::gmtime_r(&whole, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec);
}

}  // namespace gpumod
