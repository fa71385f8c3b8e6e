// What each unit of ours was launched with, so that a change of people's files is noticed while their services run: a
// fingerprint of the command line, the environment, the working directory, the port and the GPUs that the file asks for,
// in a file of the runtime directory beside what the local supervisor keeps. It names the process by pid, start time and
// boot, so it is never believed of another run. What is only about planning (vram:, timeouts, probes) is not in it, nor
// what changes by itself: where PATH finds a program, on which GPU a service was placed. Of a unit of people's own it is
// of its unit file and their additions.
#pragma once

#include <optional>
#include <string>

#include "base/paths.h"
#include "catalog/catalog.h"
#include "model/unit.h"

namespace gpumod {

/// What would be launched as `unit` now. Unset: nothing (nobody defines it, its services cannot be launched together, or
/// it is people's own and its file is not found).
std::optional<std::string> launch_fingerprint(const Paths& paths, const Catalog& catalog, const std::string& unit);

/// Once it was started by this catalogue. What goes wrong is logged: then nothing is known of it.
void remember_launch(const Paths& paths, const Catalog& catalog, const UnitStatus& unit);

/// It runs, and the catalogue would launch something else as it. False where nothing is known.
bool is_outdated(const Paths& paths, const Catalog& catalog, const UnitStatus& unit);

}  // namespace gpumod
