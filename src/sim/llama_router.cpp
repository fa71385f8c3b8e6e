#include "sim/llama_router.h"

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>

#include "sim/llama_fleet.h"
#include "sim/llama_gate.h"
#include "sim/llama_log.h"
#include "sim/llama_process.h"
#include "sim/llama_proxy.h"
#include "sim/llama_replies.h"

namespace gpumod::sim {

namespace json = boost::json;

namespace {

constexpr Duration look_interval = 100ms;  // how often a silent event stream looks whether its client is still there

/// What a child answers and a router passes on, with the model's name in the body, or in the query of a GET.
constexpr std::string_view passed_on_get[] = {"/slots", "/metrics", "/lora-adapters"};
constexpr std::string_view passed_on_post[] = {"/chat/completions", "/v1/chat/completions", "/completion",
                                               "/completions",      "/v1/completions",      "/embedding",
                                               "/embeddings",       "/v1/embeddings",       "/tokenize"};

template <typename List>
bool contains(const List& list, std::string_view path) {
  return std::find(std::begin(list), std::end(list), path) != std::end(list);
}

std::string text_in(const json::value& body, const char* key) {
  const auto* object = body.if_object();
  const auto* value = object ? object->if_contains(key) : nullptr;
  return value && value->is_string() ? std::string(value->get_string()) : std::string();
}

class LlamaRouter {
 public:
  LlamaRouter(Loop& loop, LlamaSettings settings)
      : loop_(loop), settings_(std::move(settings)), fleet_(loop, settings_) {}
  Task<void> live();

 private:
  Task<ServerReply> handle(ServerRequest request);
  Task<ServerReply> route(ServerRequest request);
  Task<ServerReply> load(ServerRequest request);
  Task<ServerReply> pass_on(ServerRequest request, std::string name);
  ServerReply unload(const ServerRequest& request);
  ServerReply list() const;
  ServerReply props() const;
  ServerReply events();
  Task<void> tell_events(std::shared_ptr<LlamaListener> listener, ServerReply::Write write);
  Task<void> end();

