#include "fit/what_if.h"

#include "fit/claim.h"
#include "fit/llama_flags.h"
#include "fit/vllm_flags.h"

namespace gpumod {

namespace {

void apply(const Change& change, Changed& to) {
  auto& service = to.service;
  if (change.device) service.gpu.devices = {*change.device};
  if (auto* vllm = std::get_if<VllmOptions>(&service.options)) {
    if (change.utilization) vllm->gpu_memory_utilization = change.utilization;
    if (change.context) vllm->max_model_len = change.context;
  }
  auto* llama = std::get_if<LlamaOptions>(&service.options);
  if (!llama || !to.flags) return;
  if (change.model) {
    to.model = change.model;
    service.model.path = change.model->files.front();
  }
  if (change.context) llama->context_size = change.context;
  if (change.gpu_layers) llama->gpu_layers = change.gpu_layers;
  if (change.cpu_experts) llama->n_cpu_moe = *change.cpu_experts;
  if (!change.cache_type) return;
  for (auto* words : {&service.extra_args, &to.words})
    for (const char* flag : {"--cache-type-k", "--cache-type-v"})
      words->insert(words->end(), {flag, *change.cache_type});
}

}  // namespace

Result<EstimatedMemory> estimated_memory(const ModelFacts& model, const LlamaFlags& flags) {
  const auto estimate = TRY(estimate_llama(model, flags));
  const auto need = estimate.sum();
  return EstimatedMemory{need.weights, need.kv, need.compute, need.context, estimate.rough, estimate.assumptions};
}

Result<Changed> with_changes(const Subject& subject, const std::vector<Change>& changes) {
  Changed changed{*subject.service, subject.known ? *subject.known : Footprint(), subject.model, subject.flags,
                  subject.words};
  bool other_memory = false;
  for (const auto& change : changes) {
    if (change.service != changed.service.id) continue;
    apply(change, changed);
    other_memory = other_memory || (changed.flags && change.kind != Change::Kind::gpu);
  }
  changed.service = as_started(std::move(changed.service), changed.words);
  if (!other_memory) return changed;
  changed.flags = TRY(llama_flags_of(changed.service, changed.words));
  changed.known = Footprint();
  if (changed.service.vram != Bytes(0)) changed.service.vram.reset();  // it speaks of what ran before
  if (changed.model) changed.known.estimated = TRY(estimated_memory(*changed.model, *changed.flags));
  return changed;
}

bool takes_effect(const Subject& subject, const Change& change) {
  const auto changed = with_changes(subject, {change});
  if (!changed) return false;
  if (const auto* vllm = changed->service.vllm())
    return (!change.utilization || share_of(changed->service) == change.utilization) &&
           (!change.context || vllm->max_model_len == change.context);
  if (!changed->flags) return true;
  const auto& flags = *changed->flags;
  return (!change.context || flags.context == change.context) &&
         (!change.gpu_layers || flags.gpu_layers == change.gpu_layers) &&
         (!change.cpu_experts || (flags.n_cpu_moe == *change.cpu_experts && !flags.cpu_moe)) &&
         (!change.cache_type || (flags.cache_k == *change.cache_type && flags.cache_v == *change.cache_type));
}

bool same_model(const ModelFacts& one, const ModelFacts& other) {
  const auto difference =
      one.parameters > other.parameters ? one.parameters - other.parameters : other.parameters - one.parameters;
  return one.format == other.format && one.architecture == other.architecture &&
         one.layers.size() == other.layers.size() && one.embedding_length == other.embedding_length &&
         one.vocabulary == other.vocabulary && one.parameters > 0 && difference <= one.parameters / 100;
}

}  // namespace gpumod
