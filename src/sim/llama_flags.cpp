#include "sim/llama_flags.h"

#include <algorithm>
#include <cstdlib>

#include "base/paths.h"
#include "base/text.h"

namespace gpumod::sim {

namespace {

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_counted(const LlamaFlag& flag) {
  for (const auto* hint : {"N", "PORT", "SECONDS", "INDEX"})
    if (flag.value == hint) return true;
  return false;
}

bool begins_as_number(std::string_view text) {
  text = trim(text);
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) text.remove_prefix(1);
  return !text.empty() && ((text.front() >= '0' && text.front() <= '9') || text.front() == '.');
}

std::string names_and_value(const LlamaFlag& flag) {
  auto names = flag.names;
  names.insert(names.end(), flag.opposites.begin(), flag.opposites.end());
  auto text = join(names, ", ");
  if (!flag.value.empty()) text += " " + flag.value;
  return text;
}

/// "on, off": the values a hint like "[on|off]" allows; empty when it allows any.
bool is_allowed(const LlamaFlag& flag, std::string_view value) {
  if (!flag.value.starts_with("[on|off")) return true;
  std::string_view words = flag.value;
  words = words.substr(1, words.size() - 2);
  while (!words.empty()) {
    const auto word = words.substr(0, words.find('|'));
    if (word == value) return true;
    words.remove_prefix(std::min(words.size(), word.size() + 1));
  }
  // What it takes for on and off besides; found by trying.
  return says_yes(value) || value == "0" || value == "false" || value == "no" || value == "disabled" || value == "-1";
}

tl::unexpected<Error> bad_argument(const LlamaFlag& flag, std::string_view word, std::string_view problem) {
  return fail(ErrorCode::usage, fmt::format("error while handling argument \"{}\": {}\n\nusage:\n{}\n\n\nto show "
                                            "complete usage, run with -h",
                                            word, problem, names_and_value(flag)));
}

Result<void> check_value(const LlamaFlag& flag, std::string_view word, std::string_view value) {
  const bool is_layers = flag.key() == "n-gpu-layers" && (value == "auto" || value == "all");
  if (is_counted(flag) && !is_layers && !begins_as_number(value)) return bad_argument(flag, word, "stoi");
  if (!is_allowed(flag, value))
    return bad_argument(flag, word, fmt::format("error: unknown value for {}: '{}'\n", flag.names.back(), value));
  return {};
}

}  // namespace

bool says_yes(std::string_view value) {
  return value == "1" || value == "true" || value == "on" || value == "yes" || value == "enabled";
}

const LlamaFlag* llama_flag_named(std::string_view name) {
  for (const auto& flag : llama_flags()) {
    if (contains(flag.names, name) || contains(flag.opposites, name) || flag.variable == name) return &flag;
    if (name.starts_with('-')) continue;
    for (const auto& known : flag.names)
      if (std::string_view(known).substr(known.starts_with("--") ? 2 : 1) == name) return &flag;
  }
  return nullptr;
}

std::string LlamaSettings::text(std::string_view key, std::string fallback) const {
  const auto found = values_.find(key);
  return found == values_.end() ? std::move(fallback) : found->second;
}

bool LlamaSettings::flag(std::string_view key, bool fallback) const {
  const auto found = values_.find(key);
  return found == values_.end() ? fallback : says_yes(found->second);
}

std::optional<int> LlamaSettings::number(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end() || !begins_as_number(found->second)) return std::nullopt;
  return static_cast<int>(std::strtol(found->second.c_str(), nullptr, 10));
}

void LlamaSettings::merge(const LlamaSettings& other) {
  for (const auto& [key, value] : other.values_)
    values_[key] = value;
}

Result<LlamaSettings> parse_llama_arguments(const std::vector<std::string>& words) {
  LlamaSettings settings;
  for (const auto& flag : llama_flags()) {
    if (auto value = environment_variable(flag.variable.c_str()); !value.empty())
      settings.set(flag.key(), flag.value.empty() ? (says_yes(value) ? "1" : "0") : std::move(value));
  }
  for (std::size_t i = 0; i < words.size(); ++i) {
    const auto& word = words[i];
    const auto* flag = word.starts_with('-') ? llama_flag_named(word) : nullptr;
    if (!flag) return fail(ErrorCode::usage, fmt::format("error: invalid argument: {}", word));
    if (flag->value.empty()) {
      settings.set(flag->key(), contains(flag->opposites, word) ? "0" : "1");
      continue;
    }
    if (i + 1 == words.size()) return bad_argument(*flag, word, "expected value for argument");
    TRY(check_value(*flag, word, words[i + 1]));
    settings.set(flag->key(), words[++i]);
  }
  return settings;
}

std::vector<std::pair<std::string, std::string>> in_router_order(const LlamaSettings& settings) {
  std::vector<const LlamaFlag*> flags;
  for (const auto& flag : llama_flags())
    if (settings.has(flag.key())) flags.push_back(&flag);
  std::sort(flags.begin(), flags.end(),
            [](const LlamaFlag* one, const LlamaFlag* other) { return one->names.front() < other->names.front(); });
  std::vector<std::pair<std::string, std::string>> ordered;
  for (const auto* flag : flags)
    ordered.emplace_back(flag->key(), settings.text(flag->key()));
  return ordered;
}

std::vector<std::string> llama_words(const LlamaSettings& settings) {
  std::vector<std::string> words;
  for (const auto& [key, value] : in_router_order(settings)) {
    const auto* flag = llama_flag_named("--" + key);
    if (!flag->value.empty()) {
      words.push_back(flag->names.back());
      words.push_back(value);
    } else if (says_yes(value)) {
      words.push_back(flag->names.back());
    } else if (!flag->opposites.empty()) {
      words.push_back(flag->opposites.back());
    }
  }
  return words;
}

std::string llama_help() {
  std::string text = "A simulated llama-server. It knows the flags of the real one; most of them do nothing here.\n\n";
  for (const auto& flag : llama_flags())
    text += fmt::format("{}\n{:40}(env: {})\n", names_and_value(flag), "", flag.variable);
  return text;
}

}  // namespace gpumod::sim
