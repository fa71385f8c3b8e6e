// A process's hand on the simulated GPU: what cudaMalloc, cudaFree and cudaMemGetInfo would be. The broker knows the
// process by the kernel's word (SO_PEERCRED), holds a pidfd on it, and takes its memory back when it has ended. Memory
// is the process's, not this object's; as with CUDA, a forked child opens its own.
//
// Calls block for one exchange over a Unix socket: well under a millisecond. Not for several threads at once.
#pragma once

#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "base/time.h"
#include "base/units.h"

namespace gpumod::sim {

class Gpu {
 public:
  /// Connects to the broker at $GPUMOD_SIM_GPU. `device` counts within CUDA_VISIBLE_DEVICES (indexes or UUIDs), as CUDA
  /// would have it. Errors: environment when there is no broker or no such device.
  static Result<Gpu> open(int device = 0);

  struct Memory {
    Bytes total;  ///< without what the driver keeps for itself: less than NVML's, as with CUDA
    Bytes free;
  };
  Result<Memory> memory();
  /// Takes memory under a label ("weights", "kv"): labels add up, so a second call with the same one takes more.
  /// Errors: failed, "CUDA out of memory…", when less is free. Then nothing was taken.
  Result<void> allocate(std::string_view label, Bytes amount);
  /// Gives back everything under the label. Giving back what was never taken is no error.
  Result<void> release(std::string_view label);
  /// Waits until at least so much is free. Errors: failed when `patience` (simulated time) ran out.
  Result<void> wait_for_free(Bytes amount, Duration patience);
  /// Waits until some process holds memory under the label. Errors: failed when `patience` ran out.
  Result<void> wait_for_label(std::string_view label, Duration patience);

  /// In which of NVML's lists this process stands: "compute" if not said, "graphics", "mps", or "both" of the first
  /// two.
  Result<void> show_as(std::string_view kind);

  int index() const { return index_; }  ///< in NVML's order

 private:
  Gpu() = default;
  Result<std::string> ask(std::string_view line);
  Fd socket_;
  int index_ = 0;
};

}  // namespace gpumod::sim
