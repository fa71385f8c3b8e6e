// Looking at everything: units, processes, GPUs, ports, and what each server says of itself.
#pragma once

#include <set>
#include <string>

#include "catalog/catalog.h"
#include "control/machine.h"
#include "model/snapshot.h"

namespace gpumod {

/// How long one server may take to say how it is. Servers are asked beside each other: a wedged one costs this once.
constexpr Duration observe_timeout = 2s;

/// Errors: environment when the unit manager cannot be reached. GPUs that cannot be read are in the snapshot's
/// gpu_problem.
Task<Result<Snapshot>> observe(Machine& machine, const Catalog& catalog, SurveyDepth depth = SurveyDepth::presence);

/// Whose the processes are: every one of a unit of ours, and those on these GPUs that are of a container which a service
/// declares. Errors: environment when the unit manager cannot be reached.
Task<Result<std::map<pid_t, std::string>>> units_of_processes(Machine& machine, const Catalog& catalog,
                                                              std::vector<GpuSample> gpus);

/// Units, GPUs and the processes on them: all that the ledger needs. No server is asked and no port looked at, so that
/// it can be done again and again; `services` and `ports` stay empty. Errors: as above.
Task<Result<Snapshot>> observe_memory(Machine& machine, const Catalog& catalog,
                                      SurveyDepth depth = SurveyDepth::presence);

/// The containers that services of this unit declare, by their ids. Empty where there are none, or nobody knows them.
Task<std::set<std::string>> containers_of(const Catalog& catalog, std::string unit);

}  // namespace gpumod
