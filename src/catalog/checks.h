// What files say of each other: two services on one unit, members of one router that disagree, modes that name what is
// not there. The first by order of files stands; what contradicts it is broken.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "catalog/service_file.h"

namespace gpumod {

/// Marks drafts that contradict an earlier, sound one: `ok` becomes false.
void check_services(std::vector<ServiceDraft>& drafts, std::vector<Problem>& problems);

/// A mode against the services that stand. `broken` gives for an id the place of the problem that broke it.
/// True when the mode can be used.
bool check_mode(const ModeDraft& draft, const std::map<ServiceId, Service>& services,
                const std::map<ServiceId, SourceLocation>& broken, std::vector<Problem>& problems);

}  // namespace gpumod
