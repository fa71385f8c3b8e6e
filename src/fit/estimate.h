// What a model takes of a GPU before it was ever started: arithmetic on the facts of its file and the flags it will be
// started with. Pure; every figure that is not exact says so in words, and those words are part of the answer.
#pragma once

#include <string>
#include <vector>

#include "base/units.h"

namespace gpumod {

/// On one GPU.
struct GpuNeed {
  Bytes weights;
  Bytes kv;       ///< keys and values, and recurrent states
  Bytes compute;  ///< buffers for the computation: an approximation
  Bytes context;  ///< what CUDA itself takes: an approximation
  Bytes total() const { return weights + kv + compute + context; }
};

struct VramEstimate {
  std::vector<GpuNeed> gpus;  ///< one at least, in the order of the devices
  Bytes host_weights;
  Bytes host_kv;
  bool rough = false;                    ///< the approximations are known to be too low for this architecture
  std::vector<std::string> assumptions;  ///< what was taken for granted, in words

  GpuNeed sum() const;
};

}  // namespace gpumod
