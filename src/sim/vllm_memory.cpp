#include "sim/vllm_memory.h"

#include <algorithm>
#include <cmath>

namespace gpumod::sim {

namespace {

double gib(Bytes amount) {
  return static_cast<double>(amount.count()) / (1024.0 * 1024.0 * 1024.0);
}

}  // namespace

std::string two_places(double value) {
  auto text = fmt::format("{:.2f}", value);
  if (text.ends_with('0')) text.pop_back();
  return text;
}

Bytes share(Bytes whole, std::int64_t gpus) {
  return Bytes((whole.count() + gpus - 1) / gpus);
}

Bytes claim(Bytes total, double gpu_memory_utilization) {
  return Bytes(static_cast<std::int64_t>(std::ceil(static_cast<double>(total.count()) * gpu_memory_utilization)));
}

Result<void> check_free_memory(std::int64_t device, Bytes free, Bytes total, double gpu_memory_utilization) {
  const auto wanted = claim(total, gpu_memory_utilization);
  if (free >= wanted) return {};
  return fail(ErrorCode::failed,
              fmt::format("ValueError: Free memory on device cuda:{} ({}/{} GiB) on startup is less than desired GPU "
                          "memory utilization ({}, {} GiB). Decrease GPU memory utilization or reduce GPU memory used "
                          "by other processes.",
                          device, two_places(gib(free)), two_places(gib(total)),
                          fmt::format("{}", gpu_memory_utilization), two_places(gib(wanted))));
}

Result<void> check_profile(Bytes free_before, Bytes free_after) {
  if (free_after <= free_before) return {};
  return fail(ErrorCode::failed,
              fmt::format("AssertionError: Error in memory profiling. Initial free memory {} GiB, current free memory "
                          "{} GiB. This happens when another process gives GPU memory back while vLLM measures it.",
                          two_places(gib(free_before)), two_places(gib(free_after))));
}

Result<KvCache> plan_kv_cache(const VllmCommand& command, const VllmBehaviour& options, Bytes total) {
  const auto gpus = command.tensor_parallel_size;
  const auto per_token = share(options.kv_per_token, gpus).count();
  const auto available = command.kv_cache_memory ? *command.kv_cache_memory
                                                 : claim(total, command.gpu_memory_utilization) -
                                                       share(options.weights, gpus) - share(options.activations, gpus);
  KvCache cache;
  cache.max_model_len = command.max_model_len.value_or(options.max_len);
  if (available <= Bytes(0))
    return fail(ErrorCode::failed,
                "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
                "initializing the engine.");

  const auto fitting = available.count() / (per_token * block_tokens) * block_tokens;
  if (cache.max_model_len < 0) cache.max_model_len = std::min(options.max_len, fitting);
  const auto needed = Bytes(per_token * ((cache.max_model_len + block_tokens - 1) / block_tokens * block_tokens));
  if (needed > available || cache.max_model_len == 0) {
    const auto estimate = fitting > 0 ? fmt::format(
                                            "Based on the available memory, the estimated maximum model length "
                                            "is {}. ",
                                            fitting)
                                      : std::string();
    return fail(ErrorCode::failed,
                fmt::format("ValueError: To serve at least one request with the model's max seq len ({}), ({:.2f} GiB "
                            "KV cache is needed, which is larger than the available KV cache memory ({:.2f} GiB). "
                            "{}Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing "
                            "the engine.",
                            cache.max_model_len, gib(needed), gib(available), estimate));
  }
  cache.tokens = fitting;
  cache.size = Bytes(fitting * per_token);
  return cache;
}

}  // namespace gpumod::sim
