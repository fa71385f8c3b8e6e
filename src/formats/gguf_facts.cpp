#include "formats/gguf_facts.h"

#include <algorithm>

#include <fmt/format.h>

#include "formats/architectures.h"
#include "formats/ggml_types.h"

namespace gpumod {

namespace {

// Far above any model, and small enough that products of a few of them stay inside 64 bits.
constexpr std::uint32_t most_layers = 4'096;
constexpr std::uint32_t most_wide = 1u << 24;
constexpr std::uint32_t most_tokens = 0x7FFFFFFF;

/// Keys of the form "ARCHITECTURE.suffix". The first value out of its bounds becomes the error of the whole.
class Keys {
 public:
  explicit Keys(const GgufFile& file) : file_(file), prefix_(file.text("general.architecture") + ".") {}

  bool has(std::string_view suffix) const { return file_.find(prefix_ + std::string(suffix)) != nullptr; }

  std::optional<std::uint32_t> number(std::string_view suffix, std::uint32_t most = most_wide) {
    const auto key = prefix_ + std::string(suffix);
    const auto value = file_.integer(key);
    if (!value) return std::nullopt;
    return checked(key, *value, most);
  }

  /// One value a layer: an array's, or the same for all. Layers behind a short array get `otherwise`.
  std::vector<std::uint32_t> per_layer(std::string_view suffix, std::size_t layers, std::uint32_t otherwise) {
    const auto key = prefix_ + std::string(suffix);
    const auto* value = file_.find(key);
    if (!value || value->type != GgufType::array)
      return std::vector<std::uint32_t>(layers, number(suffix).value_or(otherwise));
    std::vector<std::uint32_t> values(layers, otherwise);
    for (std::size_t i = 0; i < layers && i < value->numbers.size(); ++i)
      values[i] = checked(key, value->numbers[i], most_wide);
    return values;
  }

  /// An array with a value a layer; empty when there is none.
  std::vector<std::int64_t> list(std::string_view suffix) const {
    const auto* value = file_.find(prefix_ + std::string(suffix));
    return value && value->type == GgufType::array ? value->numbers : std::vector<std::int64_t>();
  }

  const std::optional<Error>& problem() const { return problem_; }

 private:
  std::uint32_t checked(const std::string& key, std::int64_t value, std::uint32_t most) {
    if (value >= 0 && value <= static_cast<std::int64_t>(most)) return static_cast<std::uint32_t>(value);
    if (!problem_)
      problem_ = Error{ErrorCode::configuration,
                       fmt::format("{}: the key '{}' says {}: expected 0 to {}", file_.file, key, value, most),
                       {},
                       {}};
    return 0;
  }

