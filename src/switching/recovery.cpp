#include "switching/recovery.h"

#include <fmt/format.h>

namespace gpumod {

Recovery recover(const JournaledSwitch& journal, const Boot& boot) {
  const bool rebooted = !boot.id.empty() && !journal.boot_id.empty() && boot.id != journal.boot_id;
  const auto what = fmt::format("switch {} ({}{}{})", journal.id, journal.kind, journal.goal.mode.empty() ? "" : " to ",
                                journal.goal.mode);
  if (!journal.mutated)
    return {RecoveryDirection::discard, journal.previous,
            fmt::format("{} was interrupted before it changed anything: it counts for nothing", what)};
  if (rebooted && boot.policy == BootPolicy::blank)
    return {RecoveryDirection::blank, Goal{"", {}, true},
            fmt::format("{} was interrupted by a reboot: nothing is to run (boot: blank)", what)};
  if (rebooted && boot.policy == BootPolicy::nothing)
    return {RecoveryDirection::discard, journal.previous,
            fmt::format("{} was interrupted by a reboot: it counts for nothing (boot: nothing)", what)};
  const auto rebooted_since = rebooted ? ", and the machine was rebooted since" : "";
  if (journal.failed)
    return {RecoveryDirection::back, journal.previous,
            fmt::format("{} was interrupted while it was being rolled back ({}){}: what ran before is to be restored",
                        what, journal.failure, rebooted_since)};
  return {RecoveryDirection::forward, journal.goal,
          fmt::format("{} was interrupted half-way{}: it is to be finished", what, rebooted_since)};
}

}  // namespace gpumod
