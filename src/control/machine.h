// control/ — the director: it carries out what switching/ decides, on the machine of host/, in the terms of engines/,
// and feeds back what happened. It makes no decisions of its own. One writer at a time: whoever holds the mutation
// lock. It knows every room above it; it must never know who asked, a terminal, a request's origin, or how answers are
// shown.
//
// Machine: everything of host/ that an operation needs, opened once.
#pragma once

#include <memory>
#include <optional>

#include "base/async.h"
#include "base/paths.h"
#include "host/gpu_monitor.h"
#include "host/http_client.h"
#include "host/unit_manager.h"
#include "model/service.h"

namespace gpumod {

struct Machine {
  Loop* loop = nullptr;
  Paths paths;
  std::unique_ptr<UnitManager> units;
  std::unique_ptr<GpuMonitor> gpus;  ///< null: see gpu_problem
  std::optional<Error> gpu_problem;
  std::unique_ptr<HttpClient> http;
};

/// no: the driver is left alone, because it is known not to answer; gpu_problem says so.
enum class WithGpus { yes, no };

/// Connects to the unit manager that the settings (or GPUMOD_UNIT_MANAGER) name, and to NVML if it is there.
/// Errors: environment when there is no unit manager. A missing NVML is no error: it is remembered.
Result<Machine> open_machine(Loop& loop, const Paths& paths, const Settings& settings, WithGpus gpus = WithGpus::yes);

/// Creates the runtime directory (0700) and refuses one that somebody else could have made.
Result<void> ensure_runtime_directory(const Paths& paths);

}  // namespace gpumod
