#include "sim/llama_memory.h"

#include <algorithm>

namespace gpumod::sim {

namespace {

constexpr int context_step = 256;     // contexts are rounded up to this
constexpr double expert_share = 0.8;  // of a layer's weights, what --n-cpu-moe leaves in the machine's memory

struct Wish {
  int context;
  bool context_is_free;  ///< neither -c nor anything else pins it
  int layers;
  bool layers_are_free;
};

int rounded_up(int context) {
  return (context + context_step - 1) / context_step * context_step;
}

Bytes part(Bytes whole, double share) {
  return Bytes(static_cast<std::int64_t>(static_cast<double>(whole.count()) * share));
}

Wish wish_of(const LlamaModel& model, const LlamaSettings& settings) {
  Wish wish{};
  const int context = settings.number("ctx-size").value_or(0);
  wish.context_is_free = context <= 0;
  wish.context = rounded_up(wish.context_is_free ? model.context : context);
  const auto said = settings.text("n-gpu-layers", "auto");
  const auto layers = settings.number("n-gpu-layers");
  wish.layers_are_free = said == "auto" || (layers && *layers == -1);
  wish.layers = !layers || *layers < 0 ? model.layers : std::min(*layers, model.layers);
  return wish;
}

void put(LlamaPlacement& placement, const LlamaModel& model, const LlamaSettings& settings, int context, int layers) {
  const double share = static_cast<double>(layers) / model.layers;
  const int without_experts = settings.flag("cpu-moe") ? layers : settings.number("n-cpu-moe").value_or(0);
  const double experts = expert_share * std::clamp(without_experts, 0, layers) / model.layers;
  placement.context = context;
  placement.layers = layers;
  placement.weights = part(model.weights, share - experts);
  placement.kv = settings.flag("kv-offload", true) ? part(model.kv_per_1k, share * context / 1024.0) : Bytes();
  placement.compute = layers > 0 ? model.compute : Bytes();
  // Each layer takes its turn for each token, wherever it lies.
  const double on_gpu = share - experts;
  placement.tokens_per_second = 1 / (on_gpu / model.tokens_per_second + (1 - on_gpu) / model.cpu_tokens_per_second);
}

}  // namespace

LlamaPlacement place_llama(const LlamaModel& model, const LlamaSettings& settings,
                           const std::optional<Gpu::Memory>& memory) {
  const auto wish = wish_of(model, settings);
  LlamaPlacement placement;
  if (!memory) {
    placement.context = wish.context;
    placement.tokens_per_second = model.tokens_per_second;
    return placement;
  }
  put(placement, model, settings, wish.context, wish.layers);
  if (!settings.flag("fit", true)) return placement;

  const auto note = [&](std::string text) { placement.notes.push_back("common_params_fit_impl: " + std::move(text)); };
  const auto margin = Bytes::mib(settings.number("fit-target").value_or(1024));
  const auto room = memory->free - margin;
  const auto too_much = [&] { return placement.total() > room; };
  note(fmt::format("projected to use {} MiB of device memory vs. {} MiB of free device memory",
                   placement.total().to_mib(), memory->free.to_mib()));
  if (!too_much()) {
    note(fmt::format("will leave {} >= {} MiB of free device memory, no changes needed",
                     (memory->free - placement.total()).to_mib(), margin.to_mib()));
    return placement;
  }
  note(fmt::format("cannot meet free memory target of {} MiB, need to reduce device memory by {} MiB", margin.to_mib(),
                   (placement.total() - room).to_mib()));
  if (wish.context_is_free) {
    const int least = std::min(wish.context, rounded_up(settings.number("fit-ctx").value_or(4096)));
    for (int context = wish.context; too_much() && context > least;) {
      context = std::max(least, context - context_step);
      put(placement, model, settings, context, wish.layers);
    }
    if (placement.context != wish.context)
      note(fmt::format("context size reduced from {} to {}", wish.context, placement.context));
  } else {
    note(fmt::format("context size set by user to {} -> no change", wish.context));
  }
  if (!too_much()) return placement;
  if (!wish.layers_are_free) {
    placement.notes.push_back(fmt::format(
        "common_fit_params: failed to fit params to free device memory: n_gpu_layers already set by user to {}, abort",
        wish.layers));
    return placement;
  }
  for (int layers = wish.layers; too_much() && layers > 0;)
    put(placement, model, settings, placement.context, --layers);
  return placement;
}

}  // namespace gpumod::sim
