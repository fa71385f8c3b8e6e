// host/ — the machine: unit managers, GPUs, processes, sockets, HTTP. Every touch of the operating system goes through
// an interface of this room, so that tests can stand a fake behind the same seam.
// It knows base/ and model/; it must never know engines, modes, goals or why something is started or stopped.
//
// UnitManager is the seam in front of whatever runs processes for us: the systemd user manager over D-Bus, or the local
// supervisor with one shim per service. All members run on the Loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/async.h"
#include "base/paths.h"
#include "model/unit.h"

namespace gpumod {

/// How much is asked of a unit that is named and runs. `presence`: that it runs, its main process and all others; its
/// restarts, invocation, fragment and tag may be left out. Everything is told of all other units.
enum class SurveyDepth { presence, everything };

class UnitManager {
 public:
  virtual ~UnitManager() = default;

  virtual std::string_view kind() const = 0;  ///< "systemd" or "local"

  /// The status of each named unit (exists == false where there is none), and of every other unit that is ours by its
  /// environment (GPUMOD_SERVICE) or its name (gpumod-*.service). gpumod.service and gpumod.socket are never listed.
  /// `pids` is filled. Errors: environment when the manager cannot be reached.
  virtual Task<Result<std::vector<UnitStatus>>> survey(std::vector<std::string> names, SurveyDepth depth) = 0;
  virtual Task<Result<UnitStatus>> status(std::string name) = 0;
  /// GPUMOD_SERVICE of a process that descends from a unit of this manager, wherever it is now; "" for every other
  /// process, and for one whose environment we may not read.
  virtual std::string mark_of(pid_t pid) const = 0;

  /// Creates and starts a unit of ours. A failed unit of that name is reset first. If a fragment (a unit file) of that
  /// name exists, that is started instead and `used_fragment` of the outcome says so. Returns when the job is done,
  /// which says nothing about readiness.
  struct StartOutcome {
    JobOutcome job;
    bool used_fragment = false;
    std::string invocation;
  };
  virtual Task<Result<StartOutcome>> start(UnitSpec spec) = 0;
  /// Starts people's own unit as it is (after reset-failed, if it had failed).
  virtual Task<Result<StartOutcome>> start_existing(std::string name) = 0;
  /// Stops and returns when the manager's job is done. A unit that is not there is stopped: ok.
  virtual Task<Result<JobOutcome>> stop(std::string name) = 0;
  /// Sends a signal to every process of the unit.
  virtual Task<Result<void>> kill(std::string name, int signal) = 0;
  virtual Task<Result<void>> reset_failed(std::string name) = 0;
  /// Reads unit files anew, after one was written or removed. Nothing to do where there are none.
  virtual Task<Result<void>> reload() = 0;

  /// Waits until no process of the unit is left: cgroup empty and every pid of `pids` ended. Event driven
  /// (cgroup.events, pidfds). Returns the pids that are still alive at the deadline; empty means proven gone.
  virtual Task<Result<std::vector<pid_t>>> wait_gone(std::string name, std::vector<pid_t> pids, TimePoint deadline) = 0;

  /// Calls back on the loop's thread whenever the unit's active state, sub state, result or restart count changes.
  virtual Registration on_change(const std::string& name, std::function<void(const UnitStatus&)> callback) = 0;

  /// The last `limit` lines that this run of the unit wrote, oldest first. `invocation` empty: the newest run.
  virtual Task<Result<std::vector<LogLine>>> log_tail(std::string name, std::string invocation, std::size_t limit) = 0;
  /// Follows the log: calls back for each new line until the registration goes. Where the log itself tells of new lines
  /// late (journald: four times a second), it is also looked at every `lag`.
  virtual Result<Registration> follow_log(const std::string& name, std::function<void(const LogLine&)> callback,
                                          Duration lag = 1s) = 0;
};

/// The systemd user manager. Errors: environment with a hint (no bus, no user manager, lingering off).
Result<std::unique_ptr<UnitManager>> connect_systemd(Loop& loop, const Paths& paths);

/// The local supervisor: `gpumod shim` per service, state under paths.runtime / "local". Works everywhere.
Result<std::unique_ptr<UnitManager>> open_local_supervisor(Loop& loop, const Paths& paths);

}  // namespace gpumod
