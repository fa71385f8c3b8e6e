// Seeded randomness: the same seed gives the same run on every machine, which the distributions of the standard library
// do not promise. splitmix64: one word of state, and good enough to choose faults with.
#pragma once

#include <cstdint>

#include "base/time.h"
#include "base/units.h"

namespace gpumod::simulation {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}

  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// 0 … n − 1.
  int below(int n) { return n <= 0 ? 0 : static_cast<int>(((next() >> 32) * static_cast<std::uint64_t>(n)) >> 32); }
  /// low … high, both included.
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return high <= low ? low : low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool percent(int p) { return below(100) < p; }
  bool permille(int p) { return p > 0 && below(1000) < p; }
  Duration time(Duration low, Duration high) { return Duration(between(low.count(), high.count())); }
  Bytes mib(std::int64_t low, std::int64_t high) { return Bytes::mib(between(low, high)); }

 private:
  std::uint64_t state_;
};

}  // namespace gpumod::simulation
