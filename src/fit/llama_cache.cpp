// Caches of a llama-server, layer by layer: keys and values for attention, a state a sequence for recurrent layers.

#include <algorithm>

#include <fmt/format.h>

#include "fit/llama_estimate.h"
#include "fit/wide.h"
#include "formats/ggml_types.h"

namespace gpumod {

namespace {

constexpr std::uint64_t cell_padding = 256;

std::uint64_t padded(std::uint64_t cells) {
  return (cells + cell_padding - 1) / cell_padding * cell_padding;
}

/// The types in which llama-server keeps keys and values (common/arg.cpp).
constexpr std::string_view cache_types[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"};

Result<const GgmlType*> cache_type(const std::string& name) {
  const auto* type = ggml_type(name);
  if (!type || std::find(std::begin(cache_types), std::end(cache_types), type->name) == std::end(cache_types))
    return fail(ErrorCode::usage, fmt::format("'{}' is no type for a cache of keys or values", name),
                "llama-server knows f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 and iq4_nl.");
  return type;
}

Result<std::uint64_t> row_of(const GgmlType& type, std::uint64_t elements, std::string_view what) {
  const auto bytes = row_bytes(type, elements);
  if (!bytes)
    return fail(ErrorCode::usage, fmt::format("{} of {} elements cannot be kept as {}, which takes {} at a time", what,
                                              elements, type.name, type.block));
  return *bytes;
}

}  // namespace

LlamaCells llama_cells(const ModelFacts& model, const LlamaFlags& flags) {
  LlamaCells cells;
  cells.sequences = static_cast<std::uint64_t>(std::clamp(flags.parallel.value_or(4), 1, 1 << 16));
  const bool unified = flags.unified.value_or(!flags.parallel);
  const auto asked = flags.context.value_or(0) > 0 ? static_cast<std::uint64_t>(*flags.context) : model.context_length;
  const auto context = padded(std::min<std::uint64_t>(asked, 0x7FFFFFFF));
  cells.streams = unified ? 1 : cells.sequences;
  cells.per_stream = unified ? context : padded(context / cells.sequences);
  const std::uint64_t window = std::uint64_t{model.sliding_window} * (unified ? cells.sequences : 1);
  const auto batch = static_cast<std::uint64_t>(std::max(1, flags.batch));
  cells.sliding = flags.swa_full ? cells.per_stream : padded(std::min(cells.per_stream, window + batch));
  return cells;
}

Result<Bytes> llama_layer_cache(const ModelFacts& model, const LayerFacts& layer, const LlamaCells& cells,
                                const LlamaFlags& flags) {
  Wide bytes = 0;
  if (layer.attention && model.keeps_kv && !layer.shares_kv && !layer.prediction) {
    const auto* k = TRY(cache_type(flags.cache_k));
    const auto* v = TRY(cache_type(flags.cache_v));
    const auto rows = (layer.sliding ? cells.sliding : cells.per_stream) * cells.streams;
    // Without flash attention values lie transposed, and every layer's are as wide as the widest's.
    std::uint64_t values = std::uint64_t{layer.value_length} * layer.kv_heads;
    if (!flags.flash_attention && values > 0)
      for (const auto& other : model.layers)
        if (other.attention) values = std::max(values, std::uint64_t{other.value_length} * other.kv_heads);
    const auto key_row = TRY(row_of(*k, std::uint64_t{layer.key_length} * layer.kv_heads, "keys"));
    const auto value_row = values == 0 ? 0 : TRY(row_of(*v, values, "values"));
    const auto index_row = layer.indexer_length == 0 ? 0 : TRY(row_of(*k, layer.indexer_length, "keys of the indexer"));
    bytes += (Wide{key_row} + value_row + index_row) * rows;
  }
  if (layer.recurrent && model.state) {
    constexpr std::uint64_t f32 = 4;  // whatever the type of the caches
    bytes += (Wide{model.state->rolling} + model.state->state) * f32 * cells.sequences;
  }
  return bounded_bytes(bytes);
}

}  // namespace gpumod
