#include "base/time.h"

#include <cmath>

#include <fmt/chrono.h>
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
  const auto whole = std::chrono::time_point_cast<std::chrono::seconds>(time);
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::chrono::system_clock::to_time_t(whole)));
}

}  // namespace gpumod
