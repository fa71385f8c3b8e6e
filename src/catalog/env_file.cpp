#include "catalog/env_file.h"

#include <algorithm>
#include <optional>

#include "base/text.h"

namespace gpumod {

namespace {

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// What a quoted value says, and nothing but a comment after it.
std::optional<std::string> unquote(std::string_view text) {
  const char quote = text.front();
  std::string value;
  std::size_t i = 1;
  for (; i < text.size() && text[i] != quote; ++i) {
    if (quote == '"' && text[i] == '\\' && i + 1 < text.size()) {
      const char next = text[i + 1];
      if (next == '"' || next == '\\' || next == '$' || next == 'n') {
        value += next == 'n' ? '\n' : next;
        ++i;
        continue;
      }
    }
    value += text[i];
  }
  if (i >= text.size()) return std::nullopt;
  const auto rest = trim(text.substr(i + 1));
  if (!rest.empty() && rest.front() != '#') return std::nullopt;
  return value;
}

}  // namespace

bool is_variable_name(std::string_view name) {
  return !name.empty() && is_letter(name.front()) &&
         std::all_of(name.begin(), name.end(), [](char c) { return is_letter(c) || is_digit(c); });
}

bool names_a_secret(std::string_view name) {
  const auto small = lower(name);
  for (const std::string_view noun : {"key", "keys", "token", "secret", "secrets", "password", "passwords", "passwd",
                                      "passphrase", "credential", "credentials"})
    if (small.ends_with(noun)) return true;
  return false;
}

EnvironmentLines parse_environment_file(std::string_view text) {
  EnvironmentLines result;
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  int number = 0;
  for (std::string_view line : split_lines(text)) {
    ++number;
    line = trim(line);
    if (line.empty() || line.front() == '#') continue;
    if (line.substr(0, 7) == "export ") line = trim(line.substr(7));
    const auto equals = line.find('=');
    const auto complain = [&](std::string message) { result.complaints.push_back({number, std::move(message)}); };
    if (equals == std::string_view::npos) {
      complain("expected NAME=VALUE");
      continue;
    }
    const auto name = trim(line.substr(0, equals));
    const auto raw = trim(line.substr(equals + 1));
    if (!is_variable_name(name)) {
      complain("what stands before the = is no variable name (letters, digits, _)");
      continue;
    }
    if (!is_valid_utf8(raw) || raw.find('\0') != std::string_view::npos) {
      complain("the value is not UTF-8 text");
      continue;
    }
    if (raw.empty() || (raw.front() != '"' && raw.front() != '\'')) {
      result.values[std::string(name)] = std::string(raw);
      continue;
    }
    if (auto value = unquote(raw))
      result.values[std::string(name)] = std::move(*value);
    else
      complain("the quoted value does not end, or something stands behind it");
  }
  return result;
}

}  // namespace gpumod
