// Checking an argument list against the binary's own --help: engines rename and drop flags between releases, and a
// server that dies of an unknown flag does so after the old one was stopped.
#include <algorithm>
#include <set>

#include "base/text.h"
#include "engines/engine.h"

namespace gpumod {

namespace {

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool is_flag_character(char c) {
  return is_letter(c) || c == '-' || c == '_' || c == '.';
}

std::string normalised(std::string_view flag) {
  std::string text(flag);
  std::replace(text.begin(), text.end(), '_', '-');
  while (!text.empty() && (text.back() == '.' || text.back() == '-'))
    text.pop_back();
  return text;
}

/// Help written for terminals carries colours, and their last letter would glue itself to a flag.
std::string without_colours(std::string_view text) {
  std::string plain;
  plain.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b' && i + 1 < text.size() && text[i + 1] == '[') {
      i += 2;
      while (i < text.size() && (text[i] < '@' || text[i] > '~'))
        ++i;
      plain += ' ';
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::set<std::string> flags_in(std::string_view help) {
  const auto text = without_colours(help);
  std::set<std::string> flags;
  for (std::size_t at = text.find("--"); at != std::string::npos; at = text.find("--", at)) {
    std::size_t end = at + 2;
    while (end < text.size() && is_flag_character(text[end]))
      ++end;
    const bool starts_word = at == 0 || (!is_letter(text[at - 1]) && text[at - 1] != '-');
    if (starts_word && end > at + 2 && is_letter(text[at + 2]))
      flags.insert(normalised(std::string_view(text).substr(at, end - at)));
    at = end;
  }
  return flags;
}

}  // namespace

std::vector<UnknownFlag> unknown_flags(const std::vector<std::string>& argv, std::string_view help) {
  const auto known = flags_in(help);
  if (known.empty()) return {};
  const std::vector<std::string> candidates(known.begin(), known.end());
  std::vector<UnknownFlag> unknown;
  for (std::size_t i = 1; i < argv.size(); ++i) {
    const std::string& word = argv[i];
    if (word == "--") break;
    if (!word.starts_with("--") || word.size() < 3 || !is_letter(word[2])) continue;
    const auto flag = std::string_view(word).substr(0, word.find('='));
    if (std::any_of(flag.begin(), flag.end(), [](char c) { return !is_flag_character(c); })) continue;  // a value
    const auto name = normalised(flag);
    if (known.contains(name) || known.contains(name.substr(0, name.find('.')))) continue;
    const auto near = nearest_names(name, candidates, 1);
    unknown.push_back({std::string(flag), near.empty() ? "" : near.front()});
  }
  return unknown;
}

}  // namespace gpumod
