#include "base/units.h"

#include <fmt/format.h>

namespace gpumod {

std::string to_string(Bytes amount) {
  return fmt::format("{} MiB", amount.to_mib());
}

}  // namespace gpumod
