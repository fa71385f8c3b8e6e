// Two clocks: the steady one for deadlines and durations, the wall clock only for what people and journals read.
// Decisions never read either: they are given a TimePoint.
#pragma once

#include <chrono>
#include <string>

namespace gpumod {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;
using WallTime = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

inline TimePoint now() {
  return std::chrono::steady_clock::now();
}
inline WallTime wall_now() {
  return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
}
inline double seconds(Duration d) {
  return std::chrono::duration<double>(d).count();
}

std::string format_seconds(Duration d);  ///< "0.4 s", "61 s", "12 min 5 s"
std::string format_wall(WallTime time);  ///< RFC 3339 in UTC: "2026-02-09T21:03:11Z"

}  // namespace gpumod
