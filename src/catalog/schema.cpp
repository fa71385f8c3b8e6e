#include "catalog/schema.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace shapes {

namespace {
Shape of(Form form) {
  Shape shape;
  shape.form = form;
  return shape;
}
}  // namespace

Shape text(bool expands) {
  Shape shape = of(Form::text);
  shape.expands = expands;
  return shape;
}
Shape prose() {
  return of(Form::prose);
}
Shape named(std::string expected, std::string pattern, bool (*accepts)(std::string_view)) {
  Shape shape = of(Form::text);
  shape.expected = std::move(expected);
  shape.pattern = std::move(pattern);
  shape.accepts = accepts;
  return shape;
}
Shape integer(std::int64_t minimum, std::int64_t maximum) {
  Shape shape = of(Form::integer);
  shape.minimum = static_cast<double>(minimum);
  shape.maximum = static_cast<double>(maximum);
  return shape;
}
Shape number(double minimum, double maximum) {
  Shape shape = of(Form::number);
  shape.minimum = minimum;
  shape.maximum = maximum;
  return shape;
}
Shape boolean() {
  return of(Form::boolean);
}
Shape memory() {
  Shape shape = of(Form::memory);
  shape.maximum = 1048576;  // MiB: no GPU has a TiB
  return shape;
}
Shape duration(double minimum_seconds, double maximum_seconds) {
  Shape shape = of(Form::duration);
  shape.minimum = minimum_seconds;
  shape.maximum = maximum_seconds;
  return shape;
}
Shape choice(std::vector<std::string> choices) {
  Shape shape = of(Form::choice);
  shape.choices = std::move(choices);
  return shape;
}
Shape path() {
  Shape shape = of(Form::path);
  shape.expands = true;
  return shape;
}
Shape program() {
  Shape shape = path();
  shape.bare_name = true;
  return shape;
}
Shape paths() {
  Shape shape = of(Form::paths);
  shape.expands = true;
  return shape;
}
Shape arguments(bool keeps_endpoint) {
  Shape shape = of(Form::arguments);
  shape.expands = true;
  shape.keeps_endpoint = keeps_endpoint;
  return shape;
}
Shape ids() {
  return of(Form::ids);
}
Shape environment() {
  Shape shape = of(Form::environment);
  shape.expands = true;
  return shape;
}
Shape json() {
  return of(Form::json);
}
Shape devices() {
  return of(Form::devices);
}
Shape object(std::vector<Declaration> members) {
  Shape shape = of(Form::object);
  shape.members = std::move(members);
  return shape;
}
Shape one_of(std::vector<Shape> alternatives) {
  Shape shape = of(Form::one_of);
  shape.alternatives = std::move(alternatives);
  return shape;
}

}  // namespace shapes

namespace {

std::string plain(double value) {
  return value == std::floor(value) ? fmt::format("{:.0f}", value) : fmt::format("{}", value);
}

std::string in_time(double seconds) {
  if (seconds >= 3600) return fmt::format("{} h", plain(seconds / 3600));
  if (seconds >= 60) return fmt::format("{} min", plain(seconds / 60));
  return fmt::format("{} s", plain(seconds));
}

}  // namespace

std::string expected_of(const Shape& shape) {
  if (!shape.expected.empty()) return shape.expected;
  switch (shape.form) {
    case Form::text: return "one line of text";
    case Form::prose: return "text";
    case Form::integer: return fmt::format("a whole number from {} to {}", plain(shape.minimum), plain(shape.maximum));
    case Form::number:
      return fmt::format("a number {} {} and at most {}", shape.minimum == 0 ? "above" : "from", plain(shape.minimum),
                         plain(shape.maximum));
    case Form::boolean: return "true or false";
    case Form::memory: return "MiB as a whole number, or an amount such as 20 GiB or 512MiB, at most 1 TiB";
    case Form::duration:
      return fmt::format("seconds, or a time such as 90s or 2m, from {} to {}", in_time(shape.minimum),
                         in_time(shape.maximum));
    case Form::choice: return fmt::format("one of {}", join(shape.choices, ", "));
    case Form::path: return shape.bare_name ? "a path, or the name of a program in PATH" : "a path";
    case Form::paths: return "a path, or a list of paths";
    case Form::arguments: return "a list of arguments, or one line of them";
    case Form::ids: return "a list of ids";
    case Form::environment: return "a map of variable names to text";
    case Form::json: return "a JSON object, as text or as YAML";
    case Form::devices: return "auto, an index, a UUID (GPU-… or MIG-…), or a list of these";
    case Form::object: return "a map of keys";
    case Form::one_of: {
      std::vector<std::string> parts;
      for (const auto& each : shape.alternatives)
        parts.push_back(expected_of(each));
      return join(parts, ", or ");
    }
  }
  return {};
}

bool expect_map(Reading& reading, const YamlNode& node, std::string_view what) {
  if (node.is_map()) return true;
  reading.error(node, fmt::format("expected {}, found {}", what, node.is_sequence() ? "a list" : "a single value"),
                "Write `key: value` lines.");
  return false;
}

void report_unknown_keys(Reading& reading, const YamlNode& map, const std::vector<std::string>& known,
                         Severity severity) {
  std::size_t unknown = 0;
  for (const auto& [key, value] : map.entries) {
    if (std::find(known.begin(), known.end(), key->text) != known.end()) continue;
    if (++unknown > problems_per_file + 1) break;
    auto message = fmt::format("unknown key '{}'", printable(key->text.substr(0, 80)));
    const auto near = nearest_names(key->text, known);
    const auto hint = near.empty() ? std::string() : did_you_mean(key->text, known);
    if (severity == Severity::error)
      reading.error(*key, std::move(message), hint);
    else
      reading.warning(*key, std::move(message) + " is ignored", hint);
  }
}

}  // namespace gpumod
