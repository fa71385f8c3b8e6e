#include "verbs/model_json.h"

#include <algorithm>

#include <boost/json.hpp>

namespace gpumod {

namespace json = boost::json;

namespace {

std::size_t count_if(const ModelFacts& facts, bool LayerFacts::*what) {
  return static_cast<std::size_t>(
      std::count_if(facts.layers.begin(), facts.layers.end(), [what](const LayerFacts& layer) { return layer.*what; }));
}

/// A number if it is the same in every layer with attention, else a list with one for each layer.
json::value per_layer(const ModelFacts& facts, std::uint32_t LayerFacts::*what) {
  std::optional<std::uint32_t> common;
  bool same = true;
  for (const auto& layer : facts.layers) {
    if (!layer.attention) continue;
    same = same && common.value_or(layer.*what) == layer.*what;
    common = layer.*what;
  }
  if (!common) return nullptr;
  if (same) return *common;
  json::array each;
  for (const auto& layer : facts.layers)
    each.emplace_back(layer.attention ? layer.*what : 0u);
  return each;
}

json::value attention_json(const ModelFacts& facts) {
  if (count_if(facts, &LayerFacts::attention) == 0) return nullptr;
  json::object out;
  out["layers"] = count_if(facts, &LayerFacts::attention);
  out["heads"] = per_layer(facts, &LayerFacts::heads);
  out["kv_heads"] = per_layer(facts, &LayerFacts::kv_heads);
  out["key_length"] = per_layer(facts, &LayerFacts::key_length);
  out["value_length"] = per_layer(facts, &LayerFacts::value_length);
  out["sliding_window"] = known_or_null(facts.sliding_window);
  out["sliding_layers"] = count_if(facts, &LayerFacts::sliding);
  out["shared_layers"] = count_if(facts, &LayerFacts::shares_kv);
  out["latent"] = nullptr;
  if (facts.mla)
    out["latent"] = {{"kv_rank", facts.mla->kv_rank},
                     {"q_rank", facts.mla->q_rank},
                     {"rope_length", facts.mla->rope_length},
                     {"compressed", facts.mla->compressed}};
  return out;
}

json::value state_json(const ModelFacts& facts) {
  if (!facts.state) return nullptr;
  const auto& state = *facts.state;
  return {{"layers", count_if(facts, &LayerFacts::recurrent)},
          {"conv_kernel", state.conv_kernel},
          {"inner_size", state.inner_size},
          {"state_size", state.state_size},
          {"group_count", state.group_count},
          {"time_step_rank", state.time_step_rank}};
}

json::value quantization_json(const ModelFacts& facts) {
  json::array types;
  for (const auto& [type, share] : facts.types)
    types.push_back(
        {{"type", type}, {"tensors", share.tensors}, {"parameters", share.parameters}, {"bytes", share.bytes.count()}});
  std::stable_sort(types.begin(), types.end(), [](const json::value& a, const json::value& b) {
    return a.at("bytes").as_int64() > b.at("bytes").as_int64();
  });
  return {{"name", known_or_null(facts.quantization)}, {"types", std::move(types)}};
}

json::value tensors_json(const ModelFacts& facts, TensorList tensors) {
  if (tensors == TensorList::counted) return facts.tensors.size();
  json::array all;
  for (const auto& tensor : facts.tensors)
    all.push_back({{"name", tensor.name},
                   {"type", tensor.type},
                   {"shape", json::value_from(tensor.shape)},
                   {"bytes", tensor.bytes.count()},
                   {"file", tensor.file}});
  return all;
}

}  // namespace

json::value known_or_null(std::uint64_t number) {
  return number > 0 ? json::value(number) : json::value(nullptr);
}

json::value known_or_null(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

json::object model_json(const ModelFacts& facts, TensorList tensors) {
  json::array files;
  for (const auto& file : facts.files)
    files.emplace_back(file.string());
  json::object out;
  out["model"] = {{"name", known_or_null(facts.name)},
                  {"format", to_string(facts.format)},
                  {"class", known_or_null(facts.model_class)},
                  {"kind", known_or_null(facts.kind)},
                  {"files", std::move(files)},
                  {"bytes", facts.file_bytes.count()}};
  out["architecture"] = known_or_null(facts.architecture);
  out["parameters"] = facts.parameters;
  out["layers"] = facts.layers.size();
  out["context_length"] = known_or_null(facts.context_length);
  out["embedding_length"] = known_or_null(facts.embedding_length);
  out["feed_forward_length"] = known_or_null(facts.feed_forward_length);
  out["quantization"] = quantization_json(facts);
  out["attention"] = attention_json(facts);
  out["state"] = state_json(facts);
  out["experts"] = nullptr;
  if (facts.experts)
    out["experts"] = {{"count", facts.experts->count},
                      {"used", facts.experts->used},
                      {"shared", facts.experts->shared},
                      {"feed_forward_length", known_or_null(facts.experts->feed_forward)}};
  out["prediction_layers"] = facts.prediction_layers();
  out["tokenizer"] = {{"model", known_or_null(facts.tokenizer)},
                      {"pre", known_or_null(facts.pre_tokenizer)},
                      {"vocabulary", known_or_null(facts.vocabulary)},
                      {"chat_template", facts.chat_template}};
  out["tensors"] = tensors_json(facts, tensors);
  return out;
}

json::object need_json(const GpuNeed& need) {
  return {{"weights", need.weights.count()},
          {"kv", need.kv.count()},
          {"compute", need.compute.count()},
          {"context", need.context.count()},
          {"total", need.total().count()}};
}

json::object vram_json(const VramEstimate& estimate, std::string_view source) {
  json::object out;
  out["source"] = source;
  for (const auto& [key, value] : need_json(estimate.sum()))
    out[key] = value;
  json::array gpus;
  for (const auto& gpu : estimate.gpus)
    gpus.emplace_back(need_json(gpu));
  out["gpus"] = std::move(gpus);
  out["host"] = {{"weights", estimate.host_weights.count()}, {"kv", estimate.host_kv.count()}};
  json::array assumptions;
  for (const auto& words : estimate.assumptions)
    assumptions.emplace_back(words);
  out["assumptions"] = std::move(assumptions);
  return out;
}

json::object vram_json(const VllmEstimate& estimate) {
  auto out = vram_json(estimate.need, "arithmetic");
  out["claim"] = estimate.claim ? json::value(estimate.claim->count()) : json::value(nullptr);
  out["fits"] = estimate.fits ? json::value(*estimate.fits) : json::value(nullptr);
  out["kv_per_token"] = estimate.kv_per_token.count();
  out["cached_tokens"] = estimate.cached_tokens ? json::value(*estimate.cached_tokens) : json::value(nullptr);
  return out;
}

}  // namespace gpumod
