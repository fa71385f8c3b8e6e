// What the local supervisor and its shims tell each other, and how: all of it in files of the runtime directory, so
// that any number of gpumods can look at once, and one that dies takes nothing with it.
//
//   <runtime>/local/<unit>/        0700, kept for the log when the unit is gone
//     state.json                   replaced atomically by the shim; absent: it never ran, or was reset
//     log, log.1                   what the service wrote (local_log.h)
//     lock                         held by the shim as long as it lives: at most one shim a unit
//
// A state file is a claim, never proof. It names processes by pid and start time, and the boot they belong to, so one
// that a power cut left behind, or whose pid now belongs to somebody else, is not believed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/fd.h"
#include "base/result.h"
#include "base/time.h"

namespace gpumod::local {

/// The environment variables by which a process of ours is known even when its shim is gone.
inline constexpr const char* service_variable = "GPUMOD_SERVICE";
inline constexpr const char* home_variable = "GPUMOD_LOCAL";

/// One process for ever: a pid alone is reused.
struct ProcessKey {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;
  bool operator==(const ProcessKey&) const = default;
};

enum class Phase {
  starting,
  running,
  stop_command,  ///< `stop_argv` runs
  stop_sigterm,
  stop_sigkill,
  ended,
};

struct RunState {
  std::string unit;
  std::string tag;
  std::string boot;
  std::string invocation;
  ProcessKey shim;
  ProcessKey main;
  Phase phase = Phase::starting;
  std::string result = "success";  ///< as UnitStatus::result; meaningful when ended
  bool main_ended = false;
  bool killed_by_signal = false;
  int exit_code = 0;  ///< or the signal's number
  Duration stop_timeout = 20s;
};

/// What a shim is to run. It holds secrets: it travels through a memory file, never a directory or argv.
struct LaunchSpec {
  std::string unit;
  std::string tag;
  std::string invocation;
  std::filesystem::path directory;  ///< the unit's, see above
  std::vector<std::string> argv;
  std::vector<std::string> environment;  ///< complete: "NAME=value"
  std::filesystem::path working_directory;
  std::vector<std::string> stop_argv;
  Duration stop_timeout = 20s;
};

/// What the shim answers, once, when the program runs or cannot.
struct LaunchReport {
  enum class Kind {
    started,
    program_failed,  ///< the program could not be executed: a failed start of that service
    busy,            ///< a shim of that unit lives already
    failed,          ///< the shim itself could not do its work
  };
  Kind kind = Kind::failed;
  std::string message;
  std::string hint = {};
};

std::string to_text(const RunState& state);
std::string to_text(const LaunchSpec& spec);
std::string to_text(const LaunchReport& report);
Result<RunState> run_state_from(std::string_view text);
Result<LaunchSpec> launch_spec_from(std::string_view text);
Result<LaunchReport> launch_report_from(std::string_view text);

/// Errors: not_found where there is none.
Result<RunState> read_state(const std::filesystem::path& unit_directory);
/// On a full disk the old file is written over where it lies: there may be no room for a second one beside it.
Result<void> write_state(const std::filesystem::path& unit_directory, const RunState& state);

inline std::filesystem::path state_path(const std::filesystem::path& directory) {
  return directory / "state.json";
}
inline std::filesystem::path lock_path(const std::filesystem::path& directory) {
  return directory / "lock";
}

/// 32 random hexadecimal digits, as systemd's invocation ids.
std::string new_invocation();

/// True for a unit name that is a safe directory name: "NAME.service".
bool is_unit_name(std::string_view name);

}  // namespace gpumod::local
