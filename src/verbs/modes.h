// What several verbs make of a mode.
#pragma once

#include "catalog/catalog.h"
#include "model/snapshot.h"

namespace gpumod {

/// Its services run, and nothing else of ours.
Goal goal_of(const Mode& mode);

}  // namespace gpumod
