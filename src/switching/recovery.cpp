#include "switching/recovery.h"

#include <fmt/format.h>

namespace gpumod {

namespace {

/// "mode switch to rag", "service stop chat". What changes single services bears the mode's name as well, but is not about
/// the mode.
std::string in_words(const JournaledSwitch& journal) {
  std::string words = journal.kind;
  if (journal.goal.exclusive) {
    if (!journal.goal.mode.empty()) words += " to " + journal.goal.mode;
  } else {
    for (const auto& [id, residency] : journal.goal.wanted)
      words += " " + id;
  }
  return words;
}

Recovery judge(const JournaledSwitch& journal, const Boot& boot, const std::string& what) {
  const bool rebooted = !boot.id.empty() && !journal.boot_id.empty() && boot.id != journal.boot_id;
  if (!journal.mutated)
    return {RecoveryDirection::discard, journal.previous,
            fmt::format("{} was interrupted before it changed anything: it counts for nothing", what), what};
  if (rebooted && boot.policy == BootPolicy::blank)
    return {RecoveryDirection::blank, Goal{"", {}, true},
            fmt::format("{} was interrupted by a reboot: nothing is to run (boot: blank)", what), what};
  if (rebooted && boot.policy == BootPolicy::nothing)
    return {RecoveryDirection::discard, journal.previous,
            fmt::format("{} was interrupted by a reboot: it counts for nothing (boot: nothing)", what), what};
  const auto rebooted_since = rebooted ? ", and the machine was rebooted since" : "";
  if (journal.failed)
    return {RecoveryDirection::back, journal.previous,
            fmt::format("{} was interrupted while it was being rolled back ({}){}: what ran before is to be restored",
                        what, journal.failure, rebooted_since),
            what};
  return {RecoveryDirection::forward, journal.goal,
          fmt::format("{} was interrupted half-way{}: it is to be finished", what, rebooted_since), what};
}

}  // namespace

Recovery recover(const JournaledSwitch& journal, const Boot& boot) {
  return judge(journal, boot, fmt::format("switch {} ({})", journal.id, in_words(journal)));
}

}  // namespace gpumod
