#include "faces/mcp/session.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"

namespace gpumod::mcp {

namespace json = boost::json;

namespace {

class Exchange;

/// More than any client needs beside each other; a runaway one is told so.
constexpr std::size_t most_under_way = 32;
/// Each is looked at every few seconds.
constexpr std::size_t most_followed = 32;
/// How long lists may be kept: what they hold changes with a setting of the person.
constexpr int list_ttl_ms = 60'000;

std::string key_of(const json::value& id) {
  return json::serialize(id);
}

}  // namespace

struct Session::State : std::enable_shared_from_this<Session::State> {
  explicit State(Offer& offered) : offer(offered) {}

  struct Listener {
    json::value id;
    std::set<std::string> uris;
    Send send;
  };

  Offer& offer;
  std::string legacy;  ///< the revision agreed on by `initialize`; "" before
  Caller legacy_caller;
  std::map<std::string, std::shared_ptr<Exchange>> under_way;
  std::map<std::string, Listener> listeners;  ///< modern, by the id of the request that opened them
  std::set<std::string> subscribed;           ///< legacy
  Send subscriber;
  std::map<std::string, std::pair<std::shared_ptr<Exchange>, std::string>> questions;  ///< legacy: id → call, key
  std::uint64_t asked = 0;

  void on_request(Message message, const Send& send);
  void on_notification(const Message& message);
  void on_response(const Message& message);
  void take_back(const std::string& key, bool tell_worker);
};

namespace {

Caller caller_from(const json::object* info, const json::object* capabilities, std::string protocol) {
  Caller caller;
  const auto brief = [](std::string words) { return printable(words.substr(0, 100)); };
  if (info) caller.name = brief(text_in(*info, "name")), caller.version = brief(text_in(*info, "version"));
  if (caller.name.empty()) caller.name = "unknown";
  caller.protocol = std::move(protocol);
  // {} stands for a form, for it was the only way at first.
  if (capabilities)
    if (const auto* ways = object_in(*capabilities, "elicitation"))
      caller.elicits = ways->empty() || ways->contains("form");
  return caller;
}

class Exchange : public Call, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(std::weak_ptr<Session::State> session, Message message, Caller caller, bool modern, Session::Send send)
      : session_(std::move(session)),
        id_(std::move(message.id)),
        method_(std::move(message.method)),
        modern_(modern),
        send_(std::move(send)) {
    caller_ = std::move(caller);
    params_ = std::move(message.params);
    if (const auto* meta = object_in(params_, "_meta"))
      if (const auto* token = meta->if_contains("progressToken"); token && (token->is_string() || token->is_number()))
        token_ = *token;
    wants_progress_ = !token_.is_null();
    if (const auto* given = object_in(params_, "arguments")) arguments_ = *given;
    subject_ = text_in(params_, method_ == "resources/read" ? "uri" : "name");
    if (!modern_) return;
    if (const auto* given = object_in(params_, "inputResponses")) inputs_ = *given;
    state_ = text_in(params_, "requestState");
  }

  const std::string& method() const { return method_; }
  bool modern() const { return modern_; }

  void finish(json::object result) override {
    if (ended_) return;
    dress(result, "complete");
    if (method_ == "resources/read") cacheable(result, 0);
    end(result_message(id_, std::move(result)));
  }

  void finish_cacheable(json::object result) {
    cacheable(result, list_ttl_ms);
    finish(std::move(result));
  }

  void refuse(Fault fault) override {
    if (ended_) return;
    if (modern_ && fault.code == Code::resource_not_found) fault.code = Code::invalid_params;
    end(error_message(id_, fault));
  }

  void ask(json::object requests, std::string state) override {
    const auto session = session_.lock();
    if (ended_ || !session) return;
    if (modern_) {
      json::object result{{"inputRequests", std::move(requests)}};
      if (!state.empty()) result["requestState"] = std::move(state);
      dress(result, "input_required");
      end(result_message(id_, std::move(result)));
      return;
    }
    state_ = std::move(state);
    inputs_.clear();
    unanswered_ = requests.size();
    for (const auto& [key, value] : requests) {
      const auto& request = value.as_object();
      auto params = object_in(request, "params") ? *object_in(request, "params") : json::object();
      if (caller_.protocol < "2025-11-25") params.erase("mode");
      const auto question = fmt::format("gpumod-{}", ++session->asked);
      session->questions[question] = {shared_from_this(), std::string(key)};
      send_({{"jsonrpc", "2.0"},
             {"id", question},
             {"method", text_in(request, "method")},
             {"params", std::move(params)}});
    }
  }

