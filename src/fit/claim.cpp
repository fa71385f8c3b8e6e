#include "fit/claim.h"

#include <algorithm>
#include <cmath>

#include "model/snapshot.h"

namespace gpumod {

std::optional<double> share_of(const Service& service) {
  constexpr double vllms_default = 0.9;
  const auto* options = service.vllm();
  if (!options || options->kv_cache_memory) return std::nullopt;
  return options->gpu_memory_utilization.value_or(vllms_default);
}

int gpus_wanted(const VllmOptions& options) {
  const std::int64_t most = 1 << 20;  // of nonsense, no more than can be multiplied and said
  std::int64_t gpus = 1;
  for (const auto& size :
       {options.tensor_parallel_size, options.pipeline_parallel_size, options.prefill_context_parallel_size,
        options.data_parallel_local ? options.data_parallel_local : options.data_parallel_size})
    gpus = std::min(most, gpus * size.value_or(1));
  return static_cast<int>(gpus);
}

namespace {

/// Of two that are the same, the better known one.
Claim larger_of(const Claim& known_less, const Claim& known_better) {
  return known_less.bytes > known_better.bytes ? known_less : known_better;
}

/// As llama-server reads it.
bool says_no(std::string_view state) {
  return state == "off" || state == "disabled" || state == "false" || state == "0";
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
  if (const auto share = share_of(service); share && gpu.total)
    return {Bytes(static_cast<std::int64_t>(std::ceil(static_cast<double>(gpu.total->count()) * *share))),
            ClaimSource::utilization};
  const auto* estimate = counted_estimate(service, known, gpu);
  const Bytes least = estimate ? estimate->exact() : Bytes();
  Claim claim;
  if (service.vram) claim = {std::max(*service.vram, least), ClaimSource::declared};
  if (const auto measured = known.measured.find(gpu.name); measured != known.measured.end() && measured->second.peak) {
    const auto peak = std::max(*measured->second.peak, least);
    // Where nobody knows the program, it may have been seen before it loaded what it needs.
    const bool known_engine = service.llama() || service.vllm();
    return known_engine ? Claim{peak, ClaimSource::measured} : larger_of(claim, {peak, ClaimSource::measured});
  }
  if (estimate && !estimate->rough) return larger_of(claim, {with_reserve(*estimate), ClaimSource::estimated});
  return claim;
}

Claim vouched_claim(const Service& service, Footprint known, const GpuSample& gpu) {
  known.estimated.reset();
  return claim_of(service, known, gpu);
}

bool may_use(const Service& service, const GpuSample& gpu) {
  return service.gpu.any() || names(service.gpu, gpu);
}

bool needs_gpu(const Service& service) {
  if (service.vram) return *service.vram > Bytes(0);
  return service.vllm() != nullptr;
}

bool may_shrink_itself(const Service& service) {
  const auto* llama = service.llama();
  if (!llama || (llama->context_size && llama->gpu_layers)) return false;
  const auto* variable = service.variable("LLAMA_ARG_FIT");
  bool may = !variable || !says_no(variable->reveal());
  const auto words = service.added_words();
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i].starts_with("--fit=")) may = !says_no(std::string_view(words[i]).substr(6));
    if ((words[i] == "--fit" || words[i] == "-fit") && i + 1 < words.size()) may = !says_no(words[i + 1]);
  }
  return may;
}

bool leaves_another_amount(const Service& service) {
  const auto words = service.added_words();
  return service.variable("LLAMA_ARG_FIT_TARGET") || std::any_of(words.begin(), words.end(), [](std::string word) {
           std::replace(word.begin(), word.end(), '_', '-');  // llama-server reads them alike
           return word == "-fitt" || word.starts_with("--fit-target");
         });
}

bool is_squeezed(const Service& service, Bytes claim, Bytes held) {
  return may_shrink_itself(service) && held + held < claim;
}

}  // namespace gpumod
