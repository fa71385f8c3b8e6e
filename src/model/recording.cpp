#include "model/recording.h"

#include <algorithm>

namespace gpumod {

std::string_view to_string(Recording::Stage stage) {
  switch (stage) {
    case Recording::Stage::memory: return "memory";
    case Recording::Stage::act: return "act";
    case Recording::Stage::ready: return "ready";
    case Recording::Stage::verify: return "verify";
    case Recording::Stage::fall: return "fall";
    case Recording::Stage::release: return "release";
    case Recording::Stage::kill: return "kill";
    case Recording::Stage::clear: return "clear";
  }
  return "unknown";
}

std::string_view to_string(Recording::Wait::For what) {
  switch (what) {
    case Recording::Wait::For::turn: return "turn";
    case Recording::Wait::For::memory: return "memory";
    case Recording::Wait::For::release: return "release";
  }
  return "unknown";
}

namespace {

Bytes in_use(const Recording::Point& point) {
  if (point.used) return *point.used;
  Bytes sum;
  for (const auto& [name, held] : point.held)
    sum += held;
  return sum;
}

}  // namespace

std::vector<Recording::Point> thinned(std::vector<Recording::Point> points, std::size_t most) {
  if (points.size() <= most) return points;
  std::vector<Recording::Point> kept{points.front()};
  const std::size_t inner = points.size() - 2, groups = most - 2;
  for (std::size_t group = 0; group < groups; ++group) {
    const auto begin = points.begin() + static_cast<long>(1 + inner * group / groups);
    const auto end = points.begin() + static_cast<long>(1 + inner * (group + 1) / groups);
    kept.push_back(*std::max_element(begin, end, [](const auto& a, const auto& b) { return in_use(a) < in_use(b); }));
  }
  kept.push_back(points.back());
  return kept;
}

}  // namespace gpumod
