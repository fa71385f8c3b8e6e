// After a crash or a power cut: what the journal of an unfinished switch means.
//
//   nothing that changes the world was issued      → discard: what ran before still runs
//   issued, no failure recorded                    → forward: the new goal
//   a failure was recorded before the crash        → back: what ran before
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

enum class RecoveryDirection { discard, forward, back };

struct Recovery {
  RecoveryDirection direction = RecoveryDirection::discard;
  Goal goal;             ///< what the world should become; for discard: what it was
  std::string sentence;  ///< for people: what was found and what that means
};

Recovery recover(const JournaledSwitch& journal);

}  // namespace gpumod
