// What NVML says of the machine's GPUs at one moment.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/units.h"

namespace gpumod {

struct GpuProcess {
  pid_t pid = 0;
  std::optional<Bytes> used;  ///< unset: NVML answers "not available"
};

struct GpuSample {
  int index = 0;
  std::string uuid;
  std::string name;
  std::optional<Bytes> total;  ///< unset: the device answers NOT_SUPPORTED (unified memory)
  std::optional<Bytes> free;
  std::vector<GpuProcess> processes;  ///< deduplicated over NVML's compute, graphics and MPS lists
};

}  // namespace gpumod
