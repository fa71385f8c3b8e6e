// Where the model of a service lies: in a file or folder of its own, in a router's folder, in the hub's cache.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "model/service.h"

namespace gpumod {

struct ModelPlace {
  std::filesystem::path path;      ///< where it is, or would have to be; empty: in the hub's cache, and not there
  std::string hub_id;              ///< set: the service names it by its id on the hub
  std::filesystem::path hub_root;  ///< the cache that counts for this service
  bool may_download = false;       ///< HF_HUB_OFFLINE=0: the service fetches it by itself
};

/// Nothing when the service names no model that could be looked for.
std::optional<ModelPlace> place_of_model(const Service& service, const std::filesystem::path& home);

/// The snapshot of a model in the hub's cache that servers would load: that of refs/main, else any that holds a
/// config.json, else any; empty when there is none.
std::filesystem::path hub_snapshot(const std::string& id, const std::filesystem::path& root);

}  // namespace gpumod
