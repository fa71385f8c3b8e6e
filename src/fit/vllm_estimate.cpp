#include "fit/vllm_estimate.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "fit/wide.h"

namespace gpumod {

namespace {

constexpr auto cuda_context = Bytes::mib(600);  // with NCCL and the libraries that torch loads
constexpr auto cuda_graphs = Bytes::mib(768);

/// Bytes of one token in one layer on one GPU.
Wide token_bytes(const LayerFacts& layer, const ModelFacts& model, const VllmFlags& flags) {
  if (!layer.attention || !model.keeps_kv || layer.shares_kv || layer.prediction) return 0;
  // Heads are divided over the GPUs as long as there are enough; a compressed cache (MLA) is on each of them whole.
  const auto gpus = static_cast<std::uint64_t>(flags.tensor_parallel);
  const auto heads = model.mla ? layer.kv_heads : std::max<std::uint64_t>(1, layer.kv_heads / gpus);
  return Wide{heads} * (std::uint64_t{layer.key_length} + layer.value_length) *
         static_cast<std::uint64_t>(flags.kv_element_bytes);
}

Wide activations(const ModelFacts& model, const VllmFlags& flags) {
  constexpr std::uint64_t bf16 = 2, f32 = 4;
  const auto gpus = static_cast<std::uint64_t>(flags.tensor_parallel);
  const auto tokens = static_cast<std::uint64_t>(flags.batched_tokens);
  Wide widest = Wide{3} * model.feed_forward_length / gpus;
  if (model.experts)
    widest = std::max(widest,
                      Wide{model.experts->used} * (2ull * model.experts->feed_forward + model.embedding_length) / gpus);
  const Wide layers = (Wide{6} * model.embedding_length + widest) * tokens * bf16;
  const Wide sampling = Wide{2} * model.vocabulary * static_cast<std::uint64_t>(flags.sequences) * f32;
  return std::max(layers, sampling);
}

}  // namespace

Result<VllmEstimate> estimate_vllm(const ModelFacts& model, const VllmFlags& flags) {
  if (!(flags.utilization > 0 && flags.utilization <= 1))
    return fail(ErrorCode::usage,
                fmt::format("a utilization of {}: expected a number above 0, at most 1", flags.utilization));
  if (flags.tensor_parallel < 1 || flags.tensor_parallel > 1024)
    return fail(ErrorCode::usage, fmt::format("tensor parallelism over {} GPUs", flags.tensor_parallel));
  if (flags.kv_element_bytes < 1 || flags.kv_element_bytes > 4 || flags.batched_tokens < 1 || flags.sequences < 1)
    return fail(ErrorCode::usage, "a cache element takes 1 to 4 bytes, and batches hold one token at least");

  const auto asked = flags.context.value_or(0) > 0 ? *flags.context : std::int64_t{model.context_length};
  const auto context = static_cast<std::uint64_t>(std::min<std::int64_t>(asked, 0x7FFFFFFF));
  const auto batched = static_cast<std::uint64_t>(std::min<std::int64_t>(flags.batched_tokens, 0x7FFFFFFF));
  Wide per_token = 0, one_request = 0;
  for (const auto& layer : model.layers) {
    const auto bytes = token_bytes(layer, model, flags);
    const auto kept = layer.sliding ? std::min(context, model.sliding_window + batched) : context;
    one_request += bytes * kept;
    if (!layer.sliding) per_token += bytes;
    if (layer.recurrent && model.state)
      one_request +=
          (Wide{model.state->rolling} + model.state->state) * 4 / static_cast<std::uint64_t>(flags.tensor_parallel);
  }

  GpuNeed need;
  need.weights = Bytes((model.weights.count() + flags.tensor_parallel - 1) / flags.tensor_parallel);
  need.kv = bounded_bytes(one_request);
  need.compute = bounded_bytes(activations(model, flags)) + (flags.enforce_eager ? Bytes() : cuda_graphs);
  need.context = cuda_context;

  VllmEstimate estimate;
  estimate.need.gpus.assign(static_cast<std::size_t>(flags.tensor_parallel), need);
  estimate.kv_per_token = bounded_bytes(per_token);
  const auto before_kv = need.weights + need.compute;
  std::optional<Bytes> for_cache;
  auto& words = estimate.need.assumptions;
  if (flags.kv_cache_memory) {
    for_cache = *flags.kv_cache_memory;
    estimate.claim = before_kv + *flags.kv_cache_memory;
    words.push_back(fmt::format("a cache of {} as --kv-cache-memory-bytes says, whatever the utilization",
                                to_string(*flags.kv_cache_memory)));
  } else if (flags.gpu_total.count() > 0) {
    const double claim = std::ceil(static_cast<double>(flags.gpu_total.count()) * flags.utilization);
    estimate.claim = Bytes(static_cast<std::int64_t>(claim));
    for_cache = *estimate.claim - before_kv;
    words.emplace_back(
        fmt::format("vLLM claims {:.0f} % of each GPU of {}", flags.utilization * 100, to_string(flags.gpu_total)));
  } else {
    words.emplace_back("the size of the GPU is not known, so neither is what vLLM will claim of it");
  }
  if (for_cache) {
    estimate.fits = for_cache->count() >= need.kv.count();
    if (per_token > 0 && model.sliding_window == 0)
      estimate.cached_tokens = std::max<std::int64_t>(0, for_cache->count()) / estimate.kv_per_token.count();
  }
  words.push_back(fmt::format("the cache shown is that of one request of {} tokens", context));
  if (model.sliding_window > 0)
    words.push_back(fmt::format("layers that slide keep the window of {} tokens and one batch", model.sliding_window));
  if (flags.tensor_parallel > 1)
    words.push_back(fmt::format("weights divided evenly over {} GPUs", flags.tensor_parallel));
  words.push_back(fmt::format("what the computation takes (batches of {} tokens{}) is an approximation",
                              flags.batched_tokens, flags.enforce_eager ? "" : ", CUDA graphs"));
  words.push_back(fmt::format("{} for CUDA itself, outside the claim: an approximation", to_string(cuda_context)));
  words.insert(words.end(), model.remarks.begin(), model.remarks.end());
  return estimate;
}

}  // namespace gpumod
