// The order in which a quality run switches modes. Pure.
#pragma once

#include <vector>

#include "model/service.h"

namespace gpumod {

/// Every ordered pair of modes once, beginning and ending with `start`, which is one of them: an Eulerian circuit of the
/// complete directed graph, and so the shortest there is. With one mode, that mode twice: it is verified.
std::vector<ModeId> every_transition(const std::vector<ModeId>& modes, const ModeId& start);

/// What to switch to, one after the other, to go through `sequence` so many times. `at`: the mode that runs, "" for none;
/// the way to the sequence's first mode is part of it, and so is the way from its last mode to its first between rounds.
std::vector<ModeId> targets_of(const std::vector<ModeId>& sequence, const ModeId& at, int rounds);

}  // namespace gpumod
