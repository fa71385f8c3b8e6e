// Where a model's memory goes: how many layers and how much context fit. Pure.
//
// `--fit` is on by default, as with the real server: what -c and -ngl do not pin shrinks to what is free at this very
// moment, first the context (down to --fit-ctx), then the layers. Nothing is said about it at the usual verbosity; the
// server is healthy, and slow for as long as it runs.
#pragma once

#include <string>
#include <vector>

#include "sim/gpu.h"
#include "sim/llama_flags.h"
#include "sim/llama_model.h"

namespace gpumod::sim {

struct LlamaPlacement {
  int context = 0;
  int layers = 0;  ///< on the GPU
  Bytes weights;   ///< on the GPU, as the next two
  Bytes kv;
  Bytes compute;
  double tokens_per_second = 0;
  std::vector<std::string> notes;  ///< what the real server writes of it at verbosity 4

  Bytes total() const { return weights + kv + compute; }
};

/// `memory` is nothing where there is no GPU: then nothing is placed on it, and the model runs at its full speed.
LlamaPlacement place_llama(const LlamaModel& model, const LlamaSettings& settings,
                           const std::optional<Gpu::Memory>& memory);

}  // namespace gpumod::sim
