// Who is on the way up does not hold yet what it will: its memory is free to see, and not free to have. Whoever counts
// with free memory asks here. Pure.
#pragma once

#include <string>
#include <vector>

#include "base/units.h"
#include "model/footprint.h"
#include "model/service.h"
#include "model/snapshot.h"

namespace gpumod {

/// What a unit, of which a service is starting, will still take of this GPU; `members`: the services in it, one at least.
/// Nothing where none is starting, or none of it goes there. Unset: nobody knows how much, or on which of several GPUs.
std::optional<Bytes> still_to_take(const Snapshot& snapshot, const std::string& unit,
                                   const std::vector<const Service*>& members, const Footprints& known,
                                   const GpuSample& gpu);

}  // namespace gpumod
