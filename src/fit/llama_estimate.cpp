#include "fit/llama_estimate.h"

#include <algorithm>
#include <charconv>
#include <regex>

#include <fmt/format.h>

#include "base/text.h"
#include "fit/wide.h"

namespace gpumod {

namespace {

constexpr auto cuda_context = Bytes::mib(450);
constexpr std::size_t longest_pattern = 512;  // std::regex recurses

/// N of "blk.N.…", also behind "enc." and "dec.".
std::optional<std::size_t> block_of(std::string_view name) {
  if (name.starts_with("enc.") || name.starts_with("dec.")) name.remove_prefix(4);
  if (!name.starts_with("blk.")) return std::nullopt;
  name.remove_prefix(4);
  std::size_t number = 0;
  const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (problem != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return number;
}

bool begins_with_any(std::string_view name, std::initializer_list<std::string_view> beginnings) {
  return std::any_of(beginnings.begin(), beginnings.end(), [&](auto beginning) { return name.starts_with(beginning); });
}

/// What a token is turned into before the first layer: llama.cpp keeps it in host memory whatever -ngl says.
bool is_input(std::string_view name) {
  return begins_with_any(
      name, {"token_embd.", "token_embd_norm.", "token_types.", "position_embd.", "per_layer_token_embd."});
}

bool is_output(std::string_view name) {
  return begins_with_any(name, {"output.", "output_norm.", "cls.", "dense_2.", "dense_3."});
}

/// Expert matrices: what --cpu-moe and --n-cpu-moe mean (common/common.h).
bool is_expert(std::string_view name) {
  for (const std::string_view part : {".ffn_up_", ".ffn_down_", ".ffn_gate_", ".ffn_gate_up_"}) {
    const auto at = name.find(part);
    if (at == std::string_view::npos) continue;
    const auto rest = name.substr(at + part.size());
    if (rest.starts_with("exps") || rest.starts_with("chexps")) return true;
  }
  return false;
}

struct Pattern {
  std::regex expression;
  std::optional<std::size_t> gpu;  ///< unset: host memory
  bool layer_decides = false;
};

class Placing {
 public:
  Placing(const ModelFacts& model, const LlamaFlags& flags) : model_(model), flags_(flags) {
    double sum = 0;
    for (const double share : flags.split)
      sum += std::max(0.0, share);
    double reached = 0;
    for (const double share : flags.split) {
      reached += sum > 0 ? std::max(0.0, share) / sum : 1.0 / static_cast<double>(flags.split.size());
      ends_.push_back(reached);
    }
    const auto slots = static_cast<std::int64_t>(model.layers.size()) + 1;
    const auto asked = flags.gpu_layers.value_or(-1);
    offloaded_ = asked < 0 ? slots : std::min<std::int64_t>(asked, slots);
    first_ = slots - offloaded_;
  }

  Result<void> compile() {
    for (const auto& each : flags_.overrides) {
      if (each.pattern.size() > longest_pattern)
        return fail(ErrorCode::usage, "a pattern of --override-tensor is too long");
      Pattern pattern;
      try {
        pattern.expression = std::regex(each.pattern);
      } catch (const std::regex_error&) {
        return fail(ErrorCode::usage,
                    fmt::format("'{}' of --override-tensor is no regular expression", printable(each.pattern)));
      }
      if (!each.buffer.starts_with("CPU")) {
        const auto digit = each.buffer.find_last_not_of("0123456789") + 1;
        std::size_t number = 0;
        const char* end = each.buffer.data() + each.buffer.size();
        if (digit < each.buffer.size() && std::from_chars(each.buffer.data() + digit, end, number).ec == std::errc() &&
            number < ends_.size())
          pattern.gpu = number;
        else
          pattern.layer_decides = true;
      }
      patterns_.push_back(std::move(pattern));
    }
    return {};
  }

  /// The GPU of a layer; the output is the layer behind the last. Unset: host memory.
  std::optional<std::size_t> gpu_of_layer(std::size_t layer) const {
    const auto place = static_cast<std::int64_t>(layer) - first_;
    if (place < 0 || place >= offloaded_) return std::nullopt;
    const double share = static_cast<double>(place) / static_cast<double>(offloaded_);
    const auto found = std::upper_bound(ends_.begin(), ends_.end(), share);
    return std::min(static_cast<std::size_t>(found - ends_.begin()), ends_.size() - 1);
  }

  std::optional<std::size_t> gpu_of(const std::string& name) const {
    const auto block = block_of(name);
    // Beside the layers: what rope needs lies wherever the first layer on a GPU is.
    const auto by_layer = is_input(name)    ? std::nullopt
                          : is_output(name) ? gpu_of_layer(model_.layers.size())
                          : block           ? gpu_of_layer(*block)
                          : offloaded_ > 0  ? gpu_of_layer(static_cast<std::size_t>(first_))
                                            : std::nullopt;
    for (const auto& pattern : patterns_) {
      if (!std::regex_search(name, pattern.expression)) continue;
      return pattern.layer_decides ? by_layer : pattern.gpu;
    }
    const bool experts_stay = flags_.cpu_moe || (block && static_cast<std::int64_t>(*block) < flags_.n_cpu_moe);
    if (experts_stay && is_expert(name)) return std::nullopt;
    return by_layer;
  }

  std::int64_t offloaded() const { return offloaded_; }

 private:
  const ModelFacts& model_;
  const LlamaFlags& flags_;
  std::vector<double> ends_;
  std::vector<Pattern> patterns_;
  std::int64_t first_ = 0;
  std::int64_t offloaded_ = 0;
};

/// What the graph allocator comes to, roughly: the masks live all the time, the residual stream and the widest of the
/// stages at once. Logits are counted for a whole batch, which is what servers before the middle of 2026 reserve.
Bytes compute_buffer(const ModelFacts& model, const LlamaFlags& flags, const LlamaCells& cells) {
  constexpr std::uint64_t f32 = 4, f16 = 2;
  const auto all_cells = cells.per_stream * cells.streams;
  const auto batch =
      std::min(static_cast<std::uint64_t>(std::max(1, flags.batch)), std::max<std::uint64_t>(all_cells, 1));
  const auto mask_element = flags.flash_attention ? f16 : f32;
  const bool attends = std::any_of(model.layers.begin(), model.layers.end(), [](const auto& l) { return l.attention; });
  Wide bytes = 0;
  // An encoder's mask is over the batch alone, and there is a second one for layers that slide.
  const auto seen = model.keeps_kv ? cells.per_stream : batch, seen_sliding = model.keeps_kv ? cells.sliding : batch;
  if (attends) bytes += Wide{seen} * batch * mask_element;
  if (model.sliding_window > 0) bytes += Wide{seen_sliding} * batch * mask_element;
  bytes += Wide{6} * model.embedding_length * batch * f32;

  Wide feed_forward = Wide{3} * model.feed_forward_length * batch * f32;
  if (model.experts)
    feed_forward +=
        Wide{model.experts->used} * (2ull * model.experts->feed_forward + model.embedding_length) * batch * f32;
  Wide widest = std::max(feed_forward, Wide{model.vocabulary} * batch * f32);
  for (const auto& layer : model.layers) {
    Wide attention = Wide{2} * layer.heads * layer.key_length * batch * f32;
    if (!flags.flash_attention) attention += Wide{2} * layer.heads * cells.per_stream * batch * f32;
    widest = std::max(widest, layer.attention ? attention : Wide{0});
    if (layer.recurrent && model.state)
      widest = std::max(widest, Wide{3} * (2ull * model.state->inner_size + model.embedding_length) * batch * f32);
  }
  return bounded_bytes(bytes + widest);
}

void name_assumptions(const ModelFacts& model, const LlamaFlags& flags, const LlamaCells& cells, std::int64_t offloaded,
                      VramEstimate& estimate) {
  auto& words = estimate.assumptions;
  const auto slots = static_cast<std::int64_t>(model.layers.size()) + 1;
  if (!flags.gpu_layers)
    words.emplace_back("every layer on the GPU");
  else if (offloaded < slots)
    words.push_back(fmt::format("{} of {} layers (the output is one) on the GPU", offloaded, slots));
  if (flags.context.value_or(0) <= 0)
    words.push_back(fmt::format("the context it was trained with: {} tokens", model.context_length));
  if (!flags.parallel)
    words.emplace_back("four slots that share one cache, as llama-server has it without --parallel");
  else if (cells.streams > 1)
    words.push_back(fmt::format("{} slots with {} cells each", cells.streams, cells.per_stream));
  if (model.sliding_window > 0 && model.keeps_kv)
    words.push_back(flags.swa_full ? std::string("layers that slide keep the whole context (--swa-full)")
                                   : fmt::format("layers that slide keep {} cells", cells.sliding));
  if (model.prediction_layers() > 0)
    words.emplace_back(
        fmt::format("the last {} layers predict further tokens and are not loaded", model.prediction_layers()));
  if (!model.keeps_kv) words.emplace_back("an encoder: it keeps no keys and values");
  words.push_back(fmt::format("flash attention {}", flags.flash_attention ? "on" : "off"));
  words.emplace_back(
      fmt::format("compute buffers for batches of {} tokens are an approximation, meant to err upwards", flags.batch));
  const std::string_view name = model.architecture;
  if (name == "gemma3n" || name == "minimax-01" || name.starts_with("rwkv") || name == "arwkv7") {
    estimate.rough = true;
    words.emplace_back("this architecture's computation takes several times more than the approximation has for it");
  }
  words.push_back(fmt::format("{} for CUDA itself, on each GPU: an approximation", to_string(cuda_context)));
  words.insert(words.end(), model.remarks.begin(), model.remarks.end());
}

}  // namespace

Result<std::vector<LlamaFlags::Override>> parse_overrides(std::string_view text) {
  std::vector<LlamaFlags::Override> overrides;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const auto item = text.substr(0, comma);
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
    const auto equals = item.find('=');
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == item.size())
      return fail(ErrorCode::usage,
                  fmt::format("'{}' is no override of tensors: expected PATTERN=BUFFER", printable(item)));
    overrides.push_back({std::string(item.substr(0, equals)), std::string(item.substr(equals + 1))});
  }
  return overrides;
}

