#include "sim/faults.h"

#include <algorithm>
#include <array>
#include <charconv>

#include <fmt/format.h>

#include "base/text.h"
#include "sim/options.h"

namespace gpumod::sim {

namespace {

constexpr std::array<std::string_view, 8> names = {
    "process-record",       "na-memory",       "host-pids", "slow", "no-memory-info", "gpu-lost",
    "missing-process-list", "mig-unprivileged"};

std::optional<int> number_in(std::string_view text) {
  int value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// "0,2" as its numbers; nothing when one of them is none.
std::optional<std::vector<int>> numbers_in(std::string_view text) {
  std::vector<int> numbers;
  for (std::size_t start = 0; start <= text.size();) {
    const auto end = std::min(text.find(',', start), text.size());
    const auto number = number_in(text.substr(start, end - start));
    if (!number) return std::nullopt;
    numbers.push_back(*number);
    start = end + 1;
  }
  return numbers;
}

bool fits(std::string_view name, std::string_view value, int gpus) {
  if (name == "process-record") return value == "16" || value == "24" || value == "32";
  if (name == "host-pids") return number_in(value).has_value();
  if (name == "slow") return parse_duration(value).has_value();
  if (name == "missing-process-list") return value.empty() || number_in(value).has_value();
  if (name == "gpu-lost") {
    const auto lost = numbers_in(value);
    return lost && std::all_of(lost->begin(), lost->end(), [&](int gpu) { return gpu >= 0 && gpu < gpus; });
  }
  return value.empty();
}

Result<void> check_name(std::string_view name) {
  if (std::find(names.begin(), names.end(), name) != names.end()) return {};
  return fail(ErrorCode::usage, fmt::format("there is no fault '{}'", name),
              did_you_mean(name, std::vector<std::string>(names.begin(), names.end())));
}

}  // namespace

Result<void> Faults::set(std::string_view text, int gpus) {
  const auto equals = std::min(text.find('='), text.size());
  const auto name = text.substr(0, equals);
  const auto value = text.substr(std::min(equals + 1, text.size()));
  TRY(check_name(name));
  if (!fits(name, value, gpus))
    return fail(ErrorCode::usage, fmt::format("'{}' is no value for the fault {}", value, name));
  values_.insert_or_assign(std::string(name), std::string(value));
  return {};
}

Result<void> Faults::clear(std::string_view name) {
  TRY(check_name(name));
  if (const auto found = values_.find(name); found != values_.end()) values_.erase(found);
  return {};
}

bool Faults::is_lost(int gpu) const {
  const auto found = values_.find("gpu-lost");
  if (found == values_.end()) return false;
  const auto lost = numbers_in(found->second).value_or(std::vector<int>());
  return std::find(lost.begin(), lost.end(), gpu) != lost.end();
}

Duration Faults::slowness() const {
  const auto found = values_.find("slow");
  return found == values_.end() ? Duration{} : parse_duration(found->second).value_or(Duration{});
}

}  // namespace gpumod::sim
