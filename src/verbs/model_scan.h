// Looking through a folder for models: GGUF files (of a series only the whole one), with the projectors that belong to
// them, and folders as Hugging Face lays them out. Bounded as walk.h is; what is left out is told, with its reason.
#pragma once

#include <string>
#include <vector>

#include "verbs/model_registry.h"
#include "verbs/walk.h"

namespace gpumod {

struct ScannedModels {
  std::vector<ModelEntry> models;  ///< by path; each can be read
  struct LeftOut {
    std::filesystem::path path;
    std::string why;
  };
  std::vector<LeftOut> left_out;
  std::vector<std::filesystem::path> avoided;  ///< folders on the network, or of the kernel
  bool cut_short = false;                      ///< there may be more
};

/// Blocks. Errors: not_found, usage when it is no folder, environment when it may not be read.
Result<ScannedModels> scan_for_models(const std::filesystem::path& folder, const std::filesystem::path& home,
                                      const MountTable& mounts, const WalkLimits& limits);

}  // namespace gpumod
