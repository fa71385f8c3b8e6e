#include "faces/mcp/http_door.h"

#include <algorithm>
#include <array>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "faces/mcp/scrub.h"

namespace gpumod::mcp {

namespace json = boost::json;

namespace {

constexpr std::size_t most_sessions = 64;

std::string header(const HttpRequest& request, const std::string& name) {
  const auto found = request.headers.find(name);
  return found == request.headers.end() ? std::string() : found->second;
}

/// "localhost", "127.0.0.1:8080", "[::1]:80"
bool is_this_machine(std::string_view authority) {
  for (const std::string_view name : {"localhost", "127.0.0.1", "[::1]"}) {
    if (!authority.starts_with(name)) continue;
    const auto rest = authority.substr(name.size());
    if (rest.empty()) return true;
    if (rest.front() == ':' && rest.find_first_not_of("0123456789", 1) == std::string_view::npos) return true;
  }
  return false;
}

bool is_own_origin(std::string_view origin) {
  for (const std::string_view scheme : {"http://", "https://"})
    if (origin.starts_with(scheme)) return is_this_machine(origin.substr(scheme.size()));
  return false;
}

std::optional<std::string> from_base64(std::string_view text) {
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return std::nullopt;
  const auto padding = text.ends_with("==") ? 2U : text.ends_with("=") ? 1U : 0U;
  text.remove_suffix(padding);
  std::string out;
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    const auto digit = letters.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    out += static_cast<char>(bits >> held & 0xFF);
  }
  return out;
}

/// What a header says that may be written as =?base64?…?=. Nothing: it cannot be read.
std::optional<std::string> decoded(const std::string& value) {
  constexpr std::string_view begin = "=?base64?", end = "?=";
  if (value.size() < begin.size() + end.size() || !value.starts_with(begin) || !value.ends_with(end)) return value;
  return from_base64(std::string_view(value).substr(begin.size(), value.size() - begin.size() - end.size()));
}

Fault mismatch(std::string words, const Message& message) {
  return Fault{Code::header_mismatch, std::move(words), {}, message.id};
}

std::optional<Fault> fault_of_headers(const HttpRequest& request, const Message& message) {
  const auto& meta = *object_in(message.params, "_meta");
  const auto said = header(request, "mcp-protocol-version");
  if (said.empty()) return mismatch("the header MCP-Protocol-Version is missing", message);
  if (said != text_in(meta, meta_version)) return mismatch("MCP-Protocol-Version and the body differ", message);
  if (header(request, "mcp-method") != message.method) return mismatch("Mcp-Method and the body differ", message);
  const bool names = message.method == "tools/call" || message.method == "prompts/get";
  if (!names && message.method != "resources/read") return std::nullopt;
  const auto name = decoded(header(request, "mcp-name"));
  if (!name || *name != text_in(message.params, names ? "name" : "uri"))
    return mismatch("Mcp-Name and the body differ", message);
  return std::nullopt;
}

void refuse(const HttpReplyRef& reply, int status, const Fault& fault,
            std::map<std::string, std::string> headers = {}) {
  headers["content-type"] = "application/json";
  reply->whole(status, std::move(headers), json::serialize(error_message(fault.about, fault)));
}

bool is_last(const json::object& message) {
  return message.contains("result") || message.contains("error");
}

/// One JSON object where nothing comes before the answer, else a stream.
class Way {
 public:
  explicit Way(HttpReplyRef reply) : reply_(std::move(reply)) {}
  std::map<std::string, std::string> headers;

  void send(const json::object& message) {
    if (ended_) return;
    const bool last = is_last(message);
    if (last && !streams_) {
      headers["content-type"] = "application/json";
      reply_->whole(status_of(message), headers, json::serialize(message));
    } else {
      streams_ = true;
      reply_->event(message);
      if (last) reply_->end();
    }
    ended_ = last;
  }

 private:
  static int status_of(const json::object& message) {
    const auto* error = object_in(message, "error");
    if (!error) return 200;
    const auto code = error->at("code").as_int64();
    if (code == static_cast<int>(Code::method_not_found)) return 404;
    return code == static_cast<int>(Code::missing_capability) ? 400 : 200;
  }

  HttpReplyRef reply_;
  bool streams_ = false, ended_ = false;
};

}  // namespace

HttpDoor::HttpDoor(Offer& offer) : offer_(offer) {}

// A session that ends tells the offer, and that may ask us who follows what: so each ends before it is taken out.
HttpDoor::~HttpDoor() {
  for (const auto& session : lone_)
    session->close(false);
  for (const auto& [id, session] : sessions_)
    session->close(false);
}

