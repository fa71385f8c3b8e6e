// Environment files: NAME=VALUE lines, blank lines, comments (# first in the line), an optional `export `, and values
// in '…' (as they stand) or "…" (where \" \\ \$ and \n are escapes). Nothing is expanded, and a # inside a value
// belongs to it. The values are secrets: no message here ever shows one.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace gpumod {

struct EnvironmentLines {
  std::map<std::string, std::string> values;
  struct Complaint {
    int line = 0;
    std::string message;
  };
  std::vector<Complaint> complaints;
};

EnvironmentLines parse_environment_file(std::string_view text);

/// [A-Za-z_][A-Za-z0-9_]*
bool is_variable_name(std::string_view name);

/// Of a variable or an option, whatever its case: HF_TOKEN, --api-key, db_password. Not MAX_TOKENS, not API_KEY_FILE.
bool names_a_secret(std::string_view name);

}  // namespace gpumod
