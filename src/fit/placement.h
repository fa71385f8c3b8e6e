// Which GPUs services go to. Pure.
//
// One service takes the GPU that fits it most tightly. Several are placed together, the largest first, because tight
// fits one after the other can end where nothing fits although another assignment would: assignments are searched, and
// of those that fit counts, in this order,
//   1. the one with the fewest tensor-parallel sets over unequal GPUs: such a set is as slow as its slowest GPU;
//   2. the least fragmented one: the largest hole that is left is as large as possible, then the second largest …
//
// Bin packing has no quick exact answer, so the search is held to a number of looks (see placement.cpp). Below that
// number, that is for every machine of up to three GPUs and five services, it is exhaustive; above it, it may miss an
// assignment: then it refuses what would have fitted, and never promises what does not.
#pragma once

#include <map>
#include <vector>

#include "base/result.h"
#include "model/footprint.h"
#include "model/gpu.h"
#include "model/service.h"
#include "model/snapshot.h"

namespace gpumod {

/// Somebody who asks for room.
struct RoomWanted {
  const Service* service = nullptr;
  /// Not empty: where it goes is settled, and how much more it takes there (who wakes is where it sleeps).
  std::map<GpuIndex, Bytes> given;
  /// It is where it is, on all of the devices that `service` names.
  bool settled = false;
};

struct Place {
  std::vector<GpuIndex> gpus;       ///< ascending; empty: it uses no GPU
  std::map<GpuIndex, Bytes> claim;  ///< on those of them whose figures are known; empty when the claim is unknown
  ClaimSource source = ClaimSource::unknown;  ///< of the claim; of what is given there is none
};

/// A place for each of `wanted`, in their order. `free` per GPU: what will be free when the starts begin, the margin
/// already taken off; a GPU that is missing there says nothing of its memory, and the check before each start decides.
/// `gpus` as placeable() gives them: a GPU in MIG mode is nobody's, its instances are places like others,
/// of a service that names none only where there is no whole GPU.
/// A vLLM takes gpus_wanted() of those that it may use; people's own unit all that are named.
/// Errors: refused, saying how much is missing where, with {"memory": {"service","needs","gpu","has"}} in its details,
/// or how many GPUs there are too few; configuration for a device that is not there, or is in MIG mode.
Result<std::vector<Place>> place_together(const std::vector<GpuSample>& gpus, const std::map<GpuIndex, Bytes>& free,
                                          const std::vector<RoomWanted>& wanted, const Footprints& known);

/// True for the error of a placement that found no room.
bool lacks_memory(const Error& error);

}  // namespace gpumod
