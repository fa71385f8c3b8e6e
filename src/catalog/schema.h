// The declarations: which keys a file may hold, of what form, with which bounds, what they mean, and where they go in
// the model. The reader, the JSON Schemas and the reference are all made from these tables; no key is listed anywhere
// else.
//
// A table is read in its own order, not the file's: what other values lean on (env_file for $NAME, host and port)
// stands first, marked `early`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "catalog/reading.h"

namespace gpumod {

struct Declaration;

enum class Form {
  text,   ///< one line
  prose,  ///< may have several lines
  integer,
  number,
  boolean,
  memory,    ///< MiB, or text with a unit
  duration,  ///< seconds, or text with a unit
  choice,
  path,         ///< expanded, made absolute
  paths,        ///< one or a list
  arguments,    ///< a list, or text split by arguments.h
  ids,          ///< a list of ids
  environment,  ///< a map of NAME to text
  json,         ///< a JSON object as text, or as YAML
  devices,      ///< auto, an index, a UUID, or a list of these
  object,       ///< a map of `members`
  one_of,       ///< any of `alternatives`
};

struct Shape {
  Form form = Form::text;
  double minimum = 0;
  double maximum = 0;
  bool expands = false;         ///< $NAME is filled in
  bool keeps_endpoint = false;  ///< ${PORT} and ${HOST} are left for the engine
  bool bare_name = false;       ///< of a path: without a / it is a name for PATH to resolve
  std::vector<std::string> choices;
  std::string pattern;   ///< a regular expression for editors; `accepts` decides
  std::string expected;  ///< in words, for problems and for the reference
  bool (*accepts)(std::string_view) = nullptr;
  std::vector<Declaration> members;
  std::vector<Shape> alternatives;
};

struct Declaration {
  std::string key;
  Shape shape;
  std::string fallback;  ///< what holds when the key is absent, in words
  std::string help;
  bool early = false;
  bool required = false;
  std::string same_as = {};  ///< another key for the same thing: only one of the two may stand
};

std::string expected_of(const Shape& shape);  ///< "a whole number from 1 to 65535"

template <typename T>
struct Field {
  Declaration declaration;
  std::function<void(Reading&, const YamlNode&, const Shape&, T&)> store;
};
template <typename T>
using Table = std::vector<Field<T>>;

template <typename T>
std::vector<Declaration> declarations_of(const Table<T>& table) {
  std::vector<Declaration> all;
  for (const auto& field : table)
    all.push_back(field.declaration);
  return all;
}

/// Shapes, as the tables write them.
namespace shapes {
Shape text(bool expands = false);
Shape prose();
Shape named(std::string expected, std::string pattern, bool (*accepts)(std::string_view));
Shape integer(std::int64_t minimum, std::int64_t maximum);
Shape number(double minimum, double maximum);
Shape boolean();
Shape memory();
Shape duration(double minimum_seconds, double maximum_seconds);
Shape choice(std::vector<std::string> choices);
Shape path();
Shape program();  ///< a path, or a bare name
Shape paths();
Shape arguments(bool keeps_endpoint = false);
Shape ids();
Shape environment();
Shape json();
Shape devices();
Shape object(std::vector<Declaration> members);
Shape one_of(std::vector<Shape> alternatives);
}  // namespace shapes

/// Readers of single values: a problem is reported, and nothing returned, when the value is not of that shape.
std::optional<std::string> read_text(Reading&, const YamlNode&, const Shape&);
std::optional<std::int64_t> read_integer(Reading&, const YamlNode&, const Shape&);
std::optional<double> read_number(Reading&, const YamlNode&, const Shape&);
std::optional<bool> read_boolean(Reading&, const YamlNode&, const Shape&);
std::optional<Bytes> read_memory(Reading&, const YamlNode&, const Shape&);
std::optional<Duration> read_duration(Reading&, const YamlNode&, const Shape&);
std::optional<std::filesystem::path> read_path(Reading&, const YamlNode&, const Shape&);
std::optional<std::vector<std::string>> read_list(Reading&, const YamlNode&, const Shape&);
std::optional<std::map<std::string, std::string>> read_environment(Reading&, const YamlNode&, const Shape&);
std::optional<GpuSelector> read_devices(Reading&, const YamlNode&, const Shape&);

template <typename>
struct optional_inner {
  using type = void;
};
template <typename V>
struct optional_inner<std::optional<V>> {
  using type = V;
};

template <typename M>
std::optional<M> read_as(Reading& reading, const YamlNode& node, const Shape& shape) {
  if constexpr (!std::is_void_v<typename optional_inner<M>::type>) {
    auto value = read_as<typename optional_inner<M>::type>(reading, node, shape);
    return value ? std::optional<M>(std::in_place, std::move(*value)) : std::nullopt;
  } else if constexpr (std::is_same_v<M, bool>) {
    return read_boolean(reading, node, shape);
  } else if constexpr (std::is_integral_v<M>) {
    const auto value = read_integer(reading, node, shape);
    return value ? std::optional<M>(static_cast<M>(*value)) : std::nullopt;
  } else if constexpr (std::is_same_v<M, double>) {
    return read_number(reading, node, shape);
  } else if constexpr (std::is_same_v<M, Bytes>) {
    return read_memory(reading, node, shape);
  } else if constexpr (std::is_same_v<M, Duration>) {
    return read_duration(reading, node, shape);
  } else if constexpr (std::is_same_v<M, std::filesystem::path>) {
    return read_path(reading, node, shape);
  } else if constexpr (std::is_same_v<M, std::vector<std::string>>) {
    return read_list(reading, node, shape);
  } else if constexpr (std::is_same_v<M, GpuSelector>) {
    return read_devices(reading, node, shape);
  } else {
    static_assert(std::is_same_v<M, std::string>);
    return read_text(reading, node, shape);
  }
}

/// The common store: read by the member's type, assign.
template <typename T, typename M>
auto into(M T::*member) {
  return [member](Reading& reading, const YamlNode& node, const Shape& shape, T& target) {
    if (auto value = read_as<M>(reading, node, shape)) target.*member = std::move(*value);
  };
}

/// The same for an enumeration that `from` knows by name.
template <typename T, typename M, typename From>
auto into_choice(M T::*member, From from) {
  return [member, from](Reading& reading, const YamlNode& node, const Shape& shape, T& target) {
    if (auto name = read_text(reading, node, shape))
      if (auto value = from(*name)) target.*member = *value;
  };
}

/// The node of each key that was read and is not null.
using Seen = std::map<std::string, const YamlNode*>;

enum class Phase { early, late };

template <typename T>
void read_fields(Reading& reading, const YamlNode& map, const Table<T>& table, Phase phase, T& target, Seen& seen) {
  for (const auto& field : table) {
    const auto& declared = field.declaration;
    if (declared.early != (phase == Phase::early)) continue;
    const auto* entry = map.find(declared.key);
    if (!entry || entry->value->is_null()) {
      if (declared.required)
        reading.error(entry ? *entry->key : map, "the key '" + declared.key + "' is missing",
                      "Expected " + expected_of(declared.shape) + ".");
      continue;
    }
    if (const auto* twin = declared.same_as.empty() ? nullptr : map.find(declared.same_as);
        twin && !twin->value->is_null()) {
      reading.error(*entry->key, "'" + declared.key + "' and '" + declared.same_as + "' say the same thing",
                    "Keep one of them.");
      continue;
    }
    seen[declared.key] = entry->value.get();
    field.store(reading, *entry->value, declared.shape, target);
  }
}

/// Reads a map that a table describes wholly.
template <typename T>
void read_object(Reading& reading, const YamlNode& node, const Table<T>& table, T& target, Seen& seen);

/// Keys of `map` outside `known`, each with the nearest that is known.
void report_unknown_keys(Reading& reading, const YamlNode& map, const std::vector<std::string>& known,
                         Severity severity);
bool expect_map(Reading& reading, const YamlNode& node, std::string_view what);

template <typename T>
void read_object(Reading& reading, const YamlNode& node, const Table<T>& table, T& target, Seen& seen) {
  if (!expect_map(reading, node, "a map of keys")) return;
  read_fields(reading, node, table, Phase::early, target, seen);
  read_fields(reading, node, table, Phase::late, target, seen);
  std::vector<std::string> known;
  for (const auto& field : table)
    known.push_back(field.declaration.key);
  report_unknown_keys(reading, node, known, Severity::error);
}

}  // namespace gpumod
