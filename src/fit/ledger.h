// Who holds the GPUs' memory (model/ledger.h), from what was seen and what is wanted.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "model/ledger.h"
#include "model/snapshot.h"

namespace gpumod {

/// One a GPU, in NVML's order; none while the GPUs cannot be read. `goal`: with everything that a change under way is
/// about to start, or that would be called an orphan until the change is done.
std::vector<GpuLedger> ledgers_of(const Snapshot& snapshot, const std::map<ServiceId, Service>& services,
                                  const std::optional<Goal>& goal);

/// The same figures where nobody asks who holds what: clamped to what can be true.
Account account_of(const GpuMemory& memory);

}  // namespace gpumod
