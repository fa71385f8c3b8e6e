// Looking at the models that services load. Any of them may lie on a disk that never answers: which disk a model is on is
// decided before anything of it is touched, each disk is looked at by one thread, and once it is late nothing more is
// asked of it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/async.h"
#include "control/additions.h"
#include "verbs/doctor/facts.h"
#include "verbs/walk.h"

namespace gpumod {

/// A service that names a model, and where that would be.
struct ModelToFind {
  Service service;
  Additions added;
  std::filesystem::path near;  ///< the model, or the folder that it is somewhere below
  MountTable::Mount on = {};   ///< "" for its point: not known
};

/// Nothing of any model is touched.
std::vector<ModelToFind> models_to_find(const Catalog& catalog, const std::filesystem::path& home,
                                        const MountTable& mounts);

/// Nothing where the engine alone knows what the service loads. Blocks.
using LookForModel = std::function<std::optional<WeightsFacts>(const ModelToFind&)>;
LookForModel look_for_model(std::filesystem::path home, std::filesystem::path root);

/// One entry a place, with all services that load from it. `patience`: with one model; with a disk, three times that.
Task<std::vector<WeightsFacts>> find_models(Loop& loop, std::vector<ModelToFind> wanted, LookForModel look,
                                            Duration patience);

}  // namespace gpumod
