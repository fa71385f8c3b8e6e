#include "sim/vllm_api.h"

#include <algorithm>
#include <ctime>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "base/paths.h"
#include "sim/vllm_answers.h"
#include "sim/vllm_process.h"
#include "sim/vllm_replies.h"

namespace gpumod::sim {

namespace json = boost::json;

namespace {

constexpr std::string_view get_paths[] = {"/health", "/load", "/v1/models", "/version", "/metrics", "/is_sleeping"};
constexpr std::string_view post_paths[] = {
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/tokenize", "/sleep", "/wake_up", "/collective_rpc"};
constexpr std::string_view development_paths[] = {"/is_sleeping", "/sleep", "/wake_up", "/collective_rpc"};

template <std::size_t n>
bool stands_in(const std::string_view (&list)[n], std::string_view path) {
  return std::find(std::begin(list), std::end(list), path) != std::end(list);
}

}  // namespace

VllmApi::VllmApi(const VllmCommand& command, const VllmBehaviour& options, EngineClient& engine, const VllmLog& log,
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
