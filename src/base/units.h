// Quantities carry their unit in the type. Memory is counted in bytes everywhere and shown in MiB.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

namespace gpumod {

class Bytes {
 public:
  constexpr Bytes() = default;
  constexpr explicit Bytes(std::int64_t count) : count_(count) {}
  static constexpr Bytes mib(std::int64_t n) { return Bytes(n * 1024 * 1024); }
  static constexpr Bytes gib(std::int64_t n) { return mib(n * 1024); }

  constexpr std::int64_t count() const { return count_; }
  /// Rounded to the nearest MiB.
  constexpr std::int64_t to_mib() const { return (count_ + (1 << 19)) >> 20; }

  constexpr auto operator<=>(const Bytes&) const = default;
  constexpr Bytes& operator+=(Bytes other) {
    count_ += other.count_;
    return *this;
  }
  constexpr Bytes& operator-=(Bytes other) {
    count_ -= other.count_;
    return *this;
  }
  friend constexpr Bytes operator+(Bytes a, Bytes b) { return a += b; }
  friend constexpr Bytes operator-(Bytes a, Bytes b) { return a -= b; }

 private:
  std::int64_t count_ = 0;  // signed: differences of memory are meaningful
};

std::string to_string(Bytes amount);  ///< "20512 MiB"

}  // namespace gpumod