Result<VramEstimate> estimate_llama(const ModelFacts& model, const LlamaFlags& flags) {
  if (flags.split.empty()) return fail(ErrorCode::usage, "a split over no GPU at all");
  VramEstimate estimate;
  estimate.gpus.resize(flags.split.size());
  Placing placing(model, flags);
  TRY(placing.compile());

  const auto add_weights = [&](std::optional<std::size_t> gpu, Bytes bytes) {
    (gpu ? estimate.gpus[*gpu].weights : estimate.host_weights) += bytes;
  };
  const TensorFacts* embedding = nullptr;
  bool has_output = false;
  for (const auto& tensor : model.tensors) {
    const auto block = block_of(tensor.name);
    if (block && *block < model.layers.size() && model.layers[*block].prediction) continue;
    if (tensor.name == "token_embd.weight") embedding = &tensor;
    if (tensor.name == "output.weight") has_output = true;
    add_weights(placing.gpu_of(tensor.name), tensor.bytes);
  }
  const bool without_output = model.architecture.find("bert") != std::string::npos || model.architecture == "t5encoder";
  if (embedding && !has_output && !without_output)
    if (const auto gpu = placing.gpu_of("output.weight")) {
      add_weights(gpu, embedding->bytes);
      estimate.assumptions.emplace_back("token embeddings are used for the output too: a second copy on the GPU");
    }

  const auto cells = llama_cells(model, flags);
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const auto cache = TRY(llama_layer_cache(model, model.layers[i], cells, flags));
    const auto gpu = flags.kv_offload ? placing.gpu_of_layer(i) : std::nullopt;
    (gpu ? estimate.gpus[*gpu].kv : estimate.host_kv) += cache;
  }
  const auto compute = compute_buffer(model, flags, cells);
  for (auto& gpu : estimate.gpus) {
    gpu.compute = compute;
    gpu.context = cuda_context;
  }
  name_assumptions(model, flags, cells, placing.offloaded(), estimate);
  return estimate;
}

}  // namespace gpumod
