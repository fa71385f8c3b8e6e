// JSON Schemas (2020-12) for editors, made from the tables. They are kept to what editors' YAML plug-ins understand:
// every engine's keys are listed, and those of other engines are forbidden once the engine is known.
#include <cmath>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include "catalog/catalog.h"
#include "catalog/tables.h"

namespace gpumod {

namespace {

namespace json = boost::json;

json::object of_declarations(const std::vector<Declaration>& declarations);

json::value number(double value) {
  return value == std::floor(value) ? json::value(static_cast<std::int64_t>(value)) : json::value(value);
}

json::array texts(const std::vector<std::string>& values) {
  json::array array;
  for (const auto& value : values)
    array.emplace_back(value);
  return array;
}

json::object of_type(const char* type) {
  return {{"type", type}};
}
json::object any_of(json::array alternatives) {
  return {{"anyOf", std::move(alternatives)}};
}
json::object list_of(json::value items) {
  return {{"type", "array"}, {"items", std::move(items)}};
}
json::object with_pattern(const char* pattern) {
  return {{"type", "string"}, {"pattern", pattern}};
}
json::value scalar_type() {
  return {{"type", json::array{"string", "number", "boolean"}}};
}

json::object of_shape(const Shape& shape) {
  switch (shape.form) {
    case Form::text:
    case Form::prose: {
      auto text = of_type("string");
      // A variable may stand where the pattern would not have it.
      if (!shape.pattern.empty() && !shape.expands) text["pattern"] = shape.pattern;
      return text;
    }
    case Form::path: return {{"type", "string"}, {"minLength", 1}};
    case Form::integer:
      return {{"type", "integer"}, {"minimum", number(shape.minimum)}, {"maximum", number(shape.maximum)}};
    case Form::number:
      return {{"type", "number"}, {"exclusiveMinimum", number(shape.minimum)}, {"maximum", number(shape.maximum)}};
    case Form::boolean: return of_type("boolean");
    case Form::memory:
      return any_of({json::object{{"type", "integer"}, {"minimum", 0}, {"maximum", number(shape.maximum)}},
                     with_pattern("^[0-9]+(\\.[0-9]+)?\\s*(M|Mi|MiB|G|Gi|GiB|TiB)?$")});
    case Form::duration:
      return any_of(
          {json::object{{"type", "number"}, {"minimum", number(shape.minimum)}, {"maximum", number(shape.maximum)}},
           with_pattern("^[0-9]+(\\.[0-9]+)?\\s*(ms|s|sec|m|min|h)?$")});
    case Form::choice: return {{"enum", texts(shape.choices)}};
    case Form::paths: return any_of({of_type("string"), list_of(of_type("string"))});
    case Form::arguments: return any_of({of_type("string"), list_of(scalar_type())});
    case Form::ids: {
      auto list = list_of(with_pattern("^[a-z0-9][a-z0-9._-]{0,63}$"));
      list["uniqueItems"] = true;
      return list;
    }
    case Form::environment:
      return {{"type", "object"},
              {"propertyNames", {{"pattern", "^[A-Za-z_][A-Za-z0-9_]*$"}}},
              {"additionalProperties", {{"type", json::array{"string", "number", "boolean", "null"}}}}};
    case Form::json: return any_of({of_type("string"), of_type("object")});
    case Form::devices: {
      const auto device = any_of({json::object{{"type", "integer"}, {"minimum", 0}, {"maximum", 99}},
                                  with_pattern("^([0-9]{1,2}|(GPU|MIG)-[0-9a-fA-F/GPU-]+)$")});
      return any_of({json::object{{"const", "auto"}}, device, list_of(device)});
    }
    case Form::object: return of_declarations(shape.members);
    case Form::one_of: {
      json::array alternatives;
      for (const auto& each : shape.alternatives)
        alternatives.emplace_back(of_shape(each));
      return any_of(std::move(alternatives));
    }
  }
  return {};
}

/// What an editor shows beside the key. A key without a value counts as absent, so null is always allowed.
json::object of_declaration(const Declaration& declaration) {
  json::object schema;
  if (declaration.required)
    schema = of_shape(declaration.shape);
  else
    schema = any_of({of_shape(declaration.shape), of_type("null")});
  std::string description = declaration.help;
  if (!declaration.fallback.empty()) description += fmt::format(" Default: {}.", declaration.fallback);
  schema["description"] = description;
  return schema;
}

void add_declarations(const std::vector<Declaration>& declarations, json::object& properties, json::array& required) {
  for (const auto& declaration : declarations) {
    properties[declaration.key] = of_declaration(declaration);
    if (declaration.required) required.emplace_back(declaration.key);
  }
}

json::object of_declarations(const std::vector<Declaration>& declarations) {
  json::object properties;
  json::array required;
  add_declarations(declarations, properties, required);
  json::object schema = {{"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
  if (!required.empty()) schema["required"] = std::move(required);
  return schema;
}

json::object one_service() {
  auto schema = of_declarations(declarations_of(common_service_table()));
  auto& properties = schema["properties"].as_object();
  json::array rules;
  for (const auto kind : all_engines) {
    json::array none;
    add_declarations(declarations_of(engine_table(kind)), properties, none);
    json::object foreign;
    for (const auto other : all_engines)
      if (other != kind)
        for (const auto& declaration : declarations_of(engine_table(other)))
          foreign[declaration.key] = false;
    for (const auto& declaration : declarations_of(engine_table(kind)))
      foreign.erase(declaration.key);
    rules.emplace_back(json::object{
        {"if", {{"properties", {{"engine", {{"const", to_string(kind)}}}}}, {"required", json::array{"engine"}}}},
        {"then", {{"properties", std::move(foreign)}}}});
  }
  schema["allOf"] = std::move(rules);
  return schema;
}

json::object of_service_file() {
  return {{"$defs", {{"service", one_service()}}},
          {"if", {{"required", json::array{"services"}}}},
          {"then",
           {{"type", "object"},
            {"properties", {{"services", list_of(json::object{{"$ref", "#/$defs/service"}})}}},
            {"additionalProperties", false}}},
          {"else", {{"$ref", "#/$defs/service"}}}};
}

}  // namespace

std::string json_schema(FileKind kind) {
  json::object schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"}};
  const auto add = [&](const char* title, json::object body) {
    schema["title"] = title;
    for (auto& [key, value] : body)
      schema[key] = std::move(value);
  };
  switch (kind) {
    case FileKind::service: add("gpumod service", of_service_file()); break;
    case FileKind::mode: add("gpumod mode", of_declarations(declarations_of(mode_table()))); break;
    case FileKind::settings: add("gpumod settings", of_declarations(declarations_of(settings_table()))); break;
  }
  return json::serialize(schema);
}

}  // namespace gpumod
