// The local supervisor with its parts exposed; everybody else uses open_local_supervisor of unit_manager.h.
#pragma once

#include "host/unit_manager.h"

namespace gpumod::local {

/// `shim_command` is what starts a shim, the unit's name being added: {program, "shim"}. The program is an absolute
/// path.
Result<std::unique_ptr<UnitManager>> open_supervisor(Loop& loop, const Paths& paths,
                                                     std::vector<std::string> shim_command);

}  // namespace gpumod::local