  /// Legacy: one of the questions was answered.
  void answered(const std::string& key, const json::object& outcome) {
    const auto* result = object_in(outcome, "result");
    inputs_[key] = result ? *result : json::object{{"action", "cancel"}};
    if (--unanswered_ > 0 || ended_) return;
    if (const auto session = session_.lock()) {
      if (method_ == "tools/call") session->offer.call_tool(shared_from_this());
      if (method_ == "resources/read") session->offer.read_resource(shared_from_this());
    }
  }

  void progress(double done, double total, const std::string& message) override {
    if (ended_ || !wants_progress_ || done <= last_progress_) return;
    last_progress_ = done;
    json::object params{{"progressToken", token_}, {"progress", done}, {"total", total}};
    if (caller_.protocol >= "2025-03-26") params["message"] = message;
    send_(notification("notifications/progress", std::move(params)));
  }

  void notify(std::string_view method, json::object params) override {
    if (!ended_) send_(notification(method, std::move(params)));
  }

  void take_back(bool tell_worker) {
    if (std::exchange(ended_, true)) return;
    const auto undo = std::exchange(on_cancel, nullptr);
    if (undo && tell_worker) undo();
  }

 private:
  void dress(json::object& result, std::string_view type) {
    if (!modern_) return;
    result["resultType"] = type;
    if (const auto session = session_.lock()) {
      auto& meta = result["_meta"];
      if (!meta.is_object()) meta = json::object();
      meta.get_object().emplace(meta_server, session->offer.server_info());
    }
  }

  void cacheable(json::object& result, int ttl_ms) {
    if (!modern_) return;
    result.emplace("ttlMs", ttl_ms);
    result.emplace("cacheScope", "private");
  }

  void end(const json::object& message) {
    const auto self = shared_from_this();  // the map below may hold the last of it
    ended_ = true;
    on_cancel = nullptr;
    send_(message);
    if (const auto session = session_.lock()) session->under_way.erase(key_of(id_));
  }

