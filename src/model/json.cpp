#include "model/json.h"

#include <boost/json.hpp>

namespace gpumod {

namespace json = boost::json;

json::value bytes_or_null(const std::optional<Bytes>& amount) {
  return amount ? json::value(amount->count()) : json::value(nullptr);
}

json::value text_or_null(std::string_view text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

double rounded_seconds(Duration took) {
  return static_cast<double>(std::chrono::duration_cast<std::chrono::milliseconds>(took).count()) / 1000.0;
}

json::value to_json(const Goal& goal) {
  json::object wanted;
  for (const auto& [id, residency] : goal.wanted)
    wanted[id] = to_string(residency);
  return {{"mode", goal.mode}, {"exclusive", goal.exclusive}, {"wanted", std::move(wanted)}};
}

Result<Goal> goal_from_json(const json::value& value) {
  const auto malformed = [] { return fail(ErrorCode::failed, "a stored goal is not readable"); };
  const auto* object = value.if_object();
  if (!object) return malformed();
  Goal goal;
  if (const auto* mode = object->if_contains("mode"); mode && mode->is_string()) goal.mode = mode->as_string().c_str();
  if (const auto* exclusive = object->if_contains("exclusive"); exclusive && exclusive->is_bool())
    goal.exclusive = exclusive->as_bool();
  const auto* wanted = object->if_contains("wanted");
  if (!wanted || !wanted->is_object()) return malformed();
  for (const auto& [id, name] : wanted->as_object()) {
    const auto residency = name.is_string() ? residency_from(std::string_view(name.as_string())) : std::nullopt;
    if (!residency) return malformed();
    goal.wanted[id] = *residency;
  }
  return goal;
}

json::value to_json(const Error& error) {
  return {
      {"code", to_string(error.code)}, {"message", error.message}, {"hint", error.hint}, {"details", error.details}};
}

Error error_from_json(const json::value& value) {
  Error error{ErrorCode::failed, "the answer is not readable", {}, {}};
  const auto* object = value.if_object();
  if (!object) return error;
  const auto text = [&](const char* key) -> std::string {
    const auto* found = object->if_contains(key);
    return found && found->is_string() ? std::string(found->as_string()) : std::string();
  };
  error.message = text("message");
  error.hint = text("hint");
  if (const auto* details = object->if_contains("details")) error.details = *details;
  for (const auto code : {ErrorCode::failed, ErrorCode::usage, ErrorCode::refused, ErrorCode::not_found,
                          ErrorCode::busy, ErrorCode::configuration, ErrorCode::environment, ErrorCode::cancelled})
    if (text("code") == to_string(code)) error.code = code;
  return error;
}

}  // namespace gpumod
