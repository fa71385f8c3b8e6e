// Carrying out what a doctor may mend by itself. It looks again before it touches anything: what was found may have
// changed while people read it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/async.h"
#include "base/result.h"
#include "verbs/doctor/check.h"

namespace gpumod {

/// `bus`: see host/login.h. Blocks. Errors: environment; refused, for what is not this user's, or became a link.
Result<void> carry_out(const Fix& fix, const std::string& bus);

/// One after the other, each with a deadline: what does not come back is said to be so, and keeps nothing else waiting.
/// [{"check","text","done","problem"}]
Task<boost::json::array> carry_out_all(Loop& loop, std::vector<Check> checks,
                                       std::function<Result<void>(const Fix&)> hand, Duration patience);

}  // namespace gpumod
