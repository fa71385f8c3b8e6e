// What a user unit wrote, read from the systemd journal by the invocation: an old failure is never read as this run's.
//
// journald learns a line's unit, invocation, pid and user from the kernel while the writer lives. A process that prints
// one line and exits may be gone before journald looks, and its line carries less, down to the bare syslog identifier.
// Such lines are taken too, where what they carry and their time can only mean this run: they are the last words of a
// server that crashed. That holds only for the unit's latest run; of an older one, such lines are left out rather than
// guessed. A line that lost even its user lies in the system's journal, which other users than root may not be allowed
// to read.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/async.h"
#include "model/unit.h"

namespace gpumod {

/// Whether there is a journal of the system's that this user may not read: last words may lie in it. `root`: "/", or a
/// planted machine.
bool system_journal_is_hidden(const std::filesystem::path& root = "/");
/// What to do about that.
constexpr const char* see_system_journal =
    "sudo usermod -aG systemd-journal $USER; then log out of all sessions, and in again";

struct JournalQuery {
  std::string unit;
  std::string invocation;  ///< empty: the newest run the journal knows
  std::size_t limit = 100;
  /// Facts about this run, as far as the manager still knows them; they admit lines that lack the invocation.
  pid_t main_pid = 0;
  std::optional<WallTime> started;
  /// The run has ended: lines may still be under way to the journal, so reading waits (at most a second) until they are
  /// there; `failed`: systemd's own line about the failure, which it writes last, tells when.
  bool ended = false;
  bool failed = false;
};

/// Oldest first; systemd's own lines about the run included. Blocks: for a helper thread. Errors: environment with a
/// hint when the journal is not there or not readable; not_found when it holds no line of that run.
Result<std::vector<LogLine>> read_journal(const JournalQuery& query);

/// Calls back on the loop's thread for each line of the unit from now on, whatever its invocation. The journal is
/// opened on a helper thread; when that fails, one line says so. journald tells of new lines at most four times a
/// second; whoever cannot wait so long has it looked at every `lag`, which costs about a tenth of a millisecond a time.
Registration follow_journal(Loop& loop, const std::string& unit, std::function<void(const LogLine&)> callback,
                            Duration lag);

}  // namespace gpumod
