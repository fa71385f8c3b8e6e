#include "sim/llama_replies.h"

#include <algorithm>
#include <random>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace gpumod::sim {

namespace json = boost::json;

namespace {

json::object timings_of(const LlamaTelling& telling) {
  const auto prompt_n = telling.answer.prompt_tokens;
  const auto generated = static_cast<int>(telling.answer.tokens.size());
  // The first token comes with the prompt: it is not counted, and one alone has no rate.
  const double prompt_ms = std::max(telling.timings.prompt * 1000, 0.001);
  const double generation_ms = generated > 1 ? std::max(telling.timings.generation * 1000, 0.001) : 0.001;
  return {{"cache_n", 0},
          {"prompt_n", prompt_n},
          {"prompt_ms", prompt_ms},
          {"prompt_per_token_ms", prompt_ms / std::max(prompt_n, 1)},
          {"prompt_per_second", prompt_n * 1000 / prompt_ms},
          {"predicted_n", generated},
          {"predicted_ms", generation_ms},
          {"predicted_per_token_ms", generated > 1 ? generation_ms / (generated - 1) : 0.0},
          {"predicted_per_second", generated > 1 ? (generated - 1) * 1000 / generation_ms : 0.0}};
}

json::object usage_of(const LlamaTelling& telling) {
  const auto generated = static_cast<int>(telling.answer.tokens.size());
  return {{"completion_tokens", generated},
          {"prompt_tokens", telling.answer.prompt_tokens},
          {"total_tokens", generated + telling.answer.prompt_tokens},
          {"prompt_tokens_details", json::object{{"cached_tokens", 0}}}};
}

const char* finish_of(const LlamaTelling& telling) {
  return telling.answer.cut ? "length" : "stop";
}

json::object envelope(const LlamaTelling& telling, json::array choices, const char* object) {
  return {{"choices", std::move(choices)},  {"created", telling.created},        {"id", telling.id},
          {"model", telling.identity.name}, {"system_fingerprint", llama_build}, {"object", object}};
}

json::object chat_chunk(const LlamaTelling& telling, json::object delta, json::value finish = nullptr) {
  json::array choices;
  choices.emplace_back(json::object{{"finish_reason", std::move(finish)}, {"index", 0}, {"delta", std::move(delta)}});
  return envelope(telling, std::move(choices), "chat.completion.chunk");
}

json::object text_chunk(const LlamaTelling& telling, std::string text, json::value finish = nullptr) {
  json::array choices;
  choices.emplace_back(json::object{
      {"text", std::move(text)}, {"index", 0}, {"logprobs", nullptr}, {"finish_reason", std::move(finish)}});
  return envelope(telling, std::move(choices), "text_completion");
}

json::object native_whole(const LlamaTelling& telling, std::string content) {
  const auto generated = static_cast<int>(telling.answer.tokens.size());
  return {{"index", 0},
          {"content", std::move(content)},
          {"tokens", json::array()},
          {"id_slot", telling.slot},
          {"stop", true},
          {"model", telling.identity.name},
          {"tokens_predicted", generated},
          {"tokens_evaluated", telling.answer.prompt_tokens},
          {"generation_settings", generation_settings(&telling.question, true)},
          {"prompt", "<s>" + telling.question.prompt},
          {"has_new_line", telling.answer.text().find('\n') != std::string::npos},
          {"truncated", false},
          {"stop_type", telling.answer.cut ? "limit" : "eos"},
          {"stopping_word", ""},
          {"tokens_cached", telling.answer.prompt_tokens + generated - 1},
          {"timings", timings_of(telling)}};
}

/// The same text has the same vector, another text another one; its length is 1, as the real one makes it.
json::array vector_for(std::string_view text, unsigned dimensions) {
  std::minstd_rand source(static_cast<unsigned>(std::hash<std::string_view>()(text)));
  std::uniform_real_distribution<double> spread(-1, 1);
  std::vector<double> numbers(dimensions);
  double square = 0;
  for (auto& number : numbers) {
    number = spread(source);
    square += number * number;
  }
  json::array vector;
  for (const double number : numbers)
    vector.emplace_back(number / std::sqrt(std::max(square, 1e-9)));
  return vector;
}

}  // namespace

ServerReply llama_reply(const json::value& body, int status) {
  auto reply = ServerReply::json(json::serialize(body), status);
  reply.content_type = llama_json_type;
  return reply;
}

ServerReply llama_error(int status, std::string_view message, std::string_view type) {
  return llama_reply(json::object{{"error", json::object{{"code", status}, {"message", message}, {"type", type}}}},
                     status);
}

ServerReply llama_bad_request(std::string_view message) {
  return llama_error(400, message, "invalid_request_error");
}

ServerReply llama_not_found() {
  return llama_error(404, "File Not Found", "not_found_error");
}