  Loop& loop_;
  LlamaSettings settings_;
  LlamaFleet fleet_;
  std::vector<std::string> keys_;
  std::unique_ptr<HttpServer> server_;
  std::int64_t created_ = 0;
  bool ending_ = false;
};

Task<void> LlamaRouter::live() {
  log_beginning(settings_);
  auto keys = llama_keys(settings_);
  auto listed = fleet_.reload();
  if (!keys || !listed) {
    const auto& error = keys ? listed.error() : keys.error();
    llama_log('E', fmt::format("srv  llama_server: failed to initialize router models: {}", error.message));
    leave(1);
  }
  keys_ = std::move(*keys);
  created_ = std::chrono::duration_cast<std::chrono::seconds>(wall_now().time_since_epoch()).count();
  log_security(settings_);
  llama_log('W', "srv  llama_server: security: router mode enabled - do not expose to untrusted environments");
  llama_log('I', "srv  llama_server: starting server in router mode. models will be automatically loaded on-demand");
  const auto host = settings_.text("host", "127.0.0.1");
  const auto port = settings_.number("port").value_or(9931);
  auto server = HttpServer::listen(loop_, host, static_cast<std::uint16_t>(port),
                                   [this](ServerRequest request) { return handle(std::move(request)); });
  if (!server) {
    llama_log('E',
              fmt::format("srv         start: couldn't bind HTTP server socket, hostname: {}, port: {}", host, port));
    llama_log('E', "srv  llama_server: exiting due to HTTP server error");
    leave(1);
  }
  server_ = std::move(*server);
  hear_signals(loop_, [this] { loop_.spawn(end()); });
  fleet_.load_on_startup();
  llama_log('I', fmt::format("srv  llama_server: listening on http://{}:{}", host, port));
  co_return;
}

Task<void> LlamaRouter::end() {
  ending_ = true;
  server_->stop_listening();
  co_await fleet_.quiet();
  llama_log('I', "srv    operator(): operator(): cleaning up before exit...");
  co_await fleet_.unload_all();
  leave(0);
}

Task<ServerReply> LlamaRouter::handle(ServerRequest request) {
  auto refusal = llama_gate(keys_, request);
  if (refusal) co_return with_llama_headers(std::move(*refusal));
  auto routing = route(std::move(request));
  auto reply = co_await std::move(routing);
  co_return with_llama_headers(std::move(reply));
}

Task<ServerReply> LlamaRouter::route(ServerRequest request) {
  const auto method = llama_method(request);
  const auto& path = request.path;
  const auto named = request.query.find("model");
  const std::string name = named == request.query.end() ? "" : named->second;
  if (method == "GET") {
    if (is_health(request)) co_return llama_reply(json::object{{"status", "ok"}});
    if (path == "/models" || path == "/v1/models") {
      if (request.query.contains("reload")) {
        const auto reloaded = fleet_.reload();
        if (!reloaded) co_return llama_error(500, reloaded.error().message, "server_error");
      }
      co_return list();
    }
    if (path == "/models/sse") co_return events();
    if (path == "/props" && name.empty()) co_return props();
    if (path != "/props" && !contains(passed_on_get, path)) co_return llama_not_found();
    auto passing = pass_on(std::move(request), name);
    auto reply = co_await std::move(passing);
    co_return reply;
  }
  const bool to_child = contains(passed_on_post, path);
  if (method != "POST" || (!to_child && path != "/models/load" && path != "/models/unload"))
    co_return llama_not_found();
  boost::system::error_code problem;
  const auto body = json::parse(request.body, problem);
  if (problem) co_return llama_bad_request(fmt::format("[json.exception.parse_error.101] {}", problem.message()));
  if (path == "/models/unload") co_return unload(request);
  Task<ServerReply> replying;
  if (path == "/models/load")
    replying = load(std::move(request));
  else
    replying = pass_on(std::move(request), text_in(body, "model"));
  auto reply = co_await std::move(replying);
  co_return reply;
}

// ---- loading and unloading ----

Task<ServerReply> LlamaRouter::load(ServerRequest request) {
  const auto model = fleet_.find(text_in(json::parse(request.body), "model"));
  if (!model) co_return llama_not_found();
  auto loading = fleet_.load(model, LlamaFleet::Patience::refuse);
  const auto loaded = co_await std::move(loading);
  if (loaded) co_return llama_reply(json::object{{"success", true}});
  if (loaded.error().code == ErrorCode::refused) co_return llama_bad_request(loaded.error().message);
  co_return llama_error(500, loaded.error().message, "server_error");
}

ServerReply LlamaRouter::unload(const ServerRequest& request) {
  const auto model = fleet_.find(text_in(json::parse(request.body), "model"));
  if (!model) return llama_bad_request("model is not found");
  const auto unloaded = fleet_.unload(model);
  if (!unloaded) return llama_bad_request(unloaded.error().message);
  return llama_reply(json::object{{"success", true}});
}

Task<ServerReply> LlamaRouter::pass_on(ServerRequest request, std::string name) {
  if (name.empty()) co_return llama_bad_request("model name is missing from the request");
  const auto model = fleet_.find(name);
  if (!model) co_return llama_bad_request(fmt::format("model '{}' not found", name));
  const auto said = request.query.find("autoload");
  const bool autoloads = said == request.query.end() ? settings_.flag("models-autoload", true) : says_yes(said->second);
  const auto ticket = fleet_.use(model);
  if (model->state == LlamaState::unloaded) {
    if (!autoloads) co_return llama_bad_request("model is not loaded");
    auto loading = fleet_.load(model, LlamaFleet::Patience::wait);
    const auto started = co_await std::move(loading);
    if (!started && started.error().code != ErrorCode::refused)
      co_return llama_error(500, started.error().message, "server_error");
  }
  if (autoloads) {
    auto waiting = fleet_.loaded(model);
    const auto loaded = co_await std::move(waiting);
    if (!loaded) co_return llama_error(500, loaded.error().message, "server_error");
  }
  llama_log('I',
            fmt::format("srv  proxy_reques: proxying request to model {} on port {}", model->listed.name, model->port));
  ProxyOrder order;
  order.port = model->port;
  order.request = std::move(request);
  order.ticket = ticket;
  auto passing = proxy_to_child(std::move(order));
  auto reply = co_await std::move(passing);
  co_return reply;
}

// ---- what it says of itself ----

ServerReply LlamaRouter::list() const {
  json::array data;
  for (const auto& [name, model] : fleet_.models()) {
    json::array arguments;
    for (const auto& word : fleet_.words(*model))
      arguments.emplace_back(word);
    json::object status{
        {"value", to_string(model->state)}, {"args", std::move(arguments)}, {"preset", model->listed.preset_text}};
    if (model->failed) {
      status["exit_code"] = model->exit_code;
      status["failed"] = true;
    }
    json::array aliases;
    for (const auto& alias : model->listed.aliases)
      aliases.emplace_back(alias);
    json::object entry{{"id", name},
                       {"aliases", std::move(aliases)},
                       {"tags", json::array()},
                       {"object", "model"},
                       {"owned_by", "llamacpp"},
                       {"created", created_},
                       {"status", std::move(status)},
                       {"architecture", json::object{{"input_modalities", json::array{"text"}},
                                                     {"output_modalities", json::array{"text"}}}},
                       {"source", model->listed.from_preset ? "preset" : "models_dir"},
                       {"can_remove", false}};
    if (model->listed.context > 0) entry["context_length"] = model->listed.context;
    const auto* info = model->info.if_object();
    if (const auto* meta = info ? info->if_contains("meta") : nullptr) entry["meta"] = *meta;
    data.emplace_back(std::move(entry));
  }
  return llama_reply(json::object{{"data", std::move(data)}, {"object", "list"}});
}

ServerReply LlamaRouter::props() const {
  return llama_reply(json::object{{"role", "router"},
                                  {"max_instances", settings_.number("models-max").value_or(4)},
                                  {"models_autoload", settings_.flag("models-autoload", true)},
                                  {"model_alias", "llama-server"},
                                  {"model_path", "none"},
                                  {"default_generation_settings", json::object{{"params", nullptr}, {"n_ctx", 0}}},
                                  {"ui_settings", json::object()},
                                  {"build_info", llama_build},
                                  {"cors_proxy_enabled", false}});
}

ServerReply LlamaRouter::events() {
  auto reply = llama_event_stream();
  reply.stream = [this, listener = fleet_.listen()](ServerReply::Write write) {
    return tell_events(listener, std::move(write));
  };
  return reply;
}

Task<void> LlamaRouter::tell_events(std::shared_ptr<LlamaListener> listener, ServerReply::Write write) {
  while (!ending_) {
    const auto deadline = now() + look_interval;
    (void)co_await listener->news.wait(deadline);
    listener->news.reset();
    std::string text;
    for (; !listener->events.empty(); listener->events.pop_front())
      text += listener->events.front();
    auto writing = write(std::move(text));
    const bool still_there = co_await std::move(writing);
    if (!still_there) co_return;
  }
}

}  // namespace

int run_llama_router(const LlamaSettings& settings) {
  Loop loop;
  LlamaRouter router(loop, settings);
  loop.spawn(router.live());
  loop.run();
  return 1;
}

}  // namespace gpumod::sim
