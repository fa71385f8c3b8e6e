// What the program knows about itself and the catalogue without touching the machine: for documentation, editors and
// shell completion.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/paths.h"
#include "base/result.h"
#include "verbs/verb.h"

namespace gpumod {

/// docs/configuration.md
std::string configuration_reference();
/// `kind`: service, mode or settings. Errors: not_found.
Result<std::string> configuration_schema(std::string_view kind);

struct KnownName {
  std::string id;
  std::string name;  ///< for people; may be empty
};
/// The ids of the catalogue and of registered models, files only; nothing when it cannot be read. Never fails.
std::vector<KnownName> known_names(const Paths& paths, Parameter::Names which);

}  // namespace gpumod