std::function<void()> HttpDoor::handle(HttpRequest request, HttpReplyRef reply) {
  const auto no = [&](int status, Code code, std::string words, std::map<std::string, std::string> headers = {}) {
    refuse(reply, status, Fault{code, std::move(words), {}, {}}, std::move(headers));
    return std::function<void()>();
  };
  if (const auto origin = header(request, "origin"); !origin.empty() && !is_own_origin(origin))
    return no(403, Code::invalid_request, "this origin may not ask here");
  if (const auto host = header(request, "host"); !host.empty() && !is_this_machine(host))
    return no(403, Code::invalid_request, "this host is not this machine");
  if (request.method == "DELETE") {
    const auto named = header(request, "mcp-session-id");
    const auto open =
        std::find_if(sessions_.begin(), sessions_.end(), [&](const auto& each) { return each.first == named; });
    if (open != sessions_.end()) {
      open->second->close(false);
      sessions_.erase(open);
      reply->whole(204, {}, "");
      return {};
    }
  }
  if (request.method != "POST") return no(405, Code::invalid_request, "messages come by POST", {{"allow", "POST"}});
  if (!header(request, "content-type").starts_with("application/json"))
    return no(415, Code::invalid_request, "a message is application/json");
  auto message = read_message(request.body);
  if (!message) {
    refuse(reply, 400, message.error());
    return {};
  }
  forget_ended();
  if (message->kind == Message::Kind::request &&
      (is_modern(*message) || header(request, "mcp-protocol-version") == modern_version))
    return handle_modern(request, std::move(*message), std::move(reply));
  handle_legacy(request, std::move(*message), std::move(reply));
  return {};
}

std::function<void()> HttpDoor::handle_modern(const HttpRequest& request, Message message, HttpReplyRef reply) {
  auto fault = fault_of_meta(message);
  // Where both say another revision, that is what is wrong; where they differ, nobody knows which is meant.
  if (!fault || fault->code != Code::invalid_params)
    if (auto differs = fault_of_headers(request, message)) fault = std::move(differs);
  if (fault) {
    refuse(reply, 400, *fault);
    return {};
  }
  const auto session = std::make_shared<Session>(offer_);
  lone_.push_back(session);
  const auto way = std::make_shared<Way>(std::move(reply));
  session->receive(std::move(message), [way](const json::object& out) { way->send(out); });
  return [left = std::weak_ptr<Session>(session)] {
    if (const auto still = left.lock()) still->close(true);
  };
}

void HttpDoor::handle_legacy(const HttpRequest& request, Message message, HttpReplyRef reply) {
  const bool opens = message.kind == Message::Kind::request && message.method == "initialize";
  const auto way = std::make_shared<Way>(reply);
  SessionRef session;
  auto id = header(request, "mcp-session-id");
  if (opens) {
    session = open_session(id);
    if (!session) return refuse(reply, 503, Fault{Code::overloaded, "too many sessions are open", {}, message.id});
    way->headers["mcp-session-id"] = id;
  } else {
    const auto version = header(request, "mcp-protocol-version");
    if (!version.empty() && !is_legacy_version(version))
      return refuse(
          reply, 400,
          Fault{Code::unsupported_version, "this revision is not spoken here",
                json::object{{"supported", json::array{modern_version}}, {"requested", version}}, message.id});
    if (id.empty())
      return refuse(reply, 400,
                    Fault{Code::invalid_request, "begin with initialize, and name the session", {}, message.id});
    for (const auto& [name, open] : sessions_)
      if (name == id) session = open;
    if (!session)
      return refuse(reply, 404, Fault{Code::invalid_request, "there is no such session: begin anew", {}, message.id});
  }
  const bool asks = message.kind == Message::Kind::request;
  session->receive(std::move(message), [way](const json::object& out) { way->send(out); });
  if (!asks) reply->whole(202, {}, "");
}

HttpDoor::SessionRef HttpDoor::open_session(std::string& id) {
  if (sessions_.size() >= most_sessions) {
    const auto idle = std::find_if(sessions_.begin(), sessions_.end(),
                                   [](const auto& each) { return each.second->under_way() == 0; });
    if (idle == sessions_.end()) return nullptr;
    idle->second->close(false);
    sessions_.erase(idle);
  }
  id = new_mark() + new_mark() + new_mark();
  sessions_.emplace_back(id, std::make_shared<Session>(offer_));
  return sessions_.back().second;
}

void HttpDoor::forget_ended() {
  std::erase_if(lone_,
                [](const SessionRef& session) { return session->under_way() == 0 && session->followed().empty(); });
}

void HttpDoor::changed(const std::string& uri) {
  for (const auto& session : lone_)
    session->changed(uri);
  for (const auto& [id, session] : sessions_)
    session->changed(uri);
}

std::set<std::string> HttpDoor::followed() const {
  std::set<std::string> uris;
  const auto add = [&](const Session& session) { uris.merge(session.followed()); };
  for (const auto& session : lone_)
    add(*session);
  for (const auto& [id, session] : sessions_)
    add(*session);
  return uris;
}

}  // namespace gpumod::mcp
