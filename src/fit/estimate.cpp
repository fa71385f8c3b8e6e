#include "fit/estimate.h"

namespace gpumod {

GpuNeed VramEstimate::sum() const {
  GpuNeed all;
  for (const auto& gpu : gpus) {
    all.weights += gpu.weights;
    all.kv += gpu.kv;
    all.compute += gpu.compute;
    all.context += gpu.context;
  }
  return all;
}

}  // namespace gpumod
