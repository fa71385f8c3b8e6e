// The simulated vLLM's memory arithmetic and the sentences it fails with: pure.
//
// Per GPU: claim = ceil(total × gpu_memory_utilization), compared with what is free at start, after the CUDA context
// was made; so the context lies outside the claim. Weights, activations and KV cache lie inside it; the KV cache gets
// what the other two leave, in blocks of 16 tokens.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "sim/vllm_command.h"
#include "sim/vllm_options.h"

namespace gpumod::sim {

constexpr std::int64_t block_tokens = 16;

struct KvCache {
  Bytes size;  ///< per GPU
  std::int64_t tokens = 0;
  std::int64_t max_model_len = 0;
};

/// Per GPU: what the model takes of each, split over as many as it runs on.
Bytes share(Bytes whole, std::int64_t gpus);
Bytes claim(Bytes total, double gpu_memory_utilization);

/// Errors: failed, with the exception's text, when less is free than is claimed.
Result<void> check_free_memory(std::int64_t device, Bytes free, Bytes total, double gpu_memory_utilization);
/// Errors: failed, when somebody gave memory back while we measured. The real check forgives as much as the own weights
/// take and mis-sizes its cache then; both are defects of how it was started, so here every rise is told.
Result<void> check_profile(Bytes free_before, Bytes free_after);
/// Errors: failed, with the exception's text, when nothing is left for a cache or one request does not fit.
Result<KvCache> plan_kv_cache(const VllmCommand& command, const VllmBehaviour& options, Bytes total);

/// As Python writes a number rounded to two places: "3.6", "4.0", "22.38".
std::string two_places(double value);

}  // namespace gpumod::sim
