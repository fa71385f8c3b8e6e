// Single values: from a YAML node to a C++ value, by the shape that was declared.
#include <algorithm>
#include <charconv>
#include <cmath>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "catalog/arguments.h"
#include "catalog/env_file.h"
#include "catalog/schema.h"

namespace gpumod {

namespace {

std::string shown(const YamlNode& node) {
  if (node.is_map()) return "a map";
  if (node.is_sequence()) return "a list";
  if (node.is_null()) return "nothing";
  auto text = printable(std::string_view(node.text).substr(0, 60));
  if (node.text.size() > 60) text += "…";
  return "'" + text + "'";
}

void mismatch(Reading& reading, const YamlNode& node, const Shape& shape, std::string hint = {}) {
  reading.error(node, fmt::format("expected {}, found {}", expected_of(shape), shown(node)), std::move(hint));
}

/// Escapes in double quotes can bring any character: a NUL ends a C string, others drive a terminal.
bool has_control_character(std::string_view text, bool several_lines) {
  return std::any_of(text.begin(), text.end(), [&](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && byte != '\t' && !(several_lines && byte == '\n')) || byte == 0x7F;
  });
}

std::optional<std::string> scalar(Reading& reading, const YamlNode& node, const Shape& shape, bool several_lines) {
  if (!node.is_scalar()) {
    mismatch(reading, node, shape);
    return std::nullopt;
  }
  if (!is_valid_utf8(node.text) || has_control_character(node.text, several_lines)) {
    reading.error(
        node,
        several_lines ? "the text holds a control character" : "the text holds a line break or a control character",
        fmt::format("Expected {}.", expected_of(shape)));
    return std::nullopt;
  }
  return node.text;
}

template <typename N>
std::optional<N> number_of(std::string_view text) {
  N value{};
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// "1.5 GiB" → 1.5 and "GiB".
std::optional<std::pair<double, std::string>> amount_of(std::string_view text) {
  const auto unit_at = std::min(text.find_first_not_of("0123456789."), text.size());
  const auto value = number_of<double>(text.substr(0, unit_at));
  if (!value || !std::isfinite(*value)) return std::nullopt;
  return std::pair(*value, std::string(trim(text.substr(unit_at))));
}

}  // namespace

std::optional<std::string> read_text(Reading& reading, const YamlNode& node, const Shape& shape) {
  if (shape.form == Form::json && node.is_map()) {
    // What reads like a number or a truth value in YAML is one in JSON, unless it was quoted.
    const auto convert = [](const auto& self, const YamlNode& each) -> boost::json::value {
      if (each.is_null()) return nullptr;
      if (each.is_map()) {
        boost::json::object object;
        for (const auto& [key, value] : each.entries)
          object[key->text] = self(self, *value);
        return object;
      }
      if (each.is_sequence()) {
        boost::json::array array;
        for (const auto& item : each.items)
          array.push_back(self(self, *item));
        return array;
      }
      if (!each.quoted) {
        if (each.text == "true") return true;
        if (each.text == "false") return false;
        if (const auto whole = number_of<std::int64_t>(each.text)) return *whole;
        if (const auto real = number_of<double>(each.text); real && std::isfinite(*real)) return *real;
      }
      return boost::json::string(each.text);
    };
    return boost::json::serialize(convert(convert, node));
  }
  auto text = scalar(reading, node, shape, shape.form == Form::prose || shape.form == Form::json);
  if (!text) return std::nullopt;
  if (shape.form == Form::json) {
    boost::system::error_code problem;
    boost::json::parse_options limits;
    limits.max_depth = yaml_depth_limit;
    const auto value = boost::json::parse(*text, problem, {}, limits);
    if (problem || !value.is_object()) {
      mismatch(reading, node, shape);
      return std::nullopt;
    }
    return boost::json::serialize(value);
  }
  if (shape.form == Form::choice &&
      std::find(shape.choices.begin(), shape.choices.end(), *text) == shape.choices.end()) {
    const auto near = nearest_names(*text, shape.choices, 1);
    mismatch(reading, node, shape, near.empty() ? std::string() : fmt::format("Did you mean '{}'?", near.front()));
    return std::nullopt;
  }
  if (shape.expands) text = reading.expand(node, *text, {});
  if (text && shape.accepts && !shape.accepts(*text)) {
    mismatch(reading, node, shape);
    return std::nullopt;
  }
  return text;
}

std::optional<std::int64_t> read_integer(Reading& reading, const YamlNode& node, const Shape& shape) {
  const bool leading_zero = node.text.size() > 1 && node.text[0] == '0';  // octal to some, decimal to others
  const auto value = node.is_scalar() && !leading_zero ? number_of<std::int64_t>(node.text) : std::nullopt;
  if (!value || static_cast<double>(*value) < shape.minimum || static_cast<double>(*value) > shape.maximum) {
    mismatch(reading, node, shape);
    return std::nullopt;
  }
  return value;
}

std::optional<double> read_number(Reading& reading, const YamlNode& node, const Shape& shape) {
  const auto value = node.is_scalar() ? number_of<double>(node.text) : std::nullopt;
  if (!value || !std::isfinite(*value) || *value <= shape.minimum || *value > shape.maximum) {
    mismatch(reading, node, shape);
    return std::nullopt;
  }
  return value;
}

std::optional<bool> read_boolean(Reading& reading, const YamlNode& node, const Shape& shape) {
  const auto word = node.is_scalar() ? lower(node.text) : std::string();
  for (const char* yes : {"true", "yes", "on"})
    if (word == yes) return true;
  for (const char* no : {"false", "no", "off"})
    if (word == no) return false;
  mismatch(reading, node, shape);
  return std::nullopt;
}

std::optional<Bytes> read_memory(Reading& reading, const YamlNode& node, const Shape& shape) {
  static const std::map<std::string, double> units = {{"", 1},       {"MiB", 1},  {"M", 1},     {"Mi", 1},
                                                      {"GiB", 1024}, {"G", 1024}, {"Gi", 1024}, {"TiB", 1048576}};
  const auto amount = node.is_scalar() ? amount_of(node.text) : std::nullopt;
  const auto unit = amount ? units.find(amount->second) : units.end();
  if (unit == units.end()) {
    const bool decimal = amount && (amount->second == "GB" || amount->second == "MB");
    mismatch(reading, node, shape, decimal ? "GPUs are counted in GiB (1024 MiB): write GiB or MiB." : "");
    return std::nullopt;
  }
  const double mib = amount->first * unit->second;
  if (amount->second.empty() && mib != std::floor(mib)) {
    mismatch(reading, node, shape, "A number without a unit is MiB; write '1.5 GiB' for a fraction.");
    return std::nullopt;
  }
  if (mib > shape.maximum) {
    mismatch(reading, node, shape, "A number without a unit is MiB, not bytes.");
    return std::nullopt;
  }
  return Bytes(std::llround(mib * 1024 * 1024));
}

std::optional<Duration> read_duration(Reading& reading, const YamlNode& node, const Shape& shape) {
  static const std::map<std::string, double> units = {{"", 1},   {"s", 1},    {"sec", 1}, {"ms", 0.001},
                                                      {"m", 60}, {"min", 60}, {"h", 3600}};
  const auto amount = node.is_scalar() ? amount_of(node.text) : std::nullopt;
  const auto unit = amount ? units.find(amount->second) : units.end();
  const double value = unit == units.end() ? -1 : amount->first * unit->second;
  if (value < shape.minimum || value > shape.maximum) {
    mismatch(reading, node, shape);
    return std::nullopt;
  }
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(value));
}

