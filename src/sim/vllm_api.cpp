#include "sim/vllm_api.h"

#include <algorithm>
#include <ctime>
#include <random>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "base/paths.h"
#include "base/text.h"
#include "sim/vllm_answers.h"
#include "sim/vllm_process.h"

namespace gpumod::sim {

namespace json = boost::json;

namespace {

ServerReply error_reply(int status, std::string message, std::string type, json::value parameter = nullptr) {
  json::object error;
  error["message"] = std::move(message);
  error["type"] = std::move(type);
  error["param"] = std::move(parameter);
  error["code"] = status;
  json::object body;
  body["error"] = std::move(error);
  return ServerReply::json(json::serialize(body), status);
}

ServerReply bad_request(std::string message, json::value parameter = nullptr) {
  return error_reply(400, std::move(message), "BadRequestError", std::move(parameter));
}

ServerReply detail_reply(int status, const char* detail) {
  return ServerReply::json(fmt::format(R"({{"detail":"{}"}})", detail), status);
}

ServerReply empty_reply(int status = 200) {
  ServerReply reply;
  reply.status = status;
  reply.content_type.clear();
  return reply;
}

std::string random_hex() {
  static std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", generator(), generator());
}

/// The body as an object, or the reply that refuses it.
std::variant<json::object, ServerReply> object_in(const ServerRequest& request) {
  const auto type = request.headers.find("content-type");
  const bool labelled = type != request.headers.end() && type->second.starts_with("application/json");
  if (!labelled) return bad_request("Unsupported Media Type: Only 'application/json' is allowed");
  boost::system::error_code problem;
  auto value = json::parse(request.body, problem);
  if (problem) return bad_request(fmt::format("the body is no JSON: {}", problem.message()));
  if (!value.is_object()) return bad_request("Input should be a valid dictionary", "body");
  return std::move(value.get_object());
}

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

/// Counts a request as running as long as it lives.
class Counted {
 public:
  explicit Counted(std::int64_t& count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::int64_t& count_;
};

constexpr std::string_view get_paths[] = {"/health", "/load", "/v1/models", "/version", "/metrics", "/is_sleeping"};
constexpr std::string_view post_paths[] = {
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/sleep", "/wake_up", "/collective_rpc"};
constexpr std::string_view development_paths[] = {"/is_sleeping", "/sleep", "/wake_up", "/collective_rpc"};

template <std::size_t n>
bool stands_in(const std::string_view (&list)[n], std::string_view path) {
  return std::find(std::begin(list), std::end(list), path) != std::end(list);
}

}  // namespace

// ---- the engine's side ----

EngineClient::Call::Call(EngineClient& client, json::object message)
    : client_(client), id_(client.next_id_++), news_(client.loop_) {
  client_.calls_[id_] = this;
  message["id"] = id_;
  client_.link_.send(message);
}

EngineClient::Call::~Call() {
  client_.calls_.erase(id_);
  if (over_ || client_.dead_) return;
  json::object abort;
  abort["op"] = "abort";
  abort["id"] = id_;
  client_.link_.send(abort);
}

Task<std::optional<json::object>> EngineClient::Call::next() {
  while (arrived_.empty() && !client_.dead_) {
    news_.reset();
    (void)co_await news_.wait();
  }
  if (arrived_.empty()) co_return std::nullopt;
  auto message = std::move(arrived_.front());
  arrived_.pop_front();
  co_return message;
}

void EngineClient::deliver(json::object message) {
  const auto found = calls_.find(message.at("id").to_number<std::int64_t>());
  if (found == calls_.end()) return;
  auto& call = *found->second;
  call.over_ = !message.contains("text");
  call.arrived_.push_back(std::move(message));
  call.news_.set();
}

void EngineClient::set_dead() {
  dead_ = true;
  for (auto& [id, call] : calls_)
    call->news_.set();
}

// ---- routing ----

VllmApi::VllmApi(const VllmCommand& command, const VllmOptions& options, EngineClient& engine, const VllmLog& log,
                 std::function<void()> on_dead_engine)
    : command_(command),
      options_(options),
      engine_(engine),
      log_(log),
      on_dead_engine_(std::move(on_dead_engine)),
      development_(environment_variable("VLLM_SERVER_DEV_MODE") == "1") {}

Task<ServerReply> VllmApi::handle(ServerRequest request) {
  auto routing = route(std::move(request));
  auto reply = co_await std::move(routing);
  reply.headers["Server"] = "uvicorn";
  co_return reply;
}

Task<ServerReply> VllmApi::route(ServerRequest request) {
  const std::string path = request.path;
  const bool hidden = stands_in(development_paths, path) && !development_;
  const bool gets = stands_in(get_paths, path);
  const bool posts = stands_in(post_paths, path);
  if (path == "/ping") co_return engine_.dead() ? empty_reply(503) : empty_reply();
  if (hidden || (!gets && !posts)) co_return detail_reply(404, "Not Found");
  if (request.method != (gets ? "GET" : "POST")) co_return detail_reply(405, "Method Not Allowed");
  if (!authorized(request)) co_return ServerReply::json(R"({"error":"Unauthorized"})", 401);
  if (path == "/health") co_return engine_.dead() ? empty_reply(503) : empty_reply();
  // Only a server that listens too early (a fault) comes here without its engine.
  if (!engine_.ready() && !engine_.dead()) co_return error_reply(503, "the engine is not up", "ServiceUnavailable");

  if (path == "/version") co_return ServerReply::json(fmt::format(R"({{"version":"{}"}})", vllm_version));
  if (path == "/load") co_return ServerReply::json(fmt::format(R"({{"server_load":{}}})", running_));
  if (path == "/v1/models") co_return models();
  if (path == "/metrics") co_return metrics();
  if (path == "/tokenize") co_return tokenize(request);

  const Counted counted(running_);
  // One coroutine a path, each named before it is awaited.
  auto answering = path == "/v1/chat/completions" ? generate(std::move(request), true)
                   : path == "/v1/completions"    ? generate(std::move(request), false)
                   : path == "/v1/embeddings"     ? embeddings(std::move(request))
                   : path == "/sleep"             ? sleep(std::move(request))
                   : path == "/wake_up"           ? wake_up(std::move(request))
                   : path == "/is_sleeping"       ? is_sleeping()
                                                  : collective_rpc(std::move(request));
  auto reply = co_await std::move(answering);
  co_return reply;
}

bool VllmApi::authorized(const ServerRequest& request) const {
  std::vector<std::string> keys = command_.api_keys;
  if (const auto key = environment_variable("VLLM_API_KEY"); keys.empty() && !key.empty()) keys.push_back(key);
  if (keys.empty() || !request.path.starts_with("/v1")) return true;
  const auto header = request.headers.find("authorization");
  if (header == request.headers.end() || !header->second.starts_with("Bearer ")) return false;
  return std::find(keys.begin(), keys.end(), header->second.substr(7)) != keys.end();
}

std::vector<std::string> VllmApi::served_names() const {
  if (options_.has("wrong-model")) return {options_.serves};
  return command_.served_names.empty() ? std::vector<std::string>{command_.model} : command_.served_names;
}

bool VllmApi::pools() const {
  return command_.runner == "pooling" || (command_.runner == "auto" && options_.dimensions > 0);
}

std::optional<ServerReply> VllmApi::refuse_model(const Body& body) const {
  const auto* wanted = body.if_contains("model");
  if (!wanted || !wanted->is_string() || wanted->get_string().empty()) return std::nullopt;
  const auto names = served_names();
  const std::string name(wanted->get_string());
  if (std::find(names.begin(), names.end(), name) != names.end()) return std::nullopt;
  return error_reply(404, fmt::format("The model `{}` does not exist.", name), "NotFoundError", "model");
}

ServerReply VllmApi::dead_engine() {
  on_dead_engine_();
  return error_reply(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.",
                     "InternalServerError");
}

// ---- what it knows without its engine ----

ServerReply VllmApi::models() const {
  json::array data;
  for (const auto& name : served_names()) {
    json::object permission;
    permission["id"] = "modelperm-" + random_hex();
    permission["object"] = "model_permission";
    permission["created"] = std::time(nullptr);
    permission["allow_sampling"] = true;
    permission["organization"] = "*";
    json::object model;
    model["id"] = name;
    model["object"] = "model";
    model["created"] = std::time(nullptr);
    model["owned_by"] = "vllm";
    model["root"] = options_.has("wrong-model") ? options_.serves : command_.model;
    model["parent"] = nullptr;
    model["max_model_len"] = engine_.max_model_len();
    model["permission"] = json::array{permission};
    data.push_back(std::move(model));
  }
  json::object list;
  list["object"] = "list";
  list["data"] = std::move(data);
  return ServerReply::json(json::serialize(list));
}

ServerReply VllmApi::metrics() const {
  const auto labels = fmt::format("engine=\"0\",model_name=\"{}\"", served_names().front());
  std::string text;
  const auto metric = [&](std::string_view name, std::string_view kind, std::int64_t value) {
    text +=
        fmt::format("# TYPE vllm:{0} {1}\nvllm:{0}{{{2}}} {3:.1f}\n", name, kind, labels, static_cast<double>(value));
  };
  metric("num_requests_running", "gauge", running_);
  metric("num_requests_waiting", "gauge", 0);
  metric("kv_cache_usage_perc", "gauge", 0);
  metric("prompt_tokens_total", "counter", prompt_tokens_);
  metric("generation_tokens_total", "counter", generated_tokens_);
  text += "# TYPE vllm:request_success_total counter\n";
  for (const auto& [reason, count] : finished_)
    text += fmt::format("vllm:request_success_total{{{},finished_reason=\"{}\"}} {:.1f}\n", labels, reason,
                        static_cast<double>(count));
  ServerReply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  reply.body = std::move(text);
  return reply;
}

ServerReply VllmApi::tokenize(const ServerRequest& request) const {
  auto parsed = object_in(request);
  if (auto* refused = std::get_if<ServerReply>(&parsed)) return std::move(*refused);
  const auto& body = std::get<json::object>(parsed);
  if (auto refused = refuse_model(body)) return std::move(*refused);
  const auto* prompt = body.if_contains("prompt");
  if (!prompt || !prompt->is_string()) return bad_request("Field required", "prompt");
  json::array numbers;
  for (std::size_t i = 0; i < tokens_of(prompt->get_string()).size(); ++i)
    numbers.push_back(static_cast<std::int64_t>(i + 1));
  json::object answer;
  answer["count"] = numbers.size();
  answer["max_model_len"] = engine_.max_model_len();
  answer["tokens"] = std::move(numbers);
  answer["token_strs"] = nullptr;
  return ServerReply::json(json::serialize(answer));
}

// ---- generation ----

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

// ---- embeddings ----

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

// ---- development mode ----

Task<ServerReply> VllmApi::utility(std::shared_ptr<EngineClient::Call> call, std::string name, ServerReply done) {
  const auto answer = co_await call->next();
  if (!answer) co_return dead_engine();
  if (const auto* error = answer->if_contains("error"))
    co_return error_reply(500, fmt::format("Call to {} method failed: {}", name, std::string(error->as_string())),
                          "InternalServerError");
  co_return done;
}

Task<ServerReply> VllmApi::sleep(ServerRequest request) {
  const auto given = request.query.find("level");
  const auto level = given == request.query.end() ? std::string("1") : given->second;
  if (level != "0" && level != "1" && level != "2") {
    log_.plain(fmt::format("ValueError: invalid sleep level: '{}'", level));
    co_return error_reply(500, "Internal Server Error", "InternalServerError");
  }
  const auto mode = request.query.find("mode");
  json::object message;
  message["op"] = "sleep";
  message["level"] = std::stoi(level);
  message["mode"] = mode == request.query.end() ? "abort" : mode->second;
  if (engine_.dead()) co_return dead_engine();
  auto asking = utility(engine_.ask(std::move(message)), "sleep", empty_reply());
  auto reply = co_await std::move(asking);
  co_return reply;
}

Task<ServerReply> VllmApi::wake_up(ServerRequest request) {
  json::array tags;
  if (const auto tag = request.query.find("tags"); tag != request.query.end()) tags.push_back(json::value(tag->second));
  log_.info("api_router.py:39", fmt::format("wake up the engine with tags: {}", json::serialize(tags)));
  json::object message;
  message["op"] = "wake_up";
  message["tags"] = std::move(tags);
  if (engine_.dead()) co_return dead_engine();
  auto asking = utility(engine_.ask(std::move(message)), "wake_up", empty_reply());
  auto reply = co_await std::move(asking);
  co_return reply;
}

Task<ServerReply> VllmApi::is_sleeping() {
  if (engine_.dead()) co_return dead_engine();
  json::object message;
  message["op"] = "is_sleeping";
  const auto call = engine_.ask(std::move(message));
  const auto answer = co_await call->next();
  if (!answer) co_return dead_engine();
  json::object said;
  said["is_sleeping"] = answer->at("result").as_bool();
  co_return ServerReply::json(json::serialize(said));
}

Task<ServerReply> VllmApi::collective_rpc(ServerRequest request) {
  boost::system::error_code problem;
  const auto value = json::parse(request.body, problem);
  if (problem || !value.is_object()) co_return detail_reply(400, "JSON decode error");
  const auto* method = value.get_object().if_contains("method");
  if (!method || !method->is_string()) co_return detail_reply(400, "Missing 'method' in request body");
  json::object message;
  message["op"] = "collective_rpc";
  message["method"] = *method;
  if (engine_.dead()) co_return dead_engine();
  auto asking = utility(engine_.ask(std::move(message)), "collective_rpc", ServerReply::json(R"({"results":[null]})"));
  auto reply = co_await std::move(asking);
  co_return reply;
}

}  // namespace gpumod::sim
