// A simulated load: memory taken slice by slice, in the order and with the last words of the real one.
#pragma once

#include <functional>

#include "base/async.h"
#include "sim/llama_memory.h"

namespace gpumod::sim {

/// What a load works with; everything it points to outlives it.
struct LlamaLoad {
  const LlamaModel* model = nullptr;
  const LlamaSettings* settings = nullptr;
  Gpu* gpu = nullptr;  ///< null: no GPU
  Loop* loop = nullptr;
  std::function<void(double)> progress;  ///< 0 at the beginning, 1 when the weights are there
};

/// The placement, or nothing when it failed; why is in the log then, in the real one's lines.
Task<std::optional<LlamaPlacement>> load_llama(LlamaLoad load);
/// Gives back what a load took; what the process took for CUDA stays.
void unload_llama(Gpu* gpu);

/// The lines with which the real one says that a file is missing, is no GGUF file, or lacks a tensor.
void log_unreadable_model(const std::string& path, const Error& error);

}  // namespace gpumod::sim
