// From what was found on a machine to a first configuration: the texts of new files, in people's words, and advice.
// Pure but for names: it writes nothing and looks at nothing.
//
// It proposes only what is not there yet: a model that some service serves already, a unit that is adopted already, an
// id or a port that is taken are left alone.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "catalog/catalog.h"
#include "verbs/context.h"
#include "verbs/discover.h"
#include "verbs/handlers.h"

namespace gpumod {

/// What the proposal stands on, beside the findings.
struct Ground {
  const Catalog* catalog = nullptr;
  std::function<bool(const std::string& relative)> exists;  ///< is there such a file below the configuration directory?
  std::string unit_manager = "systemd";                     ///< "systemd" or "local"
  std::optional<int> gpus;                                  ///< unset: no NVML
  std::optional<Bytes> largest_gpu;
  std::set<std::uint16_t> busy_ports;
  std::string settings_file = "gpumod.yaml";  ///< for advice: where it is
};

struct ProposedFile {
  std::string path;  ///< below the configuration directory: "services/chat.yaml"
  std::string text;
};

struct Proposal {
  std::vector<ProposedFile> files;
  std::vector<std::string> advice;
};

Proposal propose(const Findings& findings, const Ground& ground);

/// A YAML scalar that the catalogue reads as this text, dollars included.
std::string yaml_text(std::string_view text);
/// An id made of a file's name: "Qwen3-8B Q4_K_M" → "qwen3-8b-q4_k_m". Always valid.
std::string id_from(std::string_view stem);

/// The verb, with the places to look at as a value.
Answer initialise(Context& context, Places places, bool apply);

}  // namespace gpumod
