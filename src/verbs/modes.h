// What several verbs make of a mode.
#pragma once

#include "verbs/context.h"

namespace gpumod {

/// Its services run, and nothing else of ours.
Goal goal_of(const Mode& mode);
/// A switch to it.
Context::Order order_of(const Mode& mode);

}  // namespace gpumod