std::optional<std::filesystem::path> read_path(Reading& reading, const YamlNode& node, const Shape& shape) {
  auto text = scalar(reading, node, shape, false);
  if (text) text = reading.expand(node, *text, {.home = true});
  if (!text) return std::nullopt;
  if (text->empty() || has_control_character(*text, false)) {
    reading.error(node, "the path is empty or holds a control character");
    return std::nullopt;
  }
  if (shape.accepts && !shape.accepts(*text)) {
    mismatch(reading, node, shape);
    return std::nullopt;
  }
  // PATH is not ours to read.
  if (shape.bare_name && text->find('/') == std::string::npos) return std::filesystem::path(*text);
  return reading.absolute(*text);
}

std::optional<std::vector<std::string>> read_list(Reading& reading, const YamlNode& node, const Shape& shape) {
  const bool arguments = shape.form == Form::arguments;
  std::vector<std::pair<const YamlNode*, std::string>> words;
  bool good = true;
  if (node.is_sequence()) {
    for (const auto& item : node.items) {
      if (auto text = scalar(reading, *item, shape, arguments))
        words.emplace_back(item.get(), std::move(*text));
      else
        good = false;
    }
  } else if (arguments || shape.form == Form::paths) {
    auto text = scalar(reading, node, shape, arguments);
    if (!text) return std::nullopt;
    if (arguments) {
      auto split = split_arguments(*text);
      if (!split) {
        reading.error(node, split.error().message, split.error().hint);
        return std::nullopt;
      }
      for (auto& word : *split)
        words.emplace_back(&node, std::move(word));
    } else {
      words.emplace_back(&node, std::move(*text));
    }
  } else {
    mismatch(reading, node, shape);
    return std::nullopt;
  }

  std::vector<std::string> list;
  for (auto& [at, word] : words) {
    if (!shape.expands) {
      list.push_back(std::move(word));
      continue;
    }
    auto text = reading.expand(
        *at, word, {.keep_endpoint = shape.keeps_endpoint, .visible = arguments, .home = shape.form == Form::paths});
    if (!text) {
      good = false;
    } else if (text->find('\0') != std::string::npos) {
      reading.error(*at, "the text holds a control character");
      good = false;
    } else {
      list.push_back(shape.form == Form::paths ? reading.absolute(*text).string() : std::move(*text));
    }
  }
  if (!good) return std::nullopt;
  return list;
}

