// One file of services/, presets/ or modes/, or gpumod.yaml, already parsed: read by the tables, then checked in
// itself. What files say of each other is checks.h.
#pragma once

#include <string>
#include <vector>

#include "catalog/tables.h"

namespace gpumod {

struct ServiceDraft {
  Service service;
  Seen seen;  ///< where each key stands; points into `root`
  Yaml root;
  bool ok = false;

  /// The value of that key, or the service itself.
  const YamlNode& at(const std::string& key) const {
    const auto found = seen.find(key);
    return found == seen.end() ? *root : *found->second;
  }
};

struct ModeDraft {
  Mode mode;
  std::vector<Yaml> elements;  ///< of `services`, one for each id
  Yaml root;
  bool ok = false;
};

/// The services of a file: one, or those listed under `services:`. A broken one keeps the id that it would have had.
std::vector<ServiceDraft> read_service_file(const std::string& file, const Yaml& root, const Surroundings& around,
                                            std::vector<Problem>& problems);
ModeDraft read_mode_file(const std::string& file, const Yaml& root, const Surroundings& around,
                         std::vector<Problem>& problems);
/// `around.variables` is filled as soon as it is read, for what follows in the same file.
Settings read_settings_file(const std::string& file, const Yaml& root, Surroundings& around,
                            std::vector<Problem>& problems);

std::string stem_of(const std::string& file);  ///< "services/chat.yaml" → "chat"
bool is_loopback(std::string_view host);

}  // namespace gpumod
