// switching/ — every decision of gpumod: what to do, in which order, and what to do when it goes wrong. Pure: values
// and time stamps in, values out. It knows base/, model/ and fit/; it must never know a clock, a file, a socket, D-Bus
// or an engine. The same code runs in production and in the simulator.
//
// plan(): from what is really there to what is wanted.
//
// Freeing (stop, unload, sleep) comes before taking (start, load, wake) on each GPU and each port, unless everything
// that is wanted fits beside what runs: then it starts first and stops afterwards, so that a failed start costs nobody
// their service. On one GPU at most one allocating step runs at a time, and none beside a freeing one: a vLLM that
// profiles while memory is freed aborts.
#pragma once

#include <set>

#include "base/result.h"
#include "model/plan.h"
#include "model/service.h"

namespace gpumod {

struct Knowledge {
  std::map<ServiceId, Service> services;
  Settings settings;
  /// Units whose services must be restarted whatever they look like: a probe or an unload has failed on them.
  std::set<std::string> distrusted;
  /// Services whose files are broken: what runs of them is left alone.
  std::set<ServiceId> broken;
};

/// Errors: refused (does not fit, port held by a stranger), environment (a GPU is needed and cannot be read),
/// configuration (a device that does not exist). Nothing has been touched then.
Result<Plan> plan(const Snapshot& snapshot, const Goal& goal, const Knowledge& knowledge);

/// What runs now, as a goal: what a rollback restores. Services of the catalogue that do not run are wanted stopped;
/// those that are alive but neither up nor asleep are left out.
Goal goal_from(const Snapshot& snapshot);

}  // namespace gpumod
