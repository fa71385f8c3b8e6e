// Where the model of a service lies: in a file or folder of its own, in a router's folder, in the hub's cache. Whoever
// wants to know asks here: what preflight finds, lists and estimates must speak of the same files.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "control/additions.h"
#include "model/service.h"

namespace gpumod {

struct ModelPlace {
  std::filesystem::path path;      ///< where it is, or would have to be; empty: in the hub's cache, and not there
  std::string hub_id;              ///< set: the service names it by its id on the hub
  std::filesystem::path hub_root;  ///< the cache that counts for this service
  bool may_download = false;       ///< HF_HUB_OFFLINE=0: the service fetches it by itself
};

/// Where a disk may not answer, only what needs no look at it: of a router the model's file, of the hub its cache.
enum class Touch { files, nothing };

/// Nothing when the service names no model that could be looked for, or when its arguments name one in a way that only
/// its engine understands.
std::optional<ModelPlace> place_of_model(const Service& service, const Additions& added,
                                         const std::filesystem::path& home, Touch touch = Touch::files);

/// What its engine would read facts from: of a router's folder, its first GGUF file. Empty where only its engine knows.
std::filesystem::path model_path_of(const Service& service, const Additions& added, const std::filesystem::path& home);

/// The hub's cache, by these variables and, for what they leave open, by ours.
std::filesystem::path hub_root_of(const std::map<std::string, Secret>& environment, const std::filesystem::path& home);

/// The snapshot of a model in the hub's cache that servers would load: that of refs/main, else any that holds a
/// config.json, else any; empty when there is none.
std::filesystem::path hub_snapshot(const std::string& id, const std::filesystem::path& root);

}  // namespace gpumod
