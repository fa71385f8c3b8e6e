#include "sim/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/paths.h"
#include "base/text.h"

namespace gpumod::sim {

namespace {

std::optional<double> number_in(std::string_view text) {
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

struct Unit {
  std::string_view name;
  double factor;
};

/// "1.5GiB" as a whole number of the smallest unit. Nothing when it is no number with one of these units, negative, or
/// beyond what 63 bits hold.
std::optional<std::int64_t> quantity_in(std::string_view text, std::initializer_list<Unit> units) {
  text = trim(text);
  const auto digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const auto amount = number_in(text.substr(0, digits));
  const auto unit_name = trim(text.substr(digits));
  const auto unit =
      std::find_if(units.begin(), units.end(), [&](const Unit& known) { return known.name == unit_name; });
  if (!amount || unit == units.end()) return std::nullopt;
  const double value = std::round(*amount * unit->factor);
  if (value >= static_cast<double>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
  return static_cast<std::int64_t>(value);
}

/// A value's complaint with the key it stands under.
Error under(std::string_view key, Error error) {
  error.message = fmt::format("{}: {}", key, error.message);
  return error;
}

}  // namespace

Result<Bytes> parse_amount(std::string_view text) {
  constexpr double kib = 1024;
  const auto count = quantity_in(
      text, {{"MiB", kib * kib}, {"GiB", kib * kib * kib}, {"KiB", kib}, {"B", 1}, {"TiB", kib * kib * kib * kib}});
  if (!count)
    return fail(ErrorCode::usage, fmt::format("'{}' is no amount of memory", text), "Write 1100MiB or 16GiB.");
  return Bytes(*count);
}

Result<Duration> parse_duration(std::string_view text) {
  const auto count = quantity_in(text, {{"s", 1e9}, {"ms", 1e6}, {"us", 1e3}, {"min", 60e9}, {"h", 3600e9}});
  if (!count) return fail(ErrorCode::usage, fmt::format("'{}' is no duration", text), "Write 1.5s, 250ms or 2min.");
  return Duration(*count);
}

Result<Options> Options::parse(std::string_view text) {
  Options options;
  for (const std::string_view line : split_lines(text)) {
    if (trim(line).starts_with('#')) continue;
    for (std::size_t start = 0; start <= line.size();) {
      const auto end = std::min(line.find(';', start), line.size());
      const auto entry = trim(line.substr(start, end - start));
      start = end + 1;
      if (entry.empty()) continue;
      const auto equals = entry.find('=');
      const auto key = trim(entry.substr(0, equals));
      if (equals == std::string_view::npos || key.empty())
        return fail(ErrorCode::usage, fmt::format("'{}' is not of the form key=value", entry));
      if (!options.values_.emplace(key, trim(entry.substr(equals + 1))).second)
        return fail(ErrorCode::usage, fmt::format("'{}' stands twice", key));
    }
  }
  return options;
}

std::string Options::text(std::string_view key, std::string fallback) const {
  const auto found = values_.find(key);
  return found == values_.end() ? std::move(fallback) : found->second;
}

Result<Bytes> Options::amount(std::string_view key, Bytes fallback) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return fallback;
  return parse_amount(found->second).map_error([&](Error error) { return under(key, std::move(error)); });
}

Result<Duration> Options::duration(std::string_view key, Duration fallback) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return fallback;
  return parse_duration(found->second).map_error([&](Error error) { return under(key, std::move(error)); });
}

Result<double> Options::number(std::string_view key, double fallback) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return fallback;
  const auto value = number_in(found->second);
  if (!value) return fail(ErrorCode::usage, fmt::format("{}: '{}' is no number", key, found->second));
  return *value;
}

void Options::merge(const Options& other) {
  for (const auto& [key, value] : other.values_)
    values_[key] = value;
}

std::vector<std::string> Options::unknown(const std::vector<std::string_view>& known) const {
  std::vector<std::string> strange;
  for (const auto& [key, value] : values_)
    if (std::find(known.begin(), known.end(), key) == known.end()) strange.push_back(key);
  return strange;
}

double speed() {
  const auto value = number_in(environment_variable("GPUMOD_SIM_SPEED"));
  return value && *value > 0 ? *value : 1;
}

Duration scaled(Duration simulated) {
  const double real = static_cast<double>(simulated.count()) / speed();
  if (real >= static_cast<double>(Duration::max().count())) return Duration::max();
  return Duration(static_cast<Duration::rep>(real));
}

}  // namespace gpumod::sim
