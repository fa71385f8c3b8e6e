// JSON-RPC 2.0 as MCP uses it: one message, read from bytes that anybody may have written. Knows no method and no
// transport. Source: modelcontextprotocol.io, revisions 2024-11-05 to 2026-07-28.
#pragma once

#include <string>
#include <string_view>

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <tl/expected.hpp>

namespace gpumod::mcp {

/// Error codes of JSON-RPC and of MCP.
enum class Code {
  parse_error = -32700,
  invalid_request = -32600,
  method_not_found = -32601,
  invalid_params = -32602,
  internal_error = -32603,
  overloaded = -32000,
  resource_not_found = -32002,  ///< until 2025-11-25; later it is invalid_params
  header_mismatch = -32020,
  missing_capability = -32021,  ///< the client cannot do what the request needs
  unsupported_version = -32022,
};

/// Why a request gets no result.
struct Fault {
  Code code = Code::internal_error;
  std::string message;            ///< one sentence: what, and what to do
  boost::json::value data = {};   ///< null: none
  boost::json::value about = {};  ///< the id of the message it is about; null where there is none
};

struct Message {
  enum class Kind { request, notification, response } kind = Kind::request;
  boost::json::value id;        ///< text or number; null for a notification
  std::string method;           ///< of requests and notifications
  boost::json::object params;   ///< of requests and notifications
  boost::json::object outcome;  ///< of responses: {"result"} or {"error"}
};

/// Longer messages are refused unread: nothing that a client has to say to us is that long.
constexpr std::size_t message_limit = 1 << 20;

/// Bytes become a message. What is not UTF-8, not JSON, nested deeper than 32 levels, a batch, or no JSON-RPC is a fault.
tl::expected<Message, Fault> read_message(std::string_view bytes);

/// {"jsonrpc","id","result"}
boost::json::object result_message(const boost::json::value& id, boost::json::object result);
/// {"jsonrpc","id","error":{"code","message","data"}}; without an id where the fault is about no known request.
boost::json::object error_message(const boost::json::value& id, const Fault& fault);
boost::json::object notification(std::string_view method, boost::json::object params);

/// A member that is an object, or null.
const boost::json::object* object_in(const boost::json::object& object, std::string_view key);
/// A member that is text, or "".
std::string text_in(const boost::json::object& object, std::string_view key);

}  // namespace gpumod::mcp
