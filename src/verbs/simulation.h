// A switch that is only thought: its plan, the memory over its time, and where that does not fit, changes with which it
// would. Pure: fit/ and switching/ decide, this composes them. It never touches what runs.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fit/alternatives.h"
#include "fit/claim.h"
#include "fit/timeline.h"
#include "switching/plan.h"

namespace gpumod {

/// What is asked.
struct Thought {
  Snapshot snapshot;
  Goal goal;
  Knowledge knowledge;
  std::vector<Subject> subjects;  ///< services of the goal of which more is known than their files say
  std::vector<Change> asked;      ///< changes that people ask for themselves: they come before those that are tried
};

/// How it would go.
struct Foresight {
  Plan plan;
  Timeline timeline;
  Fits fits = Fits::no;
  /// Why not. Of a plan that lacks room, plan and timeline are those with which it would lack least: they show where.
  std::optional<Error> problem;
  Bytes missing;                      ///< how much room that is; zero where something else is the problem
  std::vector<std::string> notes;     ///< what a person should know
  std::map<ServiceId, Claim> claims;  ///< the most that each service of the goal claims of a GPU, and how that is known
};

/// True when it is there in any way: what it was started with would have to come down first.
bool is_up(const Snapshot& snapshot, const ServiceId& id);

/// Errors: whatever planning refuses for reasons other than memory.
Result<Foresight> foresee(const Thought& thought, const std::vector<Change>& changes = {});

struct Offer {
  Alternative alternative;
  Foresight foresight;
};
/// Each was foreseen with its changes, and fits. The least loss first.
std::vector<Offer> offers(const Thought& thought, std::size_t most);

}  // namespace gpumod
