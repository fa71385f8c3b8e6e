// llama.cpp's memory for a GGUF model and the flags of a llama-server.
//
// Exact, because it follows llama.cpp's own allocation: weights (the bytes of the tensors that land on a GPU) and the
// caches (src/llama-kv-cache.cpp, llama-kv-cache-iswa.cpp, llama-memory-recurrent.cpp). Approximate: the buffers of the
// computation, whose size comes out of ggml's graph allocator, and CUDA's own context.
//
// Where a tensor lands (llama_model::load_tensors, build 11669): layers are counted from 0, the output is one more behind
// the last; of these the last `gpu_layers` go to the GPUs. Token embeddings always stay in host memory. A model without
// an output matrix uses the token embeddings for it, and then has a second copy of them on the GPU.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "fit/estimate.h"
#include "formats/model_facts.h"

namespace gpumod {

struct LlamaFlags {
  std::optional<std::int64_t> context;  ///< -c, of all slots together; unset or 0: what the model was trained with
  std::optional<int> gpu_layers;        ///< -ngl; unset: all. Negative: all
  std::string cache_k = "f16";          ///< --cache-type-k
  std::string cache_v = "f16";          ///< --cache-type-v
  std::optional<int> parallel;          ///< --parallel; unset: four slots with one unified cache, as llama-server does
  std::optional<bool> unified;          ///< --kv-unified; unset: only when `parallel` is unset
  int batch = 512;                      ///< --ubatch-size
  bool swa_full = false;                ///< --swa-full
  bool kv_offload = true;               ///< false for --no-kv-offload
  bool flash_attention = true;          ///< false for -fa off; `auto` turns it on with CUDA
  int n_cpu_moe = 0;                    ///< --n-cpu-moe: experts of the first N layers stay in host memory
  bool cpu_moe = false;                 ///< --cpu-moe: all of them
  /// --override-tensor: the first pattern (a regular expression) that is found in a tensor's name decides. A buffer
  /// that begins with "CPU" is host memory, "CUDA1" the second GPU, any other name the GPU of the tensor's layer.
  struct Override {
    std::string pattern;
    std::string buffer;
  };
  std::vector<Override> overrides;
  std::vector<double> split = {1.0};  ///< --tensor-split: one GPU, or the share of each
};

/// "PATTERN=BUFFER,PATTERN=BUFFER". Errors: usage.
Result<std::vector<LlamaFlags::Override>> parse_overrides(std::string_view text);

/// Errors: usage for a cache type or a pattern that is none, or a cache type whose blocks do not fit the heads.
Result<VramEstimate> estimate_llama(const ModelFacts& model, const LlamaFlags& flags);

/// Cells of the cache: what `context`, `parallel` and `unified` come to.
struct LlamaCells {
  std::uint64_t per_stream = 0;
  std::uint64_t streams = 1;
  std::uint64_t sequences = 1;
  std::uint64_t sliding = 0;  ///< cells of a layer that slides, per stream
};
LlamaCells llama_cells(const ModelFacts& model, const LlamaFlags& flags);

/// The cache of one layer, in bytes. Errors: usage, as above.
Result<Bytes> llama_layer_cache(const ModelFacts& model, const LayerFacts& layer, const LlamaCells& cells,
                                const LlamaFlags& flags);

}  // namespace gpumod
