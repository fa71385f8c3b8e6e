// Modes as text: what `mode create` writes, and whether what `mode edit` brings back is sound.
#include <fmt/format.h>

#include "base/text.h"
#include "catalog/checks.h"

namespace gpumod {

namespace {

/// Double quotes with escapes hold any text, so no value can become a key, a comment or a number.
std::string in_quotes(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      (result += '\\') += c;
    else if (c == '\n')
      result += "\\n";
    else if (c == '\t')
      result += "\\t";
    else if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F)
      result += c;
  }
  return result + '"';
}

}  // namespace

std::string new_mode_text(const Mode& mode) {
  std::string text = "# A mode: services that run together. gpumod never rewrites this file; it is yours to edit.\n";
  text += fmt::format("id: {}\n", mode.id);
  text += fmt::format("name: {}\n", in_quotes(mode.name.empty() ? mode.id : mode.name));
  if (!mode.description.empty()) text += fmt::format("description: {}\n", in_quotes(mode.description));
  text += "\n# Ids from services/ or presets/.\n";
  if (mode.services.empty()) {
    text += "services: []\n";
  } else {
    text += "services:\n";
    for (const auto& id : mode.services)
      text += fmt::format("  - {}\n", id);
  }
  text += "\n# When a switch to it cannot finish: rollback (to what ran before), stay, or blank (stop everything).\n";
  text += fmt::format("on_failure: {}\n", to_string(mode.on_failure));
  return text;
}

std::vector<Problem> check_mode_text(const Catalog& catalog, std::string_view file_name, std::string_view text) {
  const std::string file = fmt::format("modes/{}", file_name);
  std::vector<Problem> problems;
  const auto document = parse_yaml(text);
  for (const auto& each : document.problems)
    problems.push_back({Severity::error, {file, each.line, each.column}, each.message, each.hint});
  if (!document.root || document.root->is_null()) {
    if (problems.empty()) problems.push_back({Severity::error, {file, 1, 1}, "the file is empty", "Write a mode."});
    return problems;
  }
  Surroundings around;
  const auto draft = read_mode_file(file, document.root, around, problems);
  check_mode(draft, catalog.services, catalog.service_faults, problems);
  const auto other = catalog.modes.find(draft.mode.id);
  if (other != catalog.modes.end() && other->second.source.file != file) {
    const auto* id = document.root->is_map() ? document.root->find("id") : nullptr;
    const auto& at = id ? *id->value : *document.root;
    problems.push_back({Severity::error,
                        {file, at.line, at.column},
                        fmt::format("the mode '{}' is already defined", draft.mode.id),
                        fmt::format("It stands at {}. Choose another id.", to_string(other->second.source))});
  }
  return problems;
}

}  // namespace gpumod
