#include "sim/llama_loading.h"

#include <cstdlib>

#include "sim/llama_log.h"

namespace gpumod::sim {

namespace {

constexpr int slices = 16;
// Shares of the time a load takes: the rest goes by before the first byte.
constexpr double weights_share = 0.8;
constexpr double context_share = 0.1;
constexpr int verbosity_of_details = 4;

double mib(Bytes amount) {
  return static_cast<double>(amount.count()) / (1024 * 1024);
}

void log_no_room(const Gpu& gpu, Bytes amount, const char* who) {
  llama_log('E', fmt::format("ggml_backend_cuda_buffer_type_alloc_buffer: allocating {:.2f} MiB on device {}: "
                             "cudaMalloc failed: out of memory",
                             mib(amount), gpu.index()));
  llama_log('E', fmt::format("{}: failed to allocate CUDA{} buffer of size {}", who, gpu.index(), amount.count()));
}

void log_failed_load(const std::string& path, std::string_view cause) {
  llama_log('E', fmt::format("llama_model_load: error loading model: {}", cause));
  llama_log('E', "llama_model_load_from_file_impl: failed to load model");
  llama_log('E', fmt::format("cmn  common_init_: failed to load model '{}'", path));
}

void log_failed_context(const std::string& path, std::string_view cause) {
  llama_log('E', fmt::format("llama_init_from_model: failed to initialize the context: {}", cause));
  llama_log('E', fmt::format("cmn  common_init_: failed to create context with model '{}'", path));
}

void log_details(const LlamaLoad& load, const LlamaPlacement& placement) {
  const int verbosity = load.settings->number("log-verbosity").value_or(3);
  if (verbosity < verbosity_of_details && !load.settings->flag("log-verbose")) return;
  for (const auto& note : placement.notes)
    llama_log('I', note);
  llama_log('I', fmt::format("load_tensors: offloaded {}/{} layers to GPU", placement.layers, load.model->layers));
  llama_log('I', fmt::format("load_tensors:        CUDA0 model buffer size = {:8.2f} MiB", mib(placement.weights)));
  llama_log('I', fmt::format("llama_kv_cache:      CUDA0 KV buffer size = {:8.2f} MiB", mib(placement.kv)));
}

/// True when all of it was taken. The real one asks for a buffer in one piece, so what is already known not to fit
/// takes nothing; what is taken away under way fails in the middle.
Task<bool> take_weights(LlamaLoad load, Bytes amount) {
  const auto pause = scaled(
      Duration(static_cast<Duration::rep>(static_cast<double>(load.model->load.count()) * weights_share / slices)));
  bool fits = true;
  if (load.gpu && amount > Bytes()) {
    const auto memory = load.gpu->memory();
    fits = memory && memory->free >= amount;
  }
  for (int slice = 0; fits && slice < slices; ++slice) {
    if (slice == slices / 2) {
      if (load.model->has(llama_faults::crash_load)) {
        llama_print("terminate called after throwing an instance of 'std::runtime_error'");
        std::abort();
      }
      if (load.model->has(llama_faults::hang_load)) {
        Signal never(*load.loop);
        (void)co_await never.wait();
      }
    }
    const Bytes share(amount.count() * (slice + 1) / slices - amount.count() * slice / slices);
    if (load.gpu && share > Bytes()) fits = load.gpu->allocate("weights", share).has_value();
    if (load.progress) load.progress(static_cast<double>(slice + 1) / slices);
    co_await wait_for(pause);
  }
  if (!fits) log_no_room(*load.gpu, amount, "alloc_tensor_range");
  co_return fits;
}

}  // namespace

Task<std::optional<LlamaPlacement>> load_llama(LlamaLoad load) {
  const auto& model = *load.model;
  const auto path = model.file.string();
  const auto part_of_load = [&](double share) {
    return scaled(Duration(static_cast<Duration::rep>(static_cast<double>(model.load.count()) * share)));
  };
  if (load.progress) load.progress(0);
  if (model.has(llama_faults::bad_model)) {
    log_failed_load(path, "check_tensor_dims: tensor 'token_embd.weight' not found");
    co_return std::nullopt;
  }
  std::optional<Gpu::Memory> memory;
  if (load.gpu) {
    const auto now_free = load.gpu->memory();
    if (now_free) memory = *now_free;
  }
  const auto placement = place_llama(model, *load.settings, memory);
  log_details(load, placement);

  const bool has_weights = co_await take_weights(load, placement.weights);
  if (!has_weights) {
    log_failed_load(path, fmt::format("unable to allocate CUDA{} buffer", load.gpu->index()));
    co_return std::nullopt;
  }
  if (placement.kv > Bytes() && !load.gpu->allocate("kv", placement.kv)) {
    log_no_room(*load.gpu, placement.kv, "alloc_tensor_range");
    log_failed_context(path, "failed to allocate buffer for kv cache");
    co_return std::nullopt;
  }
  co_await wait_for(part_of_load(context_share));
  if (placement.compute > Bytes() && !load.gpu->allocate("compute", placement.compute)) {
    log_no_room(*load.gpu, placement.compute, "ggml_gallocr_reserve_n");
    llama_log('E', "graph_reserve: failed to allocate compute buffers");
    log_failed_context(path, "failed to allocate compute pp buffers");
    co_return std::nullopt;
  }
  co_await wait_for(part_of_load(1 - weights_share - context_share));
  co_return placement;
}

void unload_llama(Gpu* gpu) {
  if (!gpu) return;
  for (const auto* label : {"compute", "kv", "weights"})
    if (!gpu->release(label)) return;  // the broker is gone, and the memory with it
}

void log_unreadable_model(const std::string& path, const Error& error) {
  switch (error.code) {
    case ErrorCode::usage:  // this is about us, and no model's fault
      llama_log(
          'E', fmt::format("srv    load_model: options of the simulated '{}': {} {}", path, error.message, error.hint));
      return;
    case ErrorCode::not_found:
      llama_log('E', fmt::format("gguf_init_from_file: failed to open GGUF file '{}' ({})", path, error.message));
      break;
    default:
      llama_log('E',
                fmt::format("gguf_init_from_reader: invalid magic characters: '{}', expected 'GGUF'", error.message));
      break;
  }
  log_failed_load(path, fmt::format("llama_model_loader: failed to load model from {}", path));
}

}  // namespace gpumod::sim
