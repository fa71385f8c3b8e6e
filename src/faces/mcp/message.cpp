#include "faces/mcp/message.h"

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"

namespace gpumod::mcp {

namespace json = boost::json;

namespace {

tl::unexpected<Fault> fault(Code code, std::string message, json::value about = {}) {
  return tl::unexpected<Fault>(Fault{code, std::move(message), {}, std::move(about)});
}

bool can_be_id(const json::value& value) {
  return value.is_string() || value.is_number();
}

}  // namespace

const json::object* object_in(const json::object& object, std::string_view key) {
  const auto* found = object.if_contains(key);
  return found ? found->if_object() : nullptr;
}

std::string text_in(const json::object& object, std::string_view key) {
  const auto* found = object.if_contains(key);
  return found && found->is_string() ? std::string(found->get_string()) : std::string();
}

tl::expected<Message, Fault> read_message(std::string_view bytes) {
  if (bytes.size() > message_limit)
    return fault(Code::invalid_request, fmt::format("a message may have {} bytes at most", message_limit));
  std::error_code problem;
  auto value = json::parse(bytes, problem);  // UTF-8 is checked, depth is limited to 32
  if (problem)
    return fault(Code::parse_error, fmt::format("this is not JSON, or nested too deep: {}", problem.message()));
  if (value.is_array()) return fault(Code::invalid_request, "batches are not taken: send one message at a time");
  auto* object = value.if_object();
  if (!object) return fault(Code::invalid_request, "a message is a JSON object");

  Message message;
  const auto* id = object->if_contains("id");
  if (id && can_be_id(*id)) message.id = *id;
  if (text_in(*object, "jsonrpc") != "2.0")
    return fault(Code::invalid_request, "\"jsonrpc\" has to be \"2.0\"", message.id);
  if (id && !can_be_id(*id)) return fault(Code::invalid_request, "an \"id\" is text or a number");

  if (!object->contains("method")) {
    const bool answers = id && (object->contains("result") || object->contains("error"));
    if (!answers) return fault(Code::invalid_request, "there is neither a \"method\" nor a \"result\"", message.id);
    message.kind = Message::Kind::response;
    message.outcome = std::move(*object);
    return message;
  }
  message.method = text_in(*object, "method");
  if (message.method.empty()) return fault(Code::invalid_request, "a \"method\" is text", message.id);
  if (auto* params = object->if_contains("params")) {
    if (!params->is_object()) return fault(Code::invalid_params, "\"params\" has to be an object", message.id);
    message.params = std::move(params->get_object());
  }
  message.kind = id ? Message::Kind::request : Message::Kind::notification;
  return message;
}

json::object result_message(const json::value& id, json::object result) {
  return {{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(result)}};
}

json::object error_message(const json::value& id, const Fault& fault) {
  json::object error{{"code", static_cast<int>(fault.code)}, {"message", fault.message}};
  if (!fault.data.is_null()) error["data"] = fault.data;
  json::object message{{"jsonrpc", "2.0"}};
  if (!id.is_null()) message["id"] = id;
  message["error"] = std::move(error);
  return message;
}

json::object notification(std::string_view method, json::object params) {
  return {{"jsonrpc", "2.0"}, {"method", method}, {"params", std::move(params)}};
}

}  // namespace gpumod::mcp
