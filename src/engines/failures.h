// The reader of the failure catalogue (failure_tables.h): which cause a log shows, and whether a line proves a start lost
// before its process has ended.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engines/failure_tables.h"

namespace gpumod {

/// The signatures that may appear in a log of this engine, the special before the general.
std::vector<const FailureSignature*> signatures_of(EngineKind engine);

/// The captured holes if the pattern occurs in the line.
std::optional<std::vector<std::string>> match_pattern(std::string_view pattern, std::string_view line);

/// The first cause. A line that a signature knows wins; else the first line that reads like an exception (Python) or an
/// error (llama.cpp), with kind unknown. Warnings are passed over: what was only warned of was survived.
FailureCause first_cause(EngineKind engine, const std::vector<LogLine>& log);

/// Set when this line alone proves that the start is lost, whatever its process still does.
std::optional<FailureCause> conclusive_cause(EngineKind engine, std::string_view line);

}  // namespace gpumod
