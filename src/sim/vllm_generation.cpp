// What the simulated vLLM's API makes of the engine's tokens and vectors: chat, completions, streams, embeddings.
#include <algorithm>
#include <ctime>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "sim/vllm_answers.h"
#include "sim/vllm_api.h"
#include "sim/vllm_replies.h"

namespace gpumod::sim {

namespace json = boost::json;

namespace {

/// The text of a chat message's content: a string, or parts of which those of type text count.
std::string text_of(const json::value& content) {
  if (content.is_string()) return std::string(content.get_string());
  std::string text;
  if (!content.is_array()) return text;
  for (const auto& part : content.get_array()) {
    const auto* object = part.if_object();
    const auto* piece = object ? object->if_contains("text") : nullptr;
    if (piece && piece->is_string()) text += std::string_view(piece->get_string());
  }
  return text;
}

std::optional<std::int64_t> whole_number(const json::object& body, std::string_view key) {
  const auto* value = body.if_contains(key);
  if (!value || !value->is_number()) return std::nullopt;
  return value->to_number<std::int64_t>();
}

bool is_true(const json::object& body, std::string_view key) {
  const auto* value = body.if_contains(key);
  return value && value->is_bool() && value->get_bool();
}

/// Every message's text, or the reply that refuses them.
std::variant<std::string, ServerReply> chat_prompt(const json::object& body) {
  const auto* messages = body.if_contains("messages");
  if (!messages || !messages->is_array()) return bad_request("Field required", "messages");
  if (messages->get_array().empty()) return bad_request("the list of messages is empty", "messages");
  std::string prompt;
  for (const auto& message : messages->get_array()) {
    const auto* object = message.if_object();
    if (!object || !object->contains("role")) return bad_request("Field required", "messages.role");
    const auto* content = object->if_contains("content");
    if (!prompt.empty()) prompt += '\n';
    if (content) prompt += text_of(*content);
  }
  return prompt;
}

std::vector<std::string> inputs_in(const json::value& input) {
  if (input.is_string()) return {std::string(input.get_string())};
  std::vector<std::string> texts;
  if (!input.is_array()) return texts;
  const auto& list = input.get_array();
  const bool one_of_tokens = !list.empty() && list.front().is_number();
  if (one_of_tokens) return {json::serialize(list)};
  for (const auto& entry : list)
    texts.push_back(entry.is_string() ? std::string(entry.get_string()) : json::serialize(entry));
  return texts;
}

}  // namespace

Task<ServerReply> VllmApi::generate(ServerRequest request, bool chat) {
  auto parsed = object_in(request);
  if (auto* refused = std::get_if<ServerReply>(&parsed)) co_return std::move(*refused);
  const auto& body = std::get<json::object>(parsed);
  if (pools())
    co_return bad_request(fmt::format("The model does not support {} API", chat ? "Chat Completions" : "Completions"));
  if (auto refused = refuse_model(body)) co_return std::move(*refused);

  std::string prompt;
  if (chat) {
    auto messages = chat_prompt(body);
    if (auto* refused = std::get_if<ServerReply>(&messages)) co_return std::move(*refused);
    prompt = std::move(std::get<std::string>(messages));
  } else {
    const auto* given = body.if_contains("prompt");
    const auto texts = given ? inputs_in(*given) : std::vector<std::string>();
    if (texts.empty()) co_return bad_request("Field required", "prompt");
    prompt = texts.front();
  }
  const auto length = static_cast<std::int64_t>(tokens_of(prompt).size());
  if (length > engine_.max_model_len())
    co_return bad_request(
        fmt::format("This model's maximum context length is {} tokens. However, your request has {} "
                    "input tokens. Please reduce the length of the input.",
                    engine_.max_model_len(), length));
  auto limit = whole_number(body, "max_completion_tokens");
  if (!limit) limit = whole_number(body, "max_tokens");
  if (!limit && !chat) limit = 16;
  if (limit && *limit < 1) co_return bad_request(fmt::format("max_tokens must be at least 1, got {}.", *limit));
  if (engine_.dead()) co_return dead_engine();

  Question question;
  question.id = (chat ? "chatcmpl-" : "cmpl-") + random_hex();
  question.chat = chat;
  question.created = std::time(nullptr);
  json::object message;
  message["op"] = "generate";
  message["prompt"] = prompt;
  message["max_tokens"] = limit ? json::value(*limit) : json::value(nullptr);
  auto call = engine_.ask(std::move(message));
  if (is_true(body, "stream")) {
    const auto* options = body.if_contains("stream_options");
    question.usage_in_stream = options && options->is_object() && is_true(options->get_object(), "include_usage");
    ServerReply reply;
    reply.content_type = "text/event-stream; charset=utf-8";
    reply.stream = [this, call, question](ServerReply::Write write) {
      return stream_answer(call, question, std::move(write));
    };
    co_return reply;
  }
  auto answering = whole_answer(std::move(call), std::move(question));
  auto reply = co_await std::move(answering);
  co_return reply;
}

json::object VllmApi::usage(const Body& finish) {
  const auto prompt = finish.at("prompt_tokens").to_number<std::int64_t>();
  const auto generated = finish.at("completion_tokens").to_number<std::int64_t>();
  prompt_tokens_ += prompt;
  generated_tokens_ += generated;
  ++finished_[std::string(finish.at("finish").as_string())];
  json::object figures;
  figures["prompt_tokens"] = prompt;
  figures["total_tokens"] = prompt + generated;
  figures["completion_tokens"] = generated;
  figures["prompt_tokens_details"] = nullptr;
  return figures;
}

Task<ServerReply> VllmApi::whole_answer(std::shared_ptr<EngineClient::Call> call, Question question) {
  std::string text;
  std::string reasoning;
  std::optional<json::object> finish;
  while (!finish) {
    auto message = co_await call->next();
    if (!message) co_return dead_engine();
    if (message->contains("finish")) {
      finish = std::move(*message);
      break;
    }
    auto& place = message->at("reasoning").as_bool() ? reasoning : text;
    place += std::string_view(message->at("text").as_string());
  }
  json::object choice;
  choice["index"] = 0;
  if (question.chat) {
    json::object message;
    message["role"] = "assistant";
    message["content"] = text.empty() && !reasoning.empty() ? json::value(nullptr) : json::value(text);
    message["refusal"] = nullptr;
    message["tool_calls"] = json::array();
    message["reasoning"] = reasoning.empty() ? json::value(nullptr) : json::value(reasoning);
    message["reasoning_content"] = message["reasoning"];
    choice["message"] = std::move(message);
  } else {
    choice["text"] = text;
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = finish->at("finish");
  choice["stop_reason"] = nullptr;
  json::object answer;
  answer["id"] = question.id;
  answer["object"] = question.chat ? "chat.completion" : "text_completion";
  answer["created"] = question.created;
  answer["model"] = served_names().front();
  answer["choices"] = json::array{choice};
  answer["service_tier"] = nullptr;
  answer["system_fingerprint"] = nullptr;
  answer["usage"] = usage(*finish);
  answer["kv_transfer_params"] = nullptr;
  co_return ServerReply::json(json::serialize(answer));
}

Task<void> VllmApi::stream_answer(std::shared_ptr<EngineClient::Call> call, Question question,
                                  ServerReply::Write write) {
  const Counted counted(running_);
  const auto event = [&](json::array choices) {
    json::object chunk;
    chunk["id"] = question.id;
    chunk["object"] = question.chat ? "chat.completion.chunk" : "text_completion";
    chunk["created"] = question.created;
    chunk["model"] = served_names().front();
    chunk["choices"] = std::move(choices);
    return chunk;
  };
  const auto choice_of = [&](std::string_view text, bool reasoning, json::value finish) {
    json::object choice;
    choice["index"] = 0;
    if (question.chat) {
      json::object delta;
      if (!finish.is_string() || !text.empty()) delta[reasoning ? "reasoning" : "content"] = text;
      if (reasoning) delta["reasoning_content"] = text;
      choice["delta"] = std::move(delta);
    } else {
      choice["text"] = text;
    }
    choice["logprobs"] = nullptr;
    choice["finish_reason"] = std::move(finish);
    json::array choices;
    choices.push_back(std::move(choice));
    return choices;
  };
  const auto line = [](const json::object& chunk) { return fmt::format("data: {}\n\n", json::serialize(chunk)); };

  if (question.chat) {
    auto choices = choice_of("", false, nullptr);
    choices[0].at("delta").as_object()["role"] = "assistant";
    auto first = line(event(std::move(choices)));
    (void)co_await write(std::move(first));
  }
  for (bool more = true; more;) {
    auto message = co_await call->next();
    std::string text;
    if (!message) {
      json::object error;
      error["message"] = "EngineCore encountered an issue. See stack trace (above) for the root cause.";
      error["type"] = "InternalServerError";
      error["code"] = 500;
      json::object chunk;
      chunk["error"] = std::move(error);
      text = line(chunk);
      more = false;
      on_dead_engine_();
    } else if (message->contains("finish")) {
      text = line(event(choice_of("", false, message->at("finish"))));
      auto figures = usage(*message);
      if (question.usage_in_stream) {
        auto last = event(json::array());
        last["usage"] = std::move(figures);
        text += line(last);
      }
      more = false;
    } else {
      text = line(event(choice_of(message->at("text").as_string(), message->at("reasoning").as_bool(), nullptr)));
    }
    if (!more) text += "data: [DONE]\n\n";
    const bool there = co_await write(std::move(text));
    more = more && there;
  }
}

Task<ServerReply> VllmApi::embeddings(ServerRequest request) {
  auto parsed = object_in(request);
  if (auto* refused = std::get_if<ServerReply>(&parsed)) co_return std::move(*refused);
  const auto& body = std::get<json::object>(parsed);
  if (!pools()) co_return bad_request("The model does not support Embeddings API");
  if (auto refused = refuse_model(body)) co_return std::move(*refused);
  const auto* input = body.if_contains("input");
  const auto texts = input ? inputs_in(*input) : std::vector<std::string>();
  if (texts.empty()) co_return bad_request("Field required", "input");
  if (engine_.dead()) co_return dead_engine();

  json::array inputs;
  for (const auto& text : texts)
    inputs.push_back(json::value(text));
  json::object message;
  message["op"] = "embed";
  message["inputs"] = std::move(inputs);
  const auto call = engine_.ask(std::move(message));
  const auto answer = co_await call->next();
  if (!answer) co_return dead_engine();

  const auto tokens = answer->at("prompt_tokens").to_number<std::int64_t>();
  prompt_tokens_ += tokens;
  json::array data;
  for (const auto& vector : answer->at("vectors").as_array()) {
    json::object entry;
    entry["index"] = data.size();
    entry["object"] = "embedding";
    entry["embedding"] = vector;
    data.push_back(std::move(entry));
  }
  json::object figures;
  figures["prompt_tokens"] = tokens;
  figures["total_tokens"] = tokens;
  figures["completion_tokens"] = 0;
  figures["prompt_tokens_details"] = nullptr;
  json::object list;
  list["id"] = "embd-" + random_hex();
  list["object"] = "list";
  list["created"] = std::time(nullptr);
  list["model"] = served_names().front();
  list["data"] = std::move(data);
  list["usage"] = std::move(figures);
  co_return ServerReply::json(json::serialize(list));
}

}  // namespace gpumod::sim
