#include "engines/reply.h"

#include <cmath>

#include <boost/json/parse.hpp>

#include "base/text.h"

namespace gpumod {

namespace json = boost::json;

const json::value* find(const json::value& root, std::initializer_list<JsonStep> path) {
  const json::value* at = &root;
  for (const auto& step : path) {
    if (step.index) {
      const auto* array = at->if_array();
      if (!array || *step.index >= array->size()) return nullptr;
      at = &(*array)[*step.index];
    } else {
      const auto* object = at->if_object();
      at = object ? object->if_contains(step.key) : nullptr;
    }
    if (!at) return nullptr;
  }
  return at;
}

std::string string_at(const json::value& root, std::initializer_list<JsonStep> path) {
  const auto* value = find(root, path);
  const auto* text = value ? value->if_string() : nullptr;
  return text ? std::string(*text) : std::string();
}

std::optional<double> number_at(const json::value& root, std::initializer_list<JsonStep> path) {
  const auto* value = find(root, path);
  if (!value || !value->is_number()) return std::nullopt;
  const double number = value->is_double()  ? value->get_double()
                        : value->is_int64() ? static_cast<double>(value->get_int64())
                                            : static_cast<double>(value->get_uint64());
  return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

std::optional<std::int64_t> integer_at(const json::value& root, std::initializer_list<JsonStep> path) {
  const auto* value = find(root, path);
  return value && value->is_int64() ? std::optional(value->get_int64()) : std::nullopt;
}

std::optional<bool> bool_at(const json::value& root, std::initializer_list<JsonStep> path) {
  const auto* value = find(root, path);
  return value && value->is_bool() ? std::optional(value->get_bool()) : std::nullopt;
}

namespace {

bool looks_like_html(const HttpReply& reply) {
  return reply.content_type.find("html") != std::string::npos || trim(reply.body).substr(0, 1) == "<";
}

std::optional<json::value> parse(const std::string& text) {
  boost::system::error_code problem;
  auto value = json::parse(text, problem);  // depth is limited to 32 by default
  if (problem) return std::nullopt;
  return value;
}

}  // namespace

Result<json::value> json_body(const HttpReply& reply) {
  if (trim(reply.body).empty()) return fail(ErrorCode::failed, "the answer is empty");
  try {
    if (auto value = parse(reply.body)) return std::move(*value);
  } catch (const std::exception&) {
    // Only memory can run out here; for the caller that is an answer nobody can read.
  }
  if (looks_like_html(reply)) return fail(ErrorCode::failed, "the answer is an HTML page, not JSON");
  return fail(ErrorCode::failed, fmt::format("the answer is not JSON: {}", shorten(reply.body, 80)));
}

std::string error_in(const json::value& body) {
  if (auto text = string_at(body, {"error", "message"}); !text.empty()) return text;
  if (auto text = string_at(body, {"error"}); !text.empty()) return text;
  if (string_at(body, {"object"}) == "error") return string_at(body, {"message"});
  const auto* error = find(body, {"error"});
  return error && error->is_object() ? "an error without a message" : std::string();
}

std::string server_message(const HttpReply& reply) {
  const auto body = json_body(reply);
  if (!body) return looks_like_html(reply) ? "an HTML page" : shorten(reply.body, 200);
  if (auto text = error_in(*body); !text.empty()) return shorten(text, 200);
  for (const char* key : {"message", "detail"})
    if (auto text = string_at(*body, {key}); !text.empty()) return shorten(text, 200);
  if (auto text = string_at(*body, {"detail", 0, "msg"}); !text.empty()) return shorten(text, 200);
  return shorten(reply.body, 200);
}

std::string status_and_message(const HttpReply& reply) {
  const auto message = server_message(reply);
  return message.empty() ? fmt::format("status {}", reply.status) : fmt::format("status {}: {}", reply.status, message);
}

std::string shorten(std::string_view text, std::size_t limit) {
  // Four bytes a character at most: what lies beyond cannot be shown, and need not be cleaned.
  const auto clean = printable(trim(text.substr(0, (limit + 1) * 4 + 64)));
  std::size_t characters = 0;
  for (std::size_t i = 0; i < clean.size(); ++i) {
    const bool starts_character = (static_cast<unsigned char>(clean[i]) & 0xC0) != 0x80;
    if (starts_character && ++characters > limit) return clean.substr(0, i) + "…";
  }
  return clean;
}

}  // namespace gpumod