  std::weak_ptr<Session::State> session_;
  json::value id_;
  std::string method_;
  bool modern_;
  Session::Send send_;
  json::value token_;
  double last_progress_ = -1;
  std::size_t unanswered_ = 0;
  bool ended_ = false;
};
using ExchangeRef = std::shared_ptr<Exchange>;

void invalid(const ExchangeRef& exchange, std::string words) {
  exchange->refuse(Fault{Code::invalid_params, std::move(words), {}, {}});
}

void list(const ExchangeRef& exchange, const char* key, json::array items) {
  // Everything is in one page, so there is no cursor that we gave out.
  if (exchange->params().contains("cursor")) return invalid(exchange, "this cursor is not one of ours");
  exchange->finish_cacheable(json::object{{key, std::move(items)}});
}

void discover(Offer& offer, const ExchangeRef& exchange) {
  exchange->finish_cacheable({{"supportedVersions", json::array{modern_version}},
                              {"capabilities", offer.capabilities()},
                              {"instructions", offer.instructions()}});
}

/// The methods of both eras. False: it is none of them.
bool serve_common(Offer& offer, const ExchangeRef& exchange) {
  const auto& method = exchange->method();
  if (method == "tools/list") {
    list(exchange, "tools", offer.tools());
  } else if (method == "resources/list") {
    list(exchange, "resources", offer.resources());
  } else if (method == "resources/templates/list") {
    list(exchange, "resourceTemplates", offer.resource_templates());
  } else if (method == "resources/read") {
    if (exchange->subject().empty())
      invalid(exchange, "resources/read needs a \"uri\"");
    else
      offer.read_resource(exchange);
  } else if (method == "tools/call") {
    const auto* arguments = exchange->params().if_contains("arguments");
    if (exchange->subject().empty())
      invalid(exchange, "tools/call needs a \"name\"");
    else if (arguments && !arguments->is_object())
      invalid(exchange, "\"arguments\" has to be an object");
    else
      offer.call_tool(exchange);
  } else {
    return offer.other(method, exchange);
  }
  return true;
}

void initialize(Session::State& session, const ExchangeRef& exchange) {
  const auto wanted = text_in(exchange->params(), "protocolVersion");
  if (wanted.empty()) return invalid(exchange, "initialize needs a \"protocolVersion\"");
  session.legacy = is_legacy_version(wanted) ? wanted : legacy_versions().back();
  session.legacy_caller = caller_from(object_in(exchange->params(), "clientInfo"),
                                      object_in(exchange->params(), "capabilities"), session.legacy);
  exchange->finish({{"protocolVersion", session.legacy},
                    {"capabilities", session.offer.capabilities()},
                    {"serverInfo", session.offer.server_info()},
                    {"instructions", session.offer.instructions()}});
}

/// False: it is no method of the legacy era alone.
bool serve_legacy(Session::State& session, const ExchangeRef& exchange, const Session::Send& send) {
  const auto& method = exchange->method();
  if (method == "initialize") {
    initialize(session, exchange);
  } else if (method == "ping") {
    exchange->finish({});
  } else if (method == "resources/subscribe" || method == "resources/unsubscribe") {
    const auto uri = text_in(exchange->params(), "uri");
    if (uri.empty()) {
      invalid(exchange, method + " needs a \"uri\"");
    } else if (method == "resources/unsubscribe") {
      session.subscribed.erase(uri);
      exchange->finish({});
      session.offer.subscriptions_changed();
    } else if (!session.offer.has_resource(uri)) {
      exchange->refuse(Fault{Code::resource_not_found, "there is no such resource", json::object{{"uri", uri}}, {}});
    } else if (session.subscribed.size() >= most_followed && !session.subscribed.contains(uri)) {
      invalid(exchange, fmt::format("{} resources are followed already, and more cannot be", most_followed));
    } else {
      session.subscribed.insert(uri);
      session.subscriber = send;
      exchange->finish({});
      session.offer.subscriptions_changed();
    }
  } else {
    return false;
  }
  return true;
}

void listen(Session::State& session, const Message& message, const Session::Send& send) {
  const auto* wanted = object_in(message.params, "notifications");
  if (!wanted) {
    send(
        error_message(message.id, Fault{Code::invalid_params, "subscriptions/listen needs \"notifications\"", {}, {}}));
    return;
  }
  Session::State::Listener listener{message.id, {}, send};
  json::array agreed;
  if (const auto* uris = wanted->if_contains("resourceSubscriptions"); uris && uris->is_array())
    for (const auto& uri : uris->get_array())
      if (uri.is_string() && listener.uris.size() < most_followed &&
          session.offer.has_resource(std::string(uri.get_string())) &&
          listener.uris.insert(std::string(uri.get_string())).second)
        agreed.push_back(uri);
  json::object honoured;
  if (!agreed.empty()) honoured["resourceSubscriptions"] = std::move(agreed);
  send(notification("notifications/subscriptions/acknowledged",
                    {{"_meta", json::object{{meta_subscription, message.id}}}, {"notifications", honoured}}));
  session.listeners[key_of(message.id)] = std::move(listener);
  session.offer.subscriptions_changed();
}

}  // namespace

const std::vector<std::string>& legacy_versions() {
  static const std::vector<std::string> versions{"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"};
  return versions;
}

bool is_legacy_version(std::string_view version) {
  const auto& known = legacy_versions();
  return std::find(known.begin(), known.end(), version) != known.end();
}

bool is_modern(const Message& message) {
  const auto* meta = object_in(message.params, "_meta");
  return meta && (meta->contains(meta_version) || meta->contains(meta_capabilities));
}

std::optional<Fault> fault_of_meta(const Message& message) {
  const auto* meta = object_in(message.params, "_meta");
  const auto* version = meta ? meta->if_contains(meta_version) : nullptr;
  if (!version || !version->is_string())
    return Fault{Code::invalid_params, fmt::format("_meta has to say \"{}\", as text", meta_version), {}, message.id};
  if (version->get_string() != modern_version)
    return Fault{Code::unsupported_version,
                 fmt::format("revision {} is not spoken here", printable(version->get_string())),
                 json::object{{"supported", json::array{modern_version}}, {"requested", *version}}, message.id};
  if (!object_in(*meta, meta_capabilities))
    return Fault{
        Code::invalid_params, fmt::format("_meta has to say \"{}\", as an object", meta_capabilities), {}, message.id};
  return std::nullopt;
}