std::optional<std::map<std::string, std::string>> read_environment(Reading& reading, const YamlNode& node,
                                                                   const Shape& shape) {
  if (!node.is_map()) {
    mismatch(reading, node, shape, "Write `NAME: value` lines.");
    return std::nullopt;
  }
  std::map<std::string, std::string> values;
  bool good = true;
  for (const auto& [key, value] : node.entries) {
    if (!is_variable_name(key->text)) {
      reading.error(*key, fmt::format("'{}' is no variable name", printable(key->text.substr(0, 80))),
                    "Letters, digits and _, not beginning with a digit.");
      good = false;
    } else if (value->is_null()) {
      values[key->text] = "";
    } else if (!value->is_scalar() || has_control_character(value->text, true)) {
      // The value itself may be a secret: it is not shown.
      reading.error(*value, fmt::format("the value of {} must be plain text", key->text), "Write `NAME: value`.");
      good = false;
    } else if (auto text = reading.expand(*value, value->text, {})) {
      values[key->text] = std::move(*text);
    } else {
      good = false;
    }
  }
  if (!good) return std::nullopt;
  return values;
}

std::optional<GpuSelector> read_devices(Reading& reading, const YamlNode& node, const Shape& shape) {
  const auto is_device = [](std::string_view text) {
    const auto all = [](std::string_view part, std::string_view alphabet) {
      return part.find_first_not_of(alphabet) == std::string_view::npos;
    };
    if (!text.empty() && text.size() <= 2) return all(text, "0123456789");
    const auto prefix = text.substr(0, 4);
    return (prefix == "GPU-" || prefix == "MIG-") && text.size() > 8 && text.size() < 80 &&
           all(text.substr(4), "0123456789abcdefABCDEF-/GPU");
  };
  GpuSelector selector;
  if (node.is_scalar() && node.text == "auto") return selector;
  const auto take = [&](const YamlNode& each) {
    if (!each.is_scalar() || !is_device(each.text)) {
      mismatch(reading, each, shape);
      return false;
    }
    if (std::find(selector.devices.begin(), selector.devices.end(), each.text) != selector.devices.end()) {
      reading.error(each, fmt::format("the GPU {} is listed twice", each.text));
      return false;
    }
    selector.devices.push_back(each.text);
    return true;
  };
  bool good = true;
  if (node.is_sequence()) {
    for (const auto& item : node.items)
      good = take(*item) && good;
    if (node.items.empty()) {
      mismatch(reading, node, shape, "For a service that uses no GPU, write `vram: 0`.");
      good = false;
    }
  } else {
    good = take(node);
  }
  if (!good) return std::nullopt;
  return selector;
}

}  // namespace gpumod
