// What NVML says of the machine's GPUs at one moment.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/units.h"

namespace gpumod {

struct GpuProcess {
  pid_t pid = 0;              ///< the host's, also of a process in a container
  std::optional<Bytes> used;  ///< unset: NVML answers "not available"
};

/// What is read of a GPU's memory, and of a slice's. total >= reserved + free; the rest is in use.
struct GpuMemory {
  std::optional<Bytes> total;     ///< unset: it answers NOT_SUPPORTED (unified memory), or may not be asked (MIG)
  std::optional<Bytes> reserved;  ///< the driver's own; unset: a driver that does not tell it apart from what is used
  std::optional<Bytes> free;
};

/// A MIG device. Those of one GPU instance share its memory, and each answers with the whole of it.
struct GpuSlice : GpuMemory {
  std::string uuid;  ///< "MIG-…": what CUDA_VISIBLE_DEVICES wants
  std::string name;
  int gpu_instance = 0;
  int compute_instance = 0;
  std::vector<GpuProcess> processes;
};

struct GpuSample {
  int index = 0;
  std::string uuid;
  std::string name;
  std::optional<Bytes> total;  ///< this and the others of its memory: see GpuMemory
  std::optional<Bytes> free;
  std::vector<GpuProcess> processes;  ///< deduplicated over NVML's compute, graphics and MPS lists and the slices'
  std::optional<Bytes> reserved = {};
  std::optional<bool> mig = {};       ///< unset: this GPU has no such thing
  std::vector<GpuSlice> slices = {};  ///< while MIG is on

  GpuMemory memory() const { return {total, reserved, free}; }
};

/// What changes seldom, and nobody needs who only watches memory.
struct GpuInventory {
  struct Card {
    int index = 0;
    std::optional<bool> persistence;  ///< whether the driver keeps an idle GPU awake; unset: unknown
  };
  struct Missing {
    int index = 0;
    std::string problem;
  };
  std::vector<Card> cards;
  std::vector<Missing> missing;  ///< counted by the driver, but lost, broken or kept from this user
};

}  // namespace gpumod
