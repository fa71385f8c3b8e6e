#include "fit/claim.h"

#include <cmath>

namespace gpumod {

std::optional<double> share_of(const Service& service) {
  constexpr double vllms_default = 0.9;
  const auto* options = service.vllm();
  if (!options || options->kv_cache_memory) return std::nullopt;
  return options->gpu_memory_utilization.value_or(vllms_default);
}

const Footprint& footprint_of(const Footprints& known, const std::string& subject) {
  static const Footprint nothing;
  const auto found = known.find(subject);
  return found == known.end() ? nothing : found->second;
}

Bytes with_reserve(const EstimatedMemory& estimate) {
  return estimate.total() + Bytes((estimate.compute + estimate.context).count() / 2);
}

const EstimatedMemory* counted_estimate(const Service& service, const Footprint& known, const GpuSample& gpu) {
  if (!known.estimated) return nullptr;
  if (!may_shrink_itself(service)) return &*known.estimated;
  const bool fits_alone = gpu.total && known.estimated->total() + left_by_fit <= *gpu.total;
  return fits_alone ? &*known.estimated : nullptr;
}

Claim claim_of(const Service& service, const Footprint& known, const GpuSample& gpu) {
  if (service.vram == Bytes(0)) return {Bytes(0), ClaimSource::declared};
  if (const auto share = share_of(service); share && gpu.total)
    return {Bytes(static_cast<std::int64_t>(std::ceil(static_cast<double>(gpu.total->count()) * *share))),
            ClaimSource::utilization};
  const auto* estimate = counted_estimate(service, known, gpu);
  const Bytes least = estimate ? estimate->exact() : Bytes();
  if (const auto measured = known.measured.find(gpu.name); measured != known.measured.end() && measured->second.peak)
    return {std::max(*measured->second.peak, least), ClaimSource::measured};
  if (estimate && !estimate->rough) return {with_reserve(*estimate), ClaimSource::estimated};
  if (service.vram) return {std::max(*service.vram, least), ClaimSource::declared};
  return {};
}

bool needs_gpu(const Service& service) {
  if (service.vram) return *service.vram > Bytes(0);
  return service.vllm() != nullptr;
}

bool may_shrink_itself(const Service& service) {
  const auto* llama = service.llama();
  if (!llama || (llama->context_size && llama->gpu_layers)) return false;
  const auto& words = service.extra_args;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--fit=off") return false;
    if ((words[i] == "--fit" || words[i] == "-fit") && i + 1 < words.size() && words[i + 1] == "off") return false;
  }
  return true;
}

bool is_squeezed(const Service& service, Bytes claim, Bytes held) {
  return may_shrink_itself(service) && held + held < claim;
}

}  // namespace gpumod
