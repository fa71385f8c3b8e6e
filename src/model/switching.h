// The language between the switch, which decides, and the director, which acts: commands out, events in. Both carry
// (step, attempt), so that a late event never hits a retry.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "base/time.h"
#include "model/plan.h"

namespace gpumod {

/// How a switch ended. `running`: the caller left before it did.
enum class SwitchResult { committed, rolled_back, failed, refused, unchanged, cancelled, running };
std::string_view to_string(SwitchResult result);

struct Command {
  enum class Kind {
    observe,        ///< look at everything → observed
    preflight,      ///< could `services` be started at all? → preflight_ok | preflight_failed
    check_memory,   ///< wait until our own memory has stopped moving, then compare free with `need` → memory_ok |
                    ///< memory_short
    start_unit,     ///< → job_done | job_failed
    stop_unit,      ///< → job_done | job_failed
    kill_unit,      ///< SIGKILL to every process of it → job_done | job_failed
    prove_release,  ///< cgroup empty, pids ended, NVML lists none → released | survived
    /// The unit lives on: until it holds at most `ceiling` on each GPU → released | survived; not_ready when it has ended.
    prove_fall,
    load_model,  ///< ask the router → job_done | job_failed
    unload_model,
    sleep_service,
    wake_service,
    /// → ready | not_ready. For what starts or loads, `deadline` is when patience ends with one that shows no sign of
    /// life; one that does gets up to three times as long, and one that is stuck is given up earlier.
    await_ready,
    await_residency,  ///< until the service is in `target` → ready | not_ready; `unloaded` is also whose router has ended
    verify,           ///< listener, model, probe → verified | not_verified
    abandon,          ///< give up waiting in this step: its event comes as not_ready with `abandoned`
    record_failure,  ///< journal that the way forward is given up, before anything is undone
    finish,          ///< the switch has ended; `text` says why
  };
  Kind kind = Kind::observe;
  int step = -1;
  int attempt = 1;
  ServiceId service;
  std::vector<ServiceId> services;  ///< preflight
  std::string unit;
  std::vector<GpuIndex> gpus;
  std::map<GpuIndex, Bytes> need;     ///< check_memory: bytes that must be free on each GPU, the margin included
  std::map<GpuIndex, Bytes> ceiling;  ///< prove_fall: the most that the unit may still hold on each GPU
  Residency target = Residency::running;
  TimePoint deadline = TimePoint::max();
  SwitchResult result = SwitchResult::committed;
  std::string text;

  /// True for commands that change the world: their journal row must be durable before they are issued.
  bool mutates() const;
};
std::string_view to_string(Command::Kind kind);

struct Event {
  enum class Kind {
    observed,
    preflight_ok,
    preflight_failed,
    memory_ok,
    memory_short,
    job_done,
    job_failed,
    released,
    survived,
    ready,
    not_ready,
    verified,
    not_verified,
    not_journaled,  ///< the command was not issued: its row could not be written
    cancel_requested,
  };
  Kind kind = Kind::observed;
  int step = -1;
  int attempt = 1;
  /// Why, in words, for the negative ones; the probe's answer for verified; what was waited for, for memory_ok ("":
  /// nothing).
  std::string text;
  std::string remedy;                ///< what to do about it, when the failure catalogue knows
  std::string log_line;              ///< the log line that says so
  std::vector<std::string> log;      ///< of a start that failed: that line and the last ones; printable
  bool transient = false;            ///< worth another attempt
  bool abandoned = false;            ///< it ended because of an `abandon`
  pid_t main_pid = 0;                ///< verified, and a proven fall: the unit's main process then; 0: unknown
  std::optional<Snapshot> snapshot;  ///< observed
  std::optional<Error> error;        ///< preflight_failed, not_journaled, and observed without a snapshot
};
std::string_view to_string(Event::Kind kind);

/// One line of the report, also used while it runs.
struct StepReport {
  int step = 0;
  Action action = Action::verify;
  std::string subject;
  ServiceId service;
  std::string unit;
  /// "pending", "running", "done", "failed", "skipped"; "cancelled": given up, because the switch was taken back.
  std::string result;
  std::string stage;                 ///< what it is doing: "stopping", "waiting for the model" …
  std::string note;                  ///< the probe's answer, or the cause of the failure
  std::vector<std::string> earlier;  ///< what went wrong on the way and was dealt with: failed attempts, survivors
  std::string remedy;
  std::string log_line;
  int attempts = 0;
  bool undo = false;  ///< part of a rollback
  std::optional<TimePoint> began;
  std::optional<TimePoint> ended;
};

}  // namespace gpumod
