// Reading what servers answer, without trusting it: every step of a path through a JSON value may be missing or of
// another type, and the text that reaches people is short and printable.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include <boost/json/value.hpp>

#include "base/result.h"
#include "model/http.h"

namespace gpumod {

/// One step into a JSON value: a key of an object or an index of an array.
struct JsonStep {
  JsonStep(const char* name) : key(name) {}                        // NOLINT: paths read as lists of plain names
  JsonStep(std::string_view name) : key(name) {}                   // NOLINT
  JsonStep(int place) : index(static_cast<std::size_t>(place)) {}  // NOLINT
  std::string_view key = {};
  std::optional<std::size_t> index = {};
};

/// Null when the way does not exist.
const boost::json::value* find(const boost::json::value& root, std::initializer_list<JsonStep> path);
/// "" when there is no string there.
std::string string_at(const boost::json::value& root, std::initializer_list<JsonStep> path);
/// Finite numbers only.
std::optional<double> number_at(const boost::json::value& root, std::initializer_list<JsonStep> path);
std::optional<std::int64_t> integer_at(const boost::json::value& root, std::initializer_list<JsonStep> path);
std::optional<bool> bool_at(const boost::json::value& root, std::initializer_list<JsonStep> path);

/// The body as JSON. Errors (failed) say what came instead: "an HTML page", "text that is not JSON: …".
Result<boost::json::value> json_body(const HttpReply& reply);

/// What the server itself says went wrong, in the shapes that OpenAI-like servers and FastAPI use, else the start of
/// the body, else "".
std::string server_message(const HttpReply& reply);
/// The message of an error object, "" if the value has none: some servers send one with status 200.
std::string error_in(const boost::json::value& body);
/// "status 503: Loading model".
std::string status_and_message(const HttpReply& reply);

inline bool is_success(const HttpReply& reply) {
  return reply.status >= 200 && reply.status < 300;
}

/// Printable, on one line, at most `limit` characters of UTF-8.
std::string shorten(std::string_view text, std::size_t limit);

}  // namespace gpumod
