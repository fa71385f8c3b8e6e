// vLLM's memory. It claims ceil(total × gpu_memory_utilization) of each GPU whatever the model needs (CUDA's own context
// comes on top), and what the weights and the computation leave of that becomes the cache. So the question is not how
// much it takes but whether the model and one request of full length fit inside.
//
// The sizes of the cache are those of vllm/v1/kv_cache_interface.py; weights are the bytes of the tensors, divided over
// the GPUs of a tensor-parallel set. What the computation takes is an approximation.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "fit/estimate.h"
#include "formats/model_facts.h"

namespace gpumod {

struct VllmFlags {
  Bytes gpu_total;                       ///< of each GPU; 0: unknown
  double utilization = 0.9;              ///< --gpu-memory-utilization
  std::optional<Bytes> kv_cache_memory;  ///< --kv-cache-memory-bytes: replaces the utilization
  std::optional<std::int64_t> context;   ///< --max-model-len; unset: what the model was trained with
  int tensor_parallel = 1;               ///< --tensor-parallel-size
  int kv_element_bytes = 2;              ///< --kv-cache-dtype: 2 for auto (16 bit), 1 for fp8
  std::int64_t batched_tokens = 8192;    ///< --max-num-batched-tokens
  std::int64_t sequences = 256;          ///< --max-num-seqs
  bool enforce_eager = false;            ///< no CUDA graphs
};

struct VllmEstimate {
  VramEstimate need;           ///< of each GPU; the cache is that of one request of full length
  std::optional<Bytes> claim;  ///< what vLLM will take of each GPU, CUDA's context apart; unset: the total is unknown
  std::optional<bool> fits;    ///< weights, computation and one request of full length fit inside the claim
  Bytes kv_per_token;          ///< on each GPU, over all layers that grow with the context
  std::optional<std::int64_t> cached_tokens;  ///< that the rest of the claim can hold, if every layer grows
};

/// Errors: usage for a utilization outside (0, 1] or a tensor-parallel size below 1.
Result<VllmEstimate> estimate_vllm(const ModelFacts& model, const VllmFlags& flags);

}  // namespace gpumod
