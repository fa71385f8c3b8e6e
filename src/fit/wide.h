// Arithmetic on sizes that a hostile file can drive to any height: products are taken in 128 bits and then held to a
// height at which a few thousand of them still add up.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/units.h"

namespace gpumod {

__extension__ using Wide = unsigned __int128;

/// At most 256 TiB, which no machine has.
inline Bytes bounded_bytes(Wide bytes) {
  constexpr std::int64_t most = std::int64_t{1} << 48;
  return Bytes(bytes > static_cast<Wide>(most) ? most : static_cast<std::int64_t>(bytes));
}

}  // namespace gpumod
