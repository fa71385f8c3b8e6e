#include "faces/mcp/shape.h"

#include <boost/json.hpp>

namespace gpumod::mcp {

namespace json = boost::json;

namespace {

/// Reads from left to right; what it does not understand it skips up to the next ',' or bracket of its own level.
class ShapeReader {
 public:
  explicit ShapeReader(std::string_view text) : rest_(text) {}

  json::object value() {
    if (starts('{')) return object();
    if (starts('[')) return list();
    skip_words();
    return {};
  }

 private:
  bool starts(char c) {
    while (!rest_.empty() && rest_.front() == ' ')
      rest_.remove_prefix(1);
    return !rest_.empty() && rest_.front() == c;
  }
  bool take(char c) {
    if (!starts(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  json::object object() {
    take('{');
    json::object properties;
    while (!rest_.empty() && !take('}')) {
      if (take('"')) {
        const auto end = rest_.find('"');
        if (end == std::string_view::npos) break;
        const auto key = rest_.substr(0, end);
        rest_.remove_prefix(end + 1);
        json::object described;
        if (take(':')) described = value();
        if (said_or()) described.clear();
        properties[key] = std::move(described);
      } else if (!take(',')) {
        step_over();
      }
    }
    return nullable("object", "properties", std::move(properties));
  }

  json::object list() {
    take('[');
    json::object items;
    if (!starts(']')) items = value();
    while (!rest_.empty() && !take(']'))
      if (!take(',')) step_over();
    return nullable("array", "items", std::move(items));
  }

  static json::object nullable(std::string_view type, std::string_view key, json::object inner) {
    json::object schema{{"type", json::array{type, "null"}}};
    if (!inner.empty()) schema[key] = std::move(inner);
    return schema;
  }

  /// " or null", " or {…}": then anything goes.
  bool said_or() {
    if (rest_.empty() || starts(',') || starts('}') || starts(']')) return false;
    skip_words();
    return true;
  }

  /// Never stands still, whatever is there.
  void step_over() {
    const auto before = rest_.size();
    skip_words();
    if (!rest_.empty() && rest_.size() == before) rest_.remove_prefix(1);
  }

  void skip_words() {
    int depth = 0;
    while (!rest_.empty()) {
      const char c = rest_.front();
      const bool opens = c == '{' || c == '[' || c == '(', closes = c == '}' || c == ']' || c == ')';
      if (depth == 0 && (c == ',' || closes)) return;
      depth += opens ? 1 : closes ? -1 : 0;
      rest_.remove_prefix(1);
    }
  }

  std::string_view rest_;
};

}  // namespace

json::object schema_of_shape(std::string_view shape) {
  json::object schema;
  if (shape.starts_with('{') && shape.find("} or {") == std::string_view::npos) schema = ShapeReader(shape).value();
  schema["type"] = "object";
  return schema;
}

}  // namespace gpumod::mcp
