#include "fit/claim.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace {

Bytes vllm_claim(const VllmOptions& options, Bytes total) {
  const double utilization = options.gpu_memory_utilization.value_or(0.9);
  return Bytes(static_cast<std::int64_t>(std::ceil(static_cast<double>(total.count()) * utilization)));
}

}  // namespace

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
  if (const auto* vllm = service.vllm())
    return {vllm_claim(*vllm, gpu.total.value_or(Bytes())), ClaimSource::utilization};
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

namespace {

Result<std::vector<const GpuSample*>> selected(const Service& service, const std::vector<GpuSample>& gpus) {
  std::vector<const GpuSample*> chosen;
  if (service.gpu.any()) {
    for (const auto& gpu : gpus)
      chosen.push_back(&gpu);
    return chosen;
  }
  for (const auto& device : service.gpu.devices) {
    const auto match = std::find_if(gpus.begin(), gpus.end(), [&](const GpuSample& gpu) {
      return gpu.uuid == device || std::to_string(gpu.index) == device;
    });
    if (match == gpus.end()) {
      std::vector<std::string> known;
      for (const auto& gpu : gpus)
        known.push_back(fmt::format("{} ({})", gpu.index, gpu.uuid));
      return fail(ErrorCode::configuration,
                  fmt::format("service '{}' wants GPU '{}', which is not there", service.id, device),
                  fmt::format("This machine has: {}.", join(known, ", ")));
    }
    chosen.push_back(&*match);
  }
  return chosen;
}

}  // namespace

Placement::Placement(const std::vector<GpuSample>& gpus, std::map<GpuIndex, Bytes> free, const Footprints& known)
    : gpus_(gpus), free_(std::move(free)), known_(known) {}

Result<Placement::Place> Placement::place(const Service& service) {
  Place place;
  if (service.vram == Bytes(0) || gpus_.empty()) return place;
  const auto candidates = TRY(selected(service, gpus_));

  const bool spread = !service.gpu.any();
  const std::size_t wanted = spread ? candidates.size()
                                    : static_cast<std::size_t>(std::max(
                                          1, service.vllm() ? service.vllm()->tensor_parallel_size.value_or(1) : 1));

  struct Candidate {
    GpuIndex index;
    std::optional<Bytes> claim;
    Bytes left;
    ClaimSource source = ClaimSource::unknown;
  };
  std::vector<Candidate> fitting;
  Bytes best_free;
  std::string best_name;
  Bytes need;
  bool larger_than_any = true;
  for (const auto* gpu : candidates) {
    const auto [claim, source] = claim_of(service, footprint_of(known_, service.id), *gpu);
    const auto room = free_.find(gpu->index);
    if (!claim || room == free_.end()) {  // unknown: it may go there, the check before the start decides
      fitting.push_back({gpu->index, std::nullopt, Bytes(), source});
      larger_than_any = false;
      continue;
    }
    need = std::max(need, *claim);
    if (gpu->total && *claim <= *gpu->total) larger_than_any = false;
    if (room->second >= *claim) {
      fitting.push_back({gpu->index, claim, room->second - *claim, source});
    } else if (best_name.empty() || room->second > best_free) {
      best_free = room->second;
      best_name = fmt::format("GPU {} ({})", gpu->index, gpu->name);
    }
  }
  if (fitting.size() < wanted) {
    if (larger_than_any && !candidates.empty())
      return fail(
          ErrorCode::refused,
          fmt::format("service '{}' needs {} of VRAM: more than any GPU it may use has", service.id, to_string(need)),
          service.vllm() ? "Lower its gpu_memory_utilization, or give it a smaller model."
          : service.vram ? "Lower its vram: to what it really takes, or give it a smaller context or quantization."
                         : "Give it a smaller context or quantization, or declare vram: if that is wrong.");
    if (candidates.size() < wanted)
      return fail(ErrorCode::refused, fmt::format("service '{}' wants {} GPUs, this machine has {}", service.id, wanted,
                                                  candidates.size()));
    return fail(ErrorCode::refused, fmt::format("service '{}' needs {} of VRAM, but {} would have only {} to give",
                                                service.id, to_string(need), best_name, to_string(best_free)));
  }
  std::stable_sort(fitting.begin(), fitting.end(),
                   [](const Candidate& a, const Candidate& b) { return a.left < b.left; });
  fitting.resize(wanted);
  for (const auto& chosen : fitting) {
    place.gpus.push_back(chosen.index);
    if (!chosen.claim) continue;
    place.source = chosen.source;
    place.claim[chosen.index] = *chosen.claim;
    free_[chosen.index] -= *chosen.claim;
  }
  std::sort(place.gpus.begin(), place.gpus.end());
  return place;
}

Result<Placement::Place> Placement::take(const ServiceId& service, const std::map<GpuIndex, Bytes>& claim) {
  Place place;
  for (const auto& [index, need] : claim) {
    place.gpus.push_back(index);
    const auto room = free_.find(index);
    if (room == free_.end()) continue;  // unknown: the check before it acts decides
    if (room->second < need)
      return fail(ErrorCode::refused,
                  fmt::format("service '{}' needs {} more of VRAM on GPU {}, which would have only {} to give", service,
                              to_string(need), index, to_string(room->second)));
    place.claim[index] = need;
  }
  for (const auto& [index, need] : place.claim)
    free_[index] -= need;
  return place;
}

}  // namespace gpumod
