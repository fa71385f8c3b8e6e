// Carrying out what a doctor may mend by itself. It looks again before it touches anything: what was found may have
// changed while people read it.
#pragma once

#include <string>

#include "base/result.h"
#include "verbs/doctor/check.h"

namespace gpumod {

/// `bus`: see host/login.h. Blocks. Errors: environment; refused, for what is not this user's, or became a link.
Result<void> carry_out(const Fix& fix, const std::string& bus);

}  // namespace gpumod
