// config.json → facts. The keys are those of transformers' configurations; models of images and text keep the language
// model's under "text_config".

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "formats/hf_model.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr std::uint32_t most_layers = 4'096;
constexpr std::uint32_t most_wide = 1u << 24;
constexpr std::uint32_t most_tokens = 0x7FFFFFFF;

class Config {
 public:
  Config(std::string_view file, const json::object& whole) : file_(file), whole_(whole) {
    const auto* text = whole.if_contains("text_config");
    inner_ = text ? text->if_object() : nullptr;
  }

  const json::value* find(std::string_view key) const {
    const auto* value = inner_ ? inner_->if_contains(key) : nullptr;
    if (value && !value->is_null()) return value;
    value = whole_.if_contains(key);
    return value && !value->is_null() ? value : nullptr;
  }
  std::string text(std::string_view key) const {
    const auto* value = find(key);
    return value && value->is_string() ? printable(std::string_view(value->get_string())) : std::string();
  }
  /// The first of the keys that is a whole number. Another kind of value (a list, say) is passed over.
  std::optional<std::uint32_t> number(std::initializer_list<std::string_view> keys, std::uint32_t most = most_wide) {
    for (const auto key : keys) {
      const auto* value = find(key);
      if (!value || !(value->is_int64() || value->is_uint64())) continue;
      const bool fits = value->is_int64() && value->get_int64() >= 0 && value->get_int64() <= most;
      if (fits) return static_cast<std::uint32_t>(value->get_int64());
      if (value->is_int64() && value->get_int64() == -1) return std::nullopt;  // "none", in some of them
      if (!problem_)
        problem_ = Error{ErrorCode::configuration,
                         fmt::format("{}: '{}' is {}: expected 0 to {}", file_, key, json::serialize(*value), most),
                         {},
                         {}};
      return std::nullopt;
    }
    return std::nullopt;
  }
  /// A list of texts; empty when it is none.
  std::vector<std::string> texts(std::string_view key) const {
    std::vector<std::string> found;
    const auto* value = find(key);
    if (!value || !value->is_array()) return found;
    for (const auto& each : value->get_array())
      found.push_back(each.is_string() ? std::string(each.get_string()) : std::string());
    return found;
  }
  const std::optional<Error>& problem() const { return problem_; }

 private:
  std::string file_;
  const json::object& whole_;
  const json::object* inner_ = nullptr;
  std::optional<Error> problem_;
};

std::string quantization_of(const Config& config) {
  const auto* value = config.find("quantization_config");
  if (!value || !value->is_object()) return "";
  const auto& object = value->get_object();
  const auto* method = object.if_contains("quant_method");
  const auto* bits = object.if_contains("bits");
  auto name =
      method && method->is_string() ? printable(std::string_view(method->get_string())) : std::string("quantized");
  if (bits && bits->is_int64()) name += fmt::format(" {} bit", bits->get_int64());
  return name;
}

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// What a word of layer_types, or a letter of Nemotron-H's pattern, says of a layer.
void set_kind(LayerFacts& layer, std::string_view kind) {
  layer.sliding = is_one_of(kind, {"sliding_attention", "local_attention", "chunked_attention"});
  layer.recurrent = is_one_of(kind, {"linear_attention", "mamba", "mamba2", "recurrent", "conv", "M"});
  layer.attention = layer.sliding || is_one_of(kind, {"full_attention", "attention", "global_attention", "*"});
}

void set_layers(Config& config, ModelFacts& facts) {
  const auto count = config.number({"num_hidden_layers", "n_layer", "n_layers", "num_layers"}, most_layers).value_or(0);
  const auto heads = config.number({"num_attention_heads", "n_head", "n_heads"}).value_or(0);
  const auto kv_heads = config.number({"num_key_value_heads", "num_kv_heads", "n_head_kv"}).value_or(heads);
  const auto usual = heads > 0 ? facts.embedding_length / heads : 0;
  const auto length = config.number({"head_dim", "attention_head_dim"}).value_or(usual);
  facts.layers.resize(count);
  for (auto& layer : facts.layers) {
    layer.attention = kv_heads > 0;
    layer.heads = heads;
    layer.kv_heads = kv_heads;
    layer.key_length = layer.value_length = length;
  }

  auto kinds = config.texts("layer_types");
  for (const char* key : {"layers_block_type", "hybrid_layer_types"})
    if (kinds.empty()) kinds = config.texts(key);
  if (const auto pattern = config.text("hybrid_override_pattern"); kinds.empty())
    for (const char letter : pattern)
      kinds.emplace_back(1, letter);
  for (std::size_t i = 0; i < kinds.size() && i < facts.layers.size(); ++i)
    set_kind(facts.layers[i], kinds[i]);

  const auto window = config.number({"sliding_window", "attention_chunk_size"}, most_tokens).value_or(0);
  const auto* used = config.find("use_sliding_window");
  const bool slides = window > 0 && !(used && used->is_bool() && !used->get_bool());
  if (!slides) {
    for (auto& layer : facts.layers)
      layer.sliding = false;
    return;
  }
  if (kinds.empty()) {
    if (const auto period = config.number({"sliding_window_pattern"}); period && *period > 0) {
      for (std::size_t i = 0; i < facts.layers.size(); ++i)
        facts.layers[i].sliding = (i + 1) % *period != 0;
    } else {
      for (auto& layer : facts.layers)
        layer.sliding = layer.attention;
      facts.remarks.emplace_back("the configuration names a window and no layers: all are taken to slide");
    }
  }
  if (std::any_of(facts.layers.begin(), facts.layers.end(), [](const auto& layer) { return layer.sliding; }))
    facts.sliding_window = window;
}