  const GgufFile& file_;
  std::string prefix_;
  std::optional<Error> problem_;
};

void add_tensors(const GgufModel& model, ModelFacts& facts) {
  for (std::size_t part = 0; part < model.parts.size(); ++part) {
    facts.files.push_back(model.paths[part]);
    facts.file_bytes += Bytes(static_cast<std::int64_t>(model.parts[part].file_bytes));
    for (const auto& tensor : model.parts[part].tensors) {
      const auto* type = ggml_type(tensor.type);
      TensorFacts fact;
      fact.name = tensor.name;
      fact.shape = tensor.shape;
      fact.type = type ? std::string(type->name) : fmt::format("type {}", tensor.type);
      fact.elements = tensor.elements;
      fact.bytes = Bytes(static_cast<std::int64_t>(tensor.bytes));  // it lies inside the file: it fits
      fact.file = part;
      auto& share = facts.types[fact.type];
      if (!type && share.tensors == 0)
        facts.remarks.emplace_back(
            fmt::format("{} is no type that ggml knows: its tensors are counted by the room they "
                        "take in the file",
                        fact.type));
      ++share.tensors;
      share.parameters += fact.elements;
      share.bytes += fact.bytes;
      facts.parameters += fact.elements;
      facts.weights += fact.bytes;
      facts.tensors.push_back(std::move(fact));
    }
  }
}

const TensorFacts* tensor_named(const ModelFacts& facts, std::string_view name) {
  const auto found = std::find_if(facts.tensors.begin(), facts.tensors.end(),
                                  [&](const TensorFacts& tensor) { return tensor.name == name; });
  return found == facts.tensors.end() ? nullptr : &*found;
}

void set_heads(Keys& keys, ModelFacts& facts) {
  const auto count = facts.layers.size();
  const auto heads = keys.per_layer("attention.head_count", count, 0);
  const auto first_heads = std::max(1u, heads.empty() ? 1u : heads.front());
  auto kv_heads = keys.has("attention.head_count_kv") ? keys.per_layer("attention.head_count_kv", count, 0) : heads;
  const auto usual = facts.embedding_length / first_heads;
  const auto key_length = keys.number("attention.key_length").value_or(usual);
  const auto value_length = keys.number("attention.value_length").value_or(usual);
  const auto sliding_key = keys.number("attention.key_length_swa").value_or(key_length);
  const auto sliding_value = keys.number("attention.value_length_swa").value_or(value_length);
  for (std::size_t i = 0; i < count; ++i) {
    auto& layer = facts.layers[i];
    layer.attention = kv_heads[i] > 0;
    layer.heads = heads[i];
    layer.kv_heads = kv_heads[i];
    layer.key_length = layer.sliding ? sliding_key : key_length;
    layer.value_length = layer.sliding ? sliding_value : value_length;
  }
}

void set_sliding(Keys& keys, ModelFacts& facts) {
  const auto* rule = sliding_rule(facts.architecture);
  const auto listed = keys.list("attention.sliding_window_pattern");
  const auto said = keys.number("attention.sliding_window", most_tokens);
  const bool lists_layers = listed.size() >= facts.layers.size() - facts.prediction_layers() && !listed.empty();
  if (!rule && !(said && lists_layers)) {
    if (said.value_or(0) > 0)
      facts.remarks.push_back(fmt::format("the file names a window of {} tokens; llama.cpp lets no layer of {} slide",
                                          *said, facts.architecture));
    return;
  }
  auto window = said.value_or(rule ? rule->usual_window : 0);
  if (window == 0) return;
  if (rule && rule->fixed_window > 0) window = rule->fixed_window;
  if (rule && rule->only_layers > 0 && rule->only_layers != facts.layers.size()) return;

  if (lists_layers) {
    for (std::size_t i = 0; i < facts.layers.size() && i < listed.size(); ++i)
      facts.layers[i].sliding = listed[i] != 0;
  } else {
    const auto in_file = keys.number("attention.sliding_window_pattern");
    const auto period = in_file.value_or(rule->period);
    if (period == 0) return;
    for (std::size_t i = 0; i < facts.layers.size(); ++i)
      facts.layers[i].sliding = rule->dense_first ? i % period != 0 : i % period < period - 1;
    if (!in_file)
      facts.remarks.emplace_back(
          fmt::format("which layers slide is not in the file: all but one of {}, as llama.cpp has "
                      "it for {}",
                      period, facts.architecture));
  }
  const bool any =
      std::any_of(facts.layers.begin(), facts.layers.end(), [](const auto& layer) { return layer.sliding; });
  if (any) facts.sliding_window = window;
}

/// Which layers have a state; what is known of its size.
void set_recurrent(Keys& keys, ModelFacts& facts) {
  auto rule = recurrent_rule(facts.architecture);
  const auto listed = keys.list("attention.recurrent_layers");
  const bool has_state = keys.has("ssm.conv_kernel") || keys.has("ssm.inner_size") || keys.has("shortconv.l_cache") ||
                         keys.has("wkv.head_size") || keys.has("kda.head_dim");
  if (rule == RecurrentRule::none && listed.empty()) {
    const bool some_without =
        std::any_of(facts.layers.begin(), facts.layers.end(), [](const auto& layer) { return !layer.attention; });
    if (has_state && !some_without)
      facts.remarks.push_back(
          fmt::format("{} is not known: it has a recurrent state, and nothing says in which layers: it is not counted",
                      facts.architecture));
    if (!has_state || !some_without) return;
    rule = RecurrentRule::no_kv_heads;
    facts.remarks.emplace_back(
        fmt::format("{} is not known: its layers without key heads are taken for recurrent ones", facts.architecture));
  }
  const auto feed_forward = keys.per_layer("feed_forward_length", facts.layers.size(), 0);
  const bool lightning = facts.architecture == "minimax-01";
  const auto interval = std::max(1u, keys.number("full_attention_interval").value_or(lightning ? 8 : 4));
  for (std::size_t i = 0; i < facts.layers.size(); ++i) {
    auto& layer = facts.layers[i];
    if (layer.prediction) continue;  // these are attention alone
    if (!listed.empty())
      layer.recurrent = i < listed.size() && listed[i] != 0;
    else if (rule == RecurrentRule::interval)
      layer.recurrent = (i + 1) % interval != 0;
    else if (rule == RecurrentRule::no_kv_no_ffn)
      layer.recurrent = !layer.attention && feed_forward[i] == 0;
    else if (rule == RecurrentRule::no_kv_heads)
      layer.recurrent = !layer.attention;
    else
      layer.recurrent = true;
    if (layer.recurrent && rule != RecurrentRule::beside) layer.attention = false;
  }

  StateFacts state;
  state.conv_kernel = keys.number("ssm.conv_kernel").value_or(0);
  state.inner_size = keys.number("ssm.inner_size").value_or(0);
  state.state_size = keys.number("ssm.state_size").value_or(0);
  state.group_count = keys.number("ssm.group_count").value_or(0);
  state.time_step_rank = keys.number("ssm.time_step_rank").value_or(0);
  const std::uint64_t width = facts.embedding_length;
  const std::uint64_t before = state.conv_kernel > 0 ? state.conv_kernel - 1 : 0;
  if (const auto head = keys.number("wkv.head_size"); head && *head > 0) {
    // arwkv shifts one token, rwkv two; the files of the former say so.
    state.rolling = keys.number("token_shift_count").value_or(2) * width;
    state.state = width * *head;
  } else if (const auto cache = keys.number("shortconv.l_cache"); cache && *cache > 0) {
    state.rolling = width * (*cache - 1);
  } else if (const auto head_length = keys.number("kda.head_dim"); head_length && *head_length > 0) {
    const std::uint64_t heads = facts.layers.empty() ? 0 : facts.layers.front().heads;
    state.rolling = 3 * before * heads * *head_length;
    state.state = heads * *head_length * *head_length;
  } else if (lightning && !facts.layers.empty()) {
    const auto& layer = facts.layers.front();
    state.state = std::uint64_t{layer.heads} * layer.key_length * layer.key_length;
  } else {
    state.rolling = before * (state.inner_size + 2ull * state.group_count * state.state_size);
    state.state = std::uint64_t{state.state_size} * state.inner_size;
  }
  if (state.rolling + state.state == 0)
    facts.remarks.push_back(fmt::format("the size of the recurrent state of {} is not known", facts.architecture));
  facts.state = state;
}

void set_mla(Keys& keys, ModelFacts& facts) {
  const auto rank = keys.number("attention.kv_lora_rank").value_or(0);
  if (rank == 0) return;
  MlaFacts mla;
  mla.kv_rank = rank;
  mla.q_rank = keys.number("attention.q_lora_rank").value_or(0);
  mla.rope_length = keys.number("rope.dimension_count").value_or(0);
  mla.compressed = keys.number("attention.key_length_mla").value_or(0) > 0 &&
                   keys.number("attention.value_length_mla").value_or(0) > 0;
  for (auto& layer : facts.layers)
    if (mla.compressed) layer.value_length = 0;
  if (!mla.compressed)
    facts.remarks.emplace_back("the file is of the older kind for latent attention: keys and values are kept whole");
  facts.mla = mla;
}

/// Sparse attention: an indexer with keys of its own, one head, chooses what a token looks at.
void set_indexer(Keys& keys, ModelFacts& facts) {
  const auto length = keys.number("attention.indexer.key_length").value_or(0);
  for (auto& layer : facts.layers)
    if (layer.attention) layer.indexer_length = length;
}

void set_shared_kv(Keys& keys, ModelFacts& facts) {
  const auto count = static_cast<std::uint32_t>(facts.layers.size());
  auto own = layers_with_own_kv(facts.architecture);
  if (const auto shared = keys.number("attention.shared_kv_layers"); shared && *shared > 0)
    own = count - std::min(count, *shared);
  else if (own == 0)
    return;
  for (std::uint32_t i = own; i < count; ++i)
    facts.layers[i].shares_kv = true;
}

}  // namespace

Result<ModelFacts> facts_of(const GgufModel& model) {
  const auto& file = model.parts.front();
  Keys keys(file);
  ModelFacts facts;
  facts.format = ModelFormat::gguf;
  facts.architecture = file.text("general.architecture");
  facts.name = file.text("general.name");
  facts.kind = file.text("general.type");
  if (const auto type = file.integer("general.file_type"); type && *type >= 0 && *type < 1024)
    facts.quantization = file_type_name(static_cast<std::uint32_t>(*type));
  add_tensors(model, facts);

  facts.context_length = keys.number("context_length", most_tokens).value_or(0);
  facts.embedding_length = keys.number("embedding_length").value_or(0);
  facts.vocabulary = keys.number("vocab_size").value_or(0);
  const auto* tokens = file.find("tokenizer.ggml.tokens");
  if (facts.vocabulary == 0 && tokens && tokens->count < most_wide)
    facts.vocabulary = static_cast<std::uint32_t>(tokens->count);
  const auto* embedding = tensor_named(facts, "token_embd.weight");
  if (facts.vocabulary == 0 && embedding && embedding->shape.size() > 1 && embedding->shape[1] < most_wide)
    facts.vocabulary = static_cast<std::uint32_t>(embedding->shape[1]);
  facts.pooling = file.integer(facts.architecture + ".pooling_type");
  facts.tokenizer = file.text("tokenizer.ggml.model");
  facts.pre_tokenizer = file.text("tokenizer.ggml.pre");
  facts.chat_template = file.find("tokenizer.chat_template") != nullptr;
  facts.keeps_kv = !keeps_no_kv(facts.architecture);

  const auto layers = keys.number("block_count", most_layers).value_or(0);
  facts.layers.resize(layers);
  const auto prediction = std::min(layers, keys.number("nextn_predict_layers", most_layers).value_or(0));
  for (std::uint32_t i = layers - prediction; i < layers; ++i)
    facts.layers[i].prediction = true;
  for (const auto wide : keys.per_layer("feed_forward_length", layers, 0))
    facts.feed_forward_length = std::max(facts.feed_forward_length, wide);
  if (const auto count = keys.number("expert_count"); count && *count > 0)
    facts.experts = ExpertFacts{*count, keys.number("expert_used_count").value_or(0),
                                keys.number("expert_shared_count").value_or(0),
                                keys.number("expert_feed_forward_length").value_or(0)};
  set_sliding(keys, facts);
  set_heads(keys, facts);
  set_recurrent(keys, facts);
  set_mla(keys, facts);
  set_indexer(keys, facts);
  set_shared_kv(keys, facts);
  if (keys.problem()) return fail(*keys.problem());
  return facts;
}

}  // namespace gpumod
