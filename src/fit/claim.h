// fit/ — VRAM arithmetic: what a service takes, where it goes, whether it fits, what else would fit. Pure.
// It knows base/ and model/; it must never know how memory is measured or how a service is started.
#pragma once

#include <optional>

#include "model/footprint.h"
#include "model/gpu.h"
#include "model/service.h"

namespace gpumod {

struct Claim {
  std::optional<Bytes> bytes;  ///< unset: unknown
  ClaimSource source = ClaimSource::unknown;
};

/// What the service takes on this GPU at its peak: everybody who asks asks here. The rule, and why, is in
/// docs/decisions/0007-what-a-service-claims.md: `vram: 0` uses no GPU; a vLLM whose share is known (see as_started() in
/// vllm_flags.h) takes ceil(total × utilization), whatever is declared or measured. A llama-server takes what was measured;
/// before that, the larger of what is estimated and what is declared. Any other program takes the larger of what was
/// measured and what is declared. Never less than the weights and caches of an estimate that counts.
Claim claim_of(const Service& service, const Footprint& known, const GpuSample& gpu);

/// The same by what was measured or declared alone: what a server that runs can be held against. An estimate may be wrong.
Claim vouched_claim(const Service& service, Footprint known, const GpuSample& gpu);

/// The share that a vLLM takes. Unset: no vLLM, or a cache of fixed size instead of a share.
std::optional<double> share_of(const Service& service);

/// How many GPUs a vLLM takes, and its whole share of each: one for each part of the model (tensor × pipeline × prefill
/// context parallel), and that for each copy that it runs (data parallel). 0: it only answers for copies elsewhere.
int gpus_wanted(const VllmOptions& options);

/// True when the service may run on this GPU.
bool may_use(const Service& service, const GpuSample& gpu);

/// What llama-server leaves free when it fits itself to the memory that is there (--fit-target).
constexpr Bytes left_by_fit = Bytes::gib(1);

/// The estimate, where it counts on this GPU; null else. Of a llama-server that may shrink itself (--fit) it does not count
/// where it would not fit even alone: then it says what the server would like, not what it takes.
const EstimatedMemory* counted_estimate(const Service& service, const Footprint& known, const GpuSample& gpu);

/// What an estimate is counted with: half of what is approximate in it comes on top.
Bytes with_reserve(const EstimatedMemory& estimate);

/// What a vLLM keeps on a GPU in its sleep: 1.1 GiB where it works, 16 GiB in builds where it does not.
inline constexpr Bytes most_kept_asleep = Bytes::mib(1536);
/// A router without models: no more than a CUDA context.
inline constexpr Bytes most_kept_by_router = Bytes::gib(1);

/// True when the service cannot run without a GPU that we can see: it claims memory, or its engine always does.
bool needs_gpu(const Service& service);

/// True for a llama-server that may shrink itself to what is free at its start, because its file does not pin both context
/// and layers, and nobody has turned that off: in its file, in its engine's settings, in its environment.
bool may_shrink_itself(const Service& service);
/// People said themselves how much it leaves free then (--fit-target).
bool leaves_another_amount(const Service& service);

/// llama-server may shrink itself (--fit, on by default): fewer layers on the GPU, a smaller context, so that it fits
/// what is free at its start. It then looks healthy and is slow for ever. True when it may, and holds less than half of
/// its claim. Never for a service that pins both, or forbids it.
bool is_squeezed(const Service& service, Bytes claim, Bytes held);

/// What is known of the service; nothing when nothing is.
const Footprint& footprint_of(const Footprints& known, const std::string& subject);

}  // namespace gpumod
