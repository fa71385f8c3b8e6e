#include "catalog/arguments.h"

#include <fmt/format.h>

namespace gpumod {

Result<std::vector<std::string>> split_arguments(std::string_view text) {
  std::vector<std::string> arguments;
  std::string current;
  bool inside = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      if (std::exchange(inside, false)) arguments.push_back(std::exchange(current, {}));
      continue;
    }
    if (c == '\\') {
      if (i + 1 == text.size())
        return fail(ErrorCode::configuration, "the text ends in a backslash", "Write \\\\ for a backslash.");
      if (text[++i] == '\n') continue;
      inside = true;
      current += text[i];
      continue;
    }
    inside = true;
    if (c != '\'' && c != '"') {
      current += c;
      continue;
    }
    const std::size_t opening = i;
    for (++i; i < text.size() && text[i] != c; ++i) {
      if (c == '"' && text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '"' || text[i + 1] == '\\')) ++i;
      current += text[i];
    }
    if (i >= text.size())
      return fail(ErrorCode::configuration,
                  fmt::format("a quote ({}) opens at character {} and never ends", c, opening + 1),
                  "Close it, or write the arguments as a list.");
  }
  if (inside) arguments.push_back(std::move(current));
  return arguments;
}

}  // namespace gpumod