ServerReply llama_not_supported(std::string_view what, std::string_view flag) {
  return llama_error(501, fmt::format("This server does not support {}. Start it with `{}`", what, flag),
                     "not_supported_error");
}

ServerReply llama_event_stream() {
  ServerReply reply;
  reply.content_type = "text/event-stream";
  reply.headers["X-Accel-Buffering"] = "no";
  return reply;
}

std::string llama_event(const json::value& data) {
  return "data: " + json::serialize(data) + "\n\n";
}

json::object generation_settings(const LlamaQuestion* question, bool all) {
  const auto limit = question ? question->most_tokens : -1;
  const bool chat = question && question->kind == LlamaQuestion::Kind::chat;
  json::object settings{{"seed", 4294967295},
                        {"temperature", question ? question->temperature : 0.8},
                        {"dynatemp_range", 0.0},
                        {"dynatemp_exponent", 1.0},
                        {"top_k", 40},
                        {"top_p", 0.95},
                        {"min_p", 0.05},
                        {"top_n_sigma", -1.0},
                        {"xtc_probability", 0.0},
                        {"xtc_threshold", 0.1},
                        {"typical_p", 1.0},
                        {"repeat_last_n", 64},
                        {"repeat_penalty", 1.0},
                        {"presence_penalty", 0.0},
                        {"frequency_penalty", 0.0},
                        {"dry_multiplier", 0.0},
                        {"dry_base", 1.75},
                        {"dry_allowed_length", 2},
                        {"dry_penalty_last_n", 64},
                        {"mirostat", 0},
                        {"mirostat_tau", 5.0},
                        {"mirostat_eta", 0.1},
                        {"adaptive_target", -1.0},
                        {"adaptive_decay", 0.9},
                        {"max_tokens", limit},
                        {"n_predict", limit},
                        {"n_keep", 0},
                        {"n_discard", 0},
                        {"ignore_eos", false},
                        {"stream", question && question->stream},
                        {"n_probs", 0},
                        {"min_keep", 0},
                        {"chat_format", chat ? "peg-native" : "Content-only"},
                        {"reasoning_format", question ? "deepseek" : "none"},
                        {"reasoning_in_content", false},
                        {"generation_prompt", ""},
                        {"samplers", json::array{"penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p",
                                                 "xtc", "temperature"}},
                        {"speculative.types", "none"},
                        {"timings_per_token", false},
                        {"post_sampling_probs", false},
                        {"backend_sampling", false},
                        {"lora", json::array()}};
  if (!all) return settings;
  settings["dry_sequence_breakers"] = json::array{"\n", ":", "\"", "*"};
  for (const auto* empty : {"stop", "logit_bias", "grammar_triggers", "preserved_tokens"})
    settings[empty] = json::array();
  settings["grammar"] = "";
  settings["grammar_lazy"] = false;
  return settings;
}

json::object whole_answer(const LlamaTelling& telling) {
  if (telling.question.kind == LlamaQuestion::Kind::native) return native_whole(telling, telling.answer.text());
  json::object reply;
  if (telling.question.kind == LlamaQuestion::Kind::completion) {
    reply = text_chunk(telling, telling.answer.text(), finish_of(telling));
  } else {
    json::object message{{"role", "assistant"}, {"content", telling.answer.content()}};
    if (const auto thought = telling.answer.thought(); !thought.empty()) message["reasoning_content"] = thought;
    json::array choices;
    choices.emplace_back(
        json::object{{"finish_reason", finish_of(telling)}, {"index", 0}, {"message", std::move(message)}});
    reply = envelope(telling, std::move(choices), "chat.completion");
  }
  reply["usage"] = usage_of(telling);
  reply["timings"] = timings_of(telling);
  return reply;
}

std::vector<json::object> stream_opening(const LlamaTelling& telling) {
  std::vector<json::object> chunks;
  if (telling.question.kind == LlamaQuestion::Kind::chat)
    chunks.push_back(chat_chunk(telling, {{"role", "assistant"}, {"content", nullptr}}));
  return chunks;
}

std::vector<json::object> stream_piece(const LlamaTelling& telling, std::size_t at) {
  std::vector<json::object> chunks;
  const auto& token = telling.answer.tokens[at];
  switch (telling.question.kind) {
    case LlamaQuestion::Kind::chat:
      if (!token.shown.empty())
        chunks.push_back(chat_chunk(telling, {{token.thought ? "reasoning_content" : "content", token.shown}}));
      break;
    case LlamaQuestion::Kind::completion: chunks.push_back(text_chunk(telling, token.text)); break;
    case LlamaQuestion::Kind::native:
      chunks.push_back({{"index", 0},
                        {"content", token.text},
                        {"tokens", json::array{static_cast<std::int64_t>(300 + at)}},
                        {"stop", false},
                        {"id_slot", -1},
                        {"tokens_predicted", static_cast<std::int64_t>(at + 1)},
                        {"tokens_evaluated", telling.answer.prompt_tokens}});
      break;
  }
  return chunks;
}

