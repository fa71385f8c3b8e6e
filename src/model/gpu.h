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
  std::vector<GpuSlice> slices = {};  ///< while MIG is on; of an instance: the devices that share its memory
  std::string whole = {};             ///< of an instance (see placeable()): the UUID of its GPU; "" for a GPU

  GpuMemory memory() const { return {total, reserved, free}; }
  bool is_instance() const { return !whole.empty(); }
};

/// What services can be placed on. A GPU in MIG mode is none: nothing runs on the whole of it. Each of its instances,
/// which have a memory of their own, stands in its place, with the index (GPU + 1) × 100 + instance and the UUID and the
/// name of its first device. A GPU in MIG mode that was not cut up, or does not tell, stays, and `mig` says so.
std::vector<GpuSample> placeable(std::vector<GpuSample> gpus);

/// True for what a service may get that names no GPU. Instances are cut for somebody: only where there is nothing else.
bool is_for_anybody(const GpuSample& gpu, const std::vector<GpuSample>& among);

/// The MIG device on which a process is; null where none lists it. Devices that share an instance list only their own.
const GpuSlice* slice_of(const GpuSample& gpu, pid_t pid);

/// Of the GPU that an instance is a part of; its own index for a GPU.
int index_of_whole(const GpuSample& gpu);

/// "GPU 0"; of an instance "GPU 1 instance 2".
std::string gpu_in_words(int index);

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