void Session::State::on_request(Message message, const Send& send) {
  const auto key = key_of(message.id);
  const auto refuse = [&](Fault fault) { send(error_message(message.id, fault)); };
  if (under_way.contains(key) || listeners.contains(key))
    return refuse({Code::invalid_request, "a request with this id is under way already", {}, {}});
  if (under_way.size() + listeners.size() >= most_under_way)
    return refuse({Code::overloaded, "too many requests are under way: wait for some of them", {}, {}});

  const bool modern = is_modern(message);
  Caller caller = legacy_caller;
  if (modern) {
    if (const auto fault = fault_of_meta(message)) return refuse(*fault);
    const auto& meta = *object_in(message.params, "_meta");
    caller = caller_from(object_in(meta, meta_client), object_in(meta, meta_capabilities), std::string(modern_version));
    if (message.method == "subscriptions/listen") return listen(*this, message, send);
  } else if (legacy.empty() && message.method != "initialize" && message.method != "ping") {
    return refuse(
        {Code::invalid_params,
         fmt::format("say \"{}\" and \"{}\" in _meta, or begin with initialize", meta_version, meta_capabilities),
         {},
         {}});
  }
  const auto method = message.method;
  const auto exchange =
      std::make_shared<Exchange>(weak_from_this(), std::move(message), std::move(caller), modern, send);
  under_way[key] = exchange;
  if (modern && method == "server/discover") return discover(offer, exchange);
  if (!modern && serve_legacy(*this, exchange, send)) return;
  if (serve_common(offer, exchange)) return;
  exchange->refuse({Code::method_not_found, fmt::format("there is no method '{}'", printable(method)), {}, {}});
}

void Session::State::on_notification(const Message& message) {
  if (message.method != "notifications/cancelled") return;
  if (const auto* id = message.params.if_contains("requestId")) take_back(key_of(*id), true);
}

void Session::State::on_response(const Message& message) {
  if (!message.id.is_string()) return;
  const auto found = questions.find(std::string(message.id.get_string()));
  if (found == questions.end()) return;  // asked and taken back, or never asked
  const auto [exchange, key] = found->second;
  questions.erase(found);
  exchange->answered(key, message.outcome);
}

void Session::State::take_back(const std::string& key, bool tell_worker) {
  if (listeners.erase(key) > 0) return offer.subscriptions_changed();
  const auto found = under_way.find(key);
  if (found == under_way.end()) return;  // it was done already
  const auto exchange = found->second;
  under_way.erase(found);
  std::erase_if(questions, [&](const auto& question) { return question.second.first == exchange; });
  exchange->take_back(tell_worker);
}

Session::Session(Offer& offer) : state_(std::make_shared<State>(offer)) {}

Session::~Session() {
  close(false);
}

void Session::receive(std::string_view bytes, const Send& send) {
  auto message = read_message(bytes);
  if (!message)
    send(error_message(message.error().about, message.error()));
  else
    receive(std::move(*message), send);
}

void Session::receive(Message message, const Send& send) {
  const auto state = state_;
  if (message.kind == Message::Kind::request)
    state->on_request(std::move(message), send);
  else if (message.kind == Message::Kind::notification)
    state->on_notification(message);
  else
    state->on_response(message);
}

void Session::changed(const std::string& uri) {
  for (const auto& [key, listener] : state_->listeners)
    if (listener.uris.contains(uri))
      listener.send(notification("notifications/resources/updated",
                                 {{"_meta", json::object{{meta_subscription, listener.id}}}, {"uri", uri}}));
  if (state_->subscribed.contains(uri))
    state_->subscriber(notification("notifications/resources/updated", {{"uri", uri}}));
}

std::set<std::string> Session::followed() const {
  auto uris = state_->subscribed;
  for (const auto& [key, listener] : state_->listeners)
    uris.insert(listener.uris.begin(), listener.uris.end());
  return uris;
}

std::size_t Session::under_way() const {
  return state_->under_way.size();
}

void Session::close(bool cancel) {
  const auto state = state_;
  std::vector<std::string> keys;
  for (const auto& [key, exchange] : state->under_way)
    keys.push_back(key);
  for (const auto& key : keys)
    state->take_back(key, cancel);
  const bool followed_some = !followed().empty();
  state->listeners.clear();
  state->subscribed.clear();
  if (followed_some) state->offer.subscriptions_changed();
}

}  // namespace gpumod::mcp
