#include "sim/flags.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/text.h"
#include "sim/options.h"

namespace gpumod::sim {

namespace {

bool contains(const std::vector<std::string_view>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Error under(std::string_view name, Error error) {
  error.message = fmt::format("--{}: {}", name, error.message);
  return error;
}

}  // namespace

Result<Flags> Flags::parse(const Arguments& arguments, const std::vector<std::string_view>& valued,
                           const std::vector<std::string_view>& bare) {
  Flags flags;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string_view argument = arguments[i];
    const auto equals = argument.find('=');
    const auto name =
        argument.starts_with("--") ? argument.substr(2, equals == argument.npos ? equals : equals - 2) : "";
    const bool has_value = equals != argument.npos;
    if (contains(bare, name) && !has_value) {
      flags.values_[std::string(name)].emplace_back();
    } else if (contains(valued, name) && (has_value || i + 1 < arguments.size())) {
      flags.values_[std::string(name)].emplace_back(has_value ? std::string(argument.substr(equals + 1))
                                                              : arguments[++i]);
    } else if (contains(valued, name)) {
      return fail(ErrorCode::usage, fmt::format("--{} needs a value", name));
    } else {
      std::vector<std::string> known(valued.begin(), valued.end());
      known.insert(known.end(), bare.begin(), bare.end());
      return fail(ErrorCode::usage, fmt::format("'{}' is not understood", argument), did_you_mean(name, known));
    }
  }
  return flags;
}

std::vector<std::string> Flags::all(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? std::vector<std::string>() : found->second;
}

std::string Flags::text(std::string_view name, std::string fallback) const {
  const auto found = values_.find(name);
  return found == values_.end() ? std::move(fallback) : found->second.back();
}

Result<Bytes> Flags::amount(std::string_view name, Bytes fallback) const {
  if (!has(name)) return fallback;
  return parse_amount(text(name)).map_error([&](Error error) { return under(name, std::move(error)); });
}

Result<Duration> Flags::duration(std::string_view name, Duration fallback) const {
  if (!has(name)) return fallback;
  return parse_duration(text(name)).map_error([&](Error error) { return under(name, std::move(error)); });
}

Result<int> Flags::number(std::string_view name, int fallback) const {
  if (!has(name)) return fallback;
  const std::string value = text(name);
  int number = 0;
  const auto [end, problem] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (problem != std::errc() || end != value.data() + value.size())
    return fail(ErrorCode::usage, fmt::format("--{}: '{}' is no number", name, value));
  return number;
}

}  // namespace gpumod::sim