std::vector<json::object> stream_ending(const LlamaTelling& telling) {
  std::vector<json::object> chunks;
  switch (telling.question.kind) {
    case LlamaQuestion::Kind::chat:
      chunks.push_back(chat_chunk(telling, {}, finish_of(telling)));
      if (telling.question.usage_in_stream) {
        chunks.push_back(envelope(telling, {}, "chat.completion.chunk"));
        chunks.back()["usage"] = usage_of(telling);
      }
      break;
    case LlamaQuestion::Kind::completion:
      chunks.push_back(text_chunk(telling, "", finish_of(telling)));
      chunks.back()["usage"] = usage_of(telling);
      break;
    case LlamaQuestion::Kind::native: chunks.push_back(native_whole(telling, "")); return chunks;
  }
  chunks.back()["timings"] = timings_of(telling);
  return chunks;
}

std::vector<std::string> embedding_inputs(const json::value& request) {
  std::vector<std::string> texts;
  const auto* object = request.if_object();
  if (!object) return texts;
  for (const auto* key : {"input", "content"}) {
    const auto* value = object->if_contains(key);
    if (!value || !texts.empty()) continue;
    if (const auto* text = value->if_string()) texts.emplace_back(*text);
    if (const auto* list = value->if_array())
      for (const auto& entry : *list)
        texts.push_back(entry.is_string() ? std::string(entry.get_string()) : json::serialize(entry));
  }
  return texts;
}

json::object embedding_reply(const LlamaIdentity& identity, const json::value& request, unsigned dimensions) {
  json::array data;
  int tokens = 0;
  for (const auto& text : embedding_inputs(request)) {
    tokens += tokens_in(text) + 2;
    data.emplace_back(
        json::object{{"embedding", vector_for(text, dimensions)}, {"index", data.size()}, {"object", "embedding"}});
  }
  const auto* model = request.if_object() ? request.get_object().if_contains("model") : nullptr;
  return {{"model", model && model->is_string() ? *model : json::value(identity.name)},
          {"object", "list"},
          {"usage", json::object{{"prompt_tokens", tokens}, {"total_tokens", tokens}}},
          {"data", std::move(data)}};
}

json::array native_embedding_reply(const json::value& request, unsigned dimensions) {
  json::array reply;
  for (const auto& text : embedding_inputs(request)) {
    json::array pooled;
    pooled.emplace_back(vector_for(text, dimensions));
    reply.emplace_back(json::object{{"index", reply.size()}, {"embedding", std::move(pooled)}});
  }
  return reply;
}

json::object model_entry(const LlamaIdentity& identity, const LlamaModel& model, int context) {
  json::array aliases;
  for (const auto& alias : identity.aliases)
    aliases.emplace_back(alias);
  const auto weights = model.weights.count();
  return {{"id", identity.name},
          {"aliases", std::move(aliases)},
          {"tags", json::array()},
          {"object", "model"},
          {"architecture",
           json::object{{"input_modalities", json::array{"text"}}, {"output_modalities", json::array{"text"}}}},
          {"created", identity.created},
          {"owned_by", "llamacpp"},
          {"meta", json::object{{"vocab_type", model.dimensions > 0 ? 3 : 1},
                                {"n_vocab", 32000},
                                {"n_ctx", context},
                                {"n_ctx_train", model.context},
                                {"n_embd", model.dimensions > 0 ? static_cast<int>(model.dimensions) : 4096},
                                {"n_params", weights * 2},
                                {"size", weights},
                                {"ftype", "Q4_K - Medium"}}}};
}

json::object models_list(const LlamaIdentity& identity, const LlamaModel& model, int context) {
  json::array old;
  old.emplace_back(json::object{{"name", identity.name},
                                {"model", identity.name},
                                {"modified_at", ""},
                                {"size", ""},
                                {"digest", ""},
                                {"type", "model"},
                                {"description", ""},
                                {"tags", json::array{""}},
                                {"capabilities", json::array{"completion"}},
                                {"parameters", ""},
                                {"details", json::object{{"parent_model", ""},
                                                         {"format", "gguf"},
                                                         {"family", ""},
                                                         {"families", json::array{""}},
                                                         {"parameter_size", ""},
                                                         {"quantization_level", ""}}}});
  json::array data;
  data.emplace_back(model_entry(identity, model, context));
  return {{"models", std::move(old)}, {"object", "list"}, {"data", std::move(data)}};
}

std::string random_id() {
  static std::mt19937_64 source(std::random_device{}());
  constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  std::uniform_int_distribution<std::size_t> pick(0, letters.size() - 1);
  std::string id;
  while (id.size() < 32)
    id += letters[pick(source)];
  return id;
}

}  // namespace gpumod::sim
