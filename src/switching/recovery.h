// After a crash, a power cut or a reboot: what the journal of an unfinished switch means.
//
//   nothing that changes the world was issued      → discard: what ran before still runs
//   issued, no failure recorded                    → forward: the new goal
//   a failure was recorded before the crash        → back: what ran before
//
// After a reboot nothing runs any more that was started by hand, and people may want to look first: the `boot:` setting
// decides. `goal` goes on as above, `blank` makes an empty machine the goal, `nothing` discards.
#pragma once

#include <string>

#include "model/snapshot.h"

namespace gpumod {

/// An unfinished switch as the journal holds it.
struct JournaledSwitch {
  std::string id;
  std::string kind;  ///< "mode switch", "service start" …
  Goal goal;
  Goal previous;
  bool mutated = false;  ///< a mutating command was issued
  bool failed = false;   ///< a failure was recorded: it was on its way back
  std::string failure;
  std::string boot_id;
};

/// The machine as it runs now. An empty id means that it is not known: then no reboot is assumed.
struct Boot {
  std::string id;
  BootPolicy policy = BootPolicy::goal;
};

enum class RecoveryDirection { discard, forward, back, blank };

struct Recovery {
  RecoveryDirection direction = RecoveryDirection::discard;
  Goal goal;             ///< what the world should become; for discard: what it was
  std::string sentence;  ///< for people: what was found and what that means
  std::string name;      ///< of the switch, for people: "switch 7 (mode switch to rag)"
};

Recovery recover(const JournaledSwitch& journal, const Boot& boot = {});

}  // namespace gpumod
