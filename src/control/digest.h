// One short text for many parts, for telling configurations of one machine apart.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace gpumod {

/// FNV-1a over parts that cannot run into each other, twice with different beginnings: 128 bits are plenty to tell
/// configurations of one machine apart, and need to withstand nobody.
class Digest {
 public:
  void add(std::string_view part) {
    mix(fmt::format("{}:", part.size()));
    mix(part);
  }
  std::string text() const { return fmt::format("{:016x}{:016x}", one_, other_); }

 private:
  void mix(std::string_view bytes) {
    for (const char byte : bytes) {
      one_ = (one_ ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
      other_ = (other_ ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
    }
  }
  std::uint64_t one_ = 0xcbf29ce484222325u, other_ = 0x9ae16a3b2f90404fu;
};

}  // namespace gpumod
