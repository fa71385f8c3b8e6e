// Units as values: what to start, and what a unit manager says of one. Both managers, systemd and local, speak this.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "base/time.h"
#include "model/secret.h"
#include "model/service.h"

namespace gpumod {

/// A unit of ours to be started: a transient unit under systemd, a shim under the local supervisor.
struct UnitSpec {
  std::string name;  ///< "gpumod-chat.service"
  std::string tag;   ///< the value of GPUMOD_SERVICE: the service's or router's id
  std::string description;
  std::vector<std::string> argv;              ///< argv[0] is absolute
  std::map<std::string, Secret> environment;  ///< reaches the process through a 0600 file, never a property or argv
  std::filesystem::path working_directory;    ///< empty: the manager's default
  std::vector<std::string> stop_argv;         ///< run first when stopping; empty: just SIGTERM
  Duration stop_timeout = 20s;                ///< SIGTERM to SIGKILL
};

enum class ActiveState { inactive, activating, active, deactivating, failed, unknown };
std::string_view to_string(ActiveState state);

struct UnitStatus {
  std::string name;
  bool exists = false;     ///< the manager knows a unit of that name: a fragment, a transient unit, a shim
  bool transient = false;  ///< ours to create: no fragment file behind it
  std::string fragment;    ///< path of the unit file, if there is one
  ActiveState active = ActiveState::inactive;
  std::string sub_state;  ///< "running", "auto-restart", "dead" …
  std::string result;     ///< "success", "exit-code", "signal", "oom-kill", "start-limit-hit" …
  int exit_code = 0;      ///< meaningful when it ended; the signal's number if a signal ended it
  bool killed_by_signal = false;
  pid_t main_pid = 0;
  unsigned restarts = 0;
  std::string invocation;              ///< id of this run, "" if it never ran
  std::string control_group;           ///< "/user.slice/…"; empty when inactive or under local
  std::uint64_t control_group_id = 0;  ///< the kernel's number of that cgroup while it exists, never used again; or 0
  std::string tag;                     ///< GPUMOD_SERVICE of its environment; "" if none
  std::vector<pid_t> pids;             ///< every process in it, descendants and survivors included

  bool gone() const { return (active == ActiveState::inactive || active == ActiveState::failed) && pids.empty(); }
  bool restarting() const { return sub_state == "auto-restart" || sub_state == "auto-restart-queued"; }
};

/// How its last run ended, in plain words: "it ended with exit code 3". Only for a unit that has ended.
std::string how_it_ended(const UnitStatus& unit);

/// How a job of the unit manager ended.
struct JobOutcome {
  bool ok = false;
  std::string result;  ///< "done", "failed", "canceled", "timeout", "dependency", "skipped"
};

/// In plain words, of a start job that did not go well.
std::string why_not_started(const JobOutcome& job);

struct LogLine {
  WallTime time;
  std::string text;
  std::string invocation = {};  ///< the run that wrote it, where that is known; "" otherwise
};

}  // namespace gpumod
