#include "switching/recovery.h"

#include <fmt/format.h>

namespace gpumod {

Recovery recover(const JournaledSwitch& journal) {
  const auto what = fmt::format("switch {} ({}{}{})", journal.id, journal.kind, journal.goal.mode.empty() ? "" : " to ",
                                journal.goal.mode);
  if (!journal.mutated)
    return {RecoveryDirection::discard, journal.previous,
            fmt::format("{} was interrupted before it changed anything: it counts for nothing", what)};
  if (journal.failed)
    return {RecoveryDirection::back, journal.previous,
            fmt::format("{} was interrupted while it was being rolled back ({}): what ran before is to be restored",
                        what, journal.failure)};
  return {RecoveryDirection::forward, journal.goal,
          fmt::format("{} was interrupted half-way: it is to be finished", what)};
}

}  // namespace gpumod