void set_mla(Config& config, ModelFacts& facts) {
  const auto rank = config.number({"kv_lora_rank"}).value_or(0);
  if (rank == 0) return;
  MlaFacts mla;
  mla.kv_rank = rank;
  mla.q_rank = config.number({"q_lora_rank"}).value_or(0);
  mla.rope_length = config.number({"qk_rope_head_dim"}).value_or(0);
  mla.compressed = true;
  for (auto& layer : facts.layers) {
    layer.kv_heads = layer.attention ? 1 : 0;
    layer.key_length = mla.kv_rank + mla.rope_length;
    layer.value_length = 0;
  }
  facts.mla = mla;
}

void set_state(Config& config, ModelFacts& facts) {
  if (facts.architecture == "mamba" || facts.architecture == "mamba2")
    for (auto& layer : facts.layers) {
      layer.recurrent = true;
      layer.attention = false;
    }
  if (std::none_of(facts.layers.begin(), facts.layers.end(), [](const auto& layer) { return layer.recurrent; })) return;
  StateFacts state;
  state.conv_kernel =
      config.number({"mamba_d_conv", "conv_kernel", "linear_conv_kernel_dim", "conv_L_cache"}).value_or(0);
  state.state_size =
      config.number({"mamba_d_state", "ssm_state_size", "state_size", "linear_key_head_dim"}).value_or(0);
  state.group_count = config.number({"mamba_n_groups", "n_groups", "linear_num_key_heads"}).value_or(0);
  const auto heads =
      config.number({"mamba_n_heads", "mamba_num_heads", "num_heads", "linear_num_value_heads"}).value_or(0);
  const auto length =
      config.number({"mamba_d_head", "mamba_head_dim", "head_dim", "linear_value_head_dim"}).value_or(0);
  const auto inner = std::uint64_t{heads} * length;
  state.time_step_rank = heads;
  state.inner_size = inner <= most_wide ? static_cast<std::uint32_t>(inner) : 0;
  const std::uint64_t before = state.conv_kernel > 0 ? state.conv_kernel - 1 : 0;
  state.rolling = before * (state.inner_size + 2ull * state.group_count * state.state_size);
  state.state = std::uint64_t{state.state_size} * state.inner_size;
  if (state.rolling + state.state == 0)
    facts.remarks.push_back(fmt::format("the size of the recurrent state of {} is not known", facts.architecture));
  facts.state = state;
}

/// Python's json module writes NaN and Infinity, which are no JSON; Mamba's time_step_limit is such a value.
std::string without_infinities(std::string_view text) {
  std::string json_text;
  json_text.reserve(text.size());
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\' && i + 1 < text.size()) {
      json_text += c;
      json_text += text[++i];
      continue;
    }
    if (c == '"') quoted = !quoted;
    bool replaced = false;
    if (!quoted)
      for (const std::string_view word : {"-Infinity", "Infinity", "NaN"})
        if (!replaced && text.substr(i).starts_with(word)) {
          json_text += "null";
          i += word.size() - 1;
          replaced = true;
        }
    if (!replaced) json_text += c;
  }
  return json_text;
}

}  // namespace

Result<ModelFacts> facts_of_hf_config(std::string_view file, std::string_view text) {
  json::parse_options options;
  options.max_depth = 32;
  boost::system::error_code problem;
  const auto parsed = json::parse(without_infinities(text), problem, {}, options);
  if (problem || !parsed.is_object())
    return fail(ErrorCode::configuration, fmt::format("{}: expected a JSON object: {}", file,
                                                      problem ? problem.message() : "it is something else"));
  Config config(file, parsed.get_object());
  ModelFacts facts;
  facts.format = ModelFormat::safetensors;
  const auto* type = parsed.get_object().if_contains("model_type");
  if (type && type->is_string()) facts.architecture = printable(std::string_view(type->get_string()));
  const auto classes = config.texts("architectures");
  if (!classes.empty()) facts.model_class = printable(classes.front());
  facts.name = config.text("_name_or_path");
  facts.quantization = quantization_of(config);
  facts.context_length =
      config.number({"max_position_embeddings", "n_positions", "max_seq_len", "seq_length"}, most_tokens).value_or(0);
  facts.embedding_length = config.number({"hidden_size", "n_embd", "d_model"}).value_or(0);
  facts.feed_forward_length = config.number({"intermediate_size", "n_inner", "ffn_hidden_size"}).value_or(0);
  facts.vocabulary = config.number({"vocab_size"}).value_or(0);
  const auto experts = config.number({"num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts"});
  if (experts && *experts > 0)
    facts.experts =
        ExpertFacts{*experts, config.number({"num_experts_per_tok", "num_experts_per_token", "moe_top_k"}).value_or(0),
                    config.number({"n_shared_experts", "num_shared_experts"}).value_or(0),
                    config.number({"moe_intermediate_size", "intermediate_size"}).value_or(0)};
  // Encoders: nothing is kept of what they computed.
  facts.keeps_kv =
      facts.model_class.find("Bert") == std::string::npos && facts.model_class.find("Roberta") == std::string::npos;
  set_layers(config, facts);
  set_mla(config, facts);
  set_state(config, facts);
  if (config.problem()) return fail(*config.problem());
  return facts;
}

}  // namespace gpumod
