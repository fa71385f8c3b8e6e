// The quality runs that are kept: one JSON file each in the state directory, so that a report can be read, copied and
// compared without gpumod. The newest 50 stay, and no more than 64 MiB of them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <boost/json.hpp>

#include "base/paths.h"
#include "base/result.h"

namespace gpumod {

/// Gives the run its "id", writes it, and lets the oldest go. For the holder of the mutation lock. Errors: environment.
Result<std::int64_t> keep_run(const Paths& paths, boost::json::object& run);

/// The ids of those that are kept, the newest first.
std::vector<std::int64_t> kept_runs(const Paths& paths);

/// `name`: an id, "last", or the path of a report's JSON file. Errors: not_found; failed when it is no run.
Result<boost::json::value> load_run(const Paths& paths, const std::string& name);

/// The newest that went through the same sequence, cancelled ones left out; nothing where there is none.
std::optional<boost::json::value> last_of_sequence(const Paths& paths, const boost::json::array& sequence);

}  // namespace gpumod
