#include "fit/what_if.h"

#include <algorithm>

namespace gpumod {

namespace {

void apply(const Change& change, Service& service, LlamaFlags* flags) {
  if (change.device) service.gpu.devices = {*change.device};
  if (auto* vllm = std::get_if<VllmOptions>(&service.options)) {
    if (change.utilization) vllm->gpu_memory_utilization = change.utilization;
    if (change.context) vllm->max_model_len = change.context;
  }
  auto* llama = std::get_if<LlamaOptions>(&service.options);
  if (!llama || !flags) return;
  if (change.model) service.model.path = change.model->files.front();
  if (change.context) llama->context_size = flags->context = change.context;
  if (change.gpu_layers) llama->gpu_layers = flags->gpu_layers = change.gpu_layers;
  if (change.cpu_experts) llama->n_cpu_moe = flags->n_cpu_moe = *change.cpu_experts;
  if (change.cache_type) {
    flags->cache_k = flags->cache_v = *change.cache_type;
    for (const char* flag : {"--cache-type-k", "--cache-type-v"})
      service.extra_args.insert(service.extra_args.end(), {flag, *change.cache_type});
  }
}

}  // namespace

VllmFlags vllm_flags_of(const Service& service, Bytes total) {
  VllmFlags flags;
  flags.gpu_total = total;
  const auto* options = service.vllm();
  if (!options) return flags;
  flags.utilization = options->gpu_memory_utilization.value_or(flags.utilization);
  flags.context = options->max_model_len;
  flags.tensor_parallel = std::max(1, options->tensor_parallel_size.value_or(1));
  flags.sequences = options->max_num_seqs.value_or(flags.sequences);
  flags.enforce_eager = options->enforce_eager;
  return flags;
}

Result<EstimatedMemory> estimated_memory(const ModelFacts& model, const LlamaFlags& flags) {
  const auto estimate = TRY(estimate_llama(model, flags));
  const auto need = estimate.sum();
  return EstimatedMemory{need.weights, need.kv, need.compute, need.context, estimate.rough, estimate.assumptions};
}

Result<Changed> with_changes(const Subject& subject, const std::vector<Change>& changes) {
  Changed changed{*subject.service, subject.known ? *subject.known : Footprint()};
  auto flags = subject.flags;
  const auto* model = subject.model;
  bool other_memory = false;
  for (const auto& change : changes) {
    if (change.service != changed.service.id) continue;
    apply(change, changed.service, flags ? &*flags : nullptr);
    if (change.model) model = change.model;
    other_memory = other_memory || (flags && change.kind != Change::Kind::gpu);
  }
  if (!other_memory) return changed;
  changed.known = Footprint();
  if (changed.service.vram != Bytes(0)) changed.service.vram.reset();  // it speaks of what ran before
  if (model) changed.known.estimated = TRY(estimated_memory(*model, *flags));
  return changed;
}

bool same_model(const ModelFacts& one, const ModelFacts& other) {
  const auto difference =
      one.parameters > other.parameters ? one.parameters - other.parameters : other.parameters - one.parameters;
  return one.format == other.format && one.architecture == other.architecture &&
         one.layers.size() == other.layers.size() && one.embedding_length == other.embedding_length &&
         one.vocabulary == other.vocabulary && one.parameters > 0 && difference <= one.parameters / 100;
}

}  // namespace gpumod
