#include "control/additions.h"

#include <algorithm>

namespace gpumod {

namespace {

bool is_option(std::string_view word, OptionNames names) {
  std::string name(word.substr(0, word.find('=')));
  if (name.starts_with("--")) std::replace(name.begin(), name.end(), '_', '-');
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

Additions additions_of(const Catalog& catalog, const Service& service) {
  Service whole = service;
  inherit(catalog, whole);
  Additions added{whole.added_words(), std::move(whole.inherited_environment)};
  for (const auto& [name, value] : service.environment)
    added.environment.insert_or_assign(name, value);
  return added;
}

bool has_option(const std::vector<std::string>& words, OptionNames names) {
  return std::any_of(words.begin(), words.end(), [&](const std::string& word) { return is_option(word, names); });
}

std::optional<std::string> option_value(const std::vector<std::string>& words, OptionNames names) {
  for (std::size_t i = words.size(); i-- > 0;) {
    if (!is_option(words[i], names)) continue;
    if (const auto equals = words[i].find('='); equals != std::string::npos) return words[i].substr(equals + 1);
    if (i + 1 < words.size()) return words[i + 1];
  }
  return std::nullopt;
}

}  // namespace gpumod
