// Drift: how what runs differs from what should, each difference by its kind. Pure.
//
//   dead        should run, and does not
//   port        should run, and cannot: something else answers on its port
//   unreached   is neither what the goal wants nor dead: asleep where it should run, running where it should sleep, there
//               but without an answer
//   outdated    runs with older settings than its file's
//   squeezed    runs, but --fit has shrunk it to the memory that was free at its start
//   unwanted    is there, and the goal does not want it
//   undefined   is wanted, and no file defines it any more, or a broken one
//   interrupted is as an interrupted switch left it: told with what repair does about it
// Orphans (units of ours that no file defines) are told apart from these, by describe_orphans.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "catalog/catalog.h"
#include "model/footprint.h"
#include "model/snapshot.h"
#include "store/store.h"

namespace gpumod {

struct Difference {
  enum class Kind { dead, port, unreached, outdated, squeezed, unwanted, undefined, interrupted } kind = Kind::dead;
  ServiceId service;
  std::string wanted;
  Residency is = Residency::stopped;
  std::string text;  ///< for people
  /// Of a squeezed one: another start may give it more. Not while there is no room for more, nor where repair has tried.
  bool restart_may_help = false;
  bool repair_mends = true;  ///< False: people have to do first what `text` says.
};
std::string_view to_string(Difference::Kind kind);

/// It runs, and the file of its service is broken: it is left alone, unless it is named to be stopped.
bool runs_without_its_file(const UnitStatus& unit, const Catalog& catalog);

/// What it takes to tell who is squeezed, and whether a restart would help.
struct SqueezeEvidence {
  Footprints known;
  std::set<std::string> tried;  ///< units whose last start was a repair
};

/// A switch that was cut off: what it was bringing about, and what repair will.
struct Interruption {
  std::string name;  ///< "switch 7 (mode switch to rag)"
  Goal aim;
  std::optional<Goal> repair;
};

std::vector<Difference> differences_of(const std::optional<Goal>& goal, const Snapshot& snapshot,
                                       const Catalog& catalog, const std::optional<Interruption>& cut_off = {},
                                       const SqueezeEvidence& evidence = {});

/// More than their files has to be known before it can be told who is squeezed: a llama-server runs that may have shrunk
/// itself.
bool may_be_squeezed(const Snapshot& snapshot, const Catalog& catalog);

/// The units of squeezed services that may get the memory that they lacked: to be restarted.
std::set<std::string> squeezed_units(const std::optional<Goal>& goal, const Snapshot& snapshot, const Catalog& catalog,
                                     const SqueezeEvidence& evidence = {});

/// For SqueezeEvidence, from what the journal tells of the latest switches, the newest first.
std::set<std::string> last_started_by_repair(const std::vector<StoredSwitch>& history);

/// How the goal differs from the mode whose name it bears, because people changed single services since, or the mode's
/// file. It is no difference between what runs and what should.
struct Deviation {
  enum class Kind { without, besides, asleep } kind = Kind::without;
  ServiceId service;
  std::string text;  ///< for people, with what undoes it
};
std::string_view to_string(Deviation::Kind kind);
/// `by_hand`: the services that were changed by themselves since the last mode switch.
std::vector<Deviation> deviations_of(const std::optional<Goal>& goal, const Catalog& catalog,
                                     const std::set<ServiceId>& by_hand);

/// What runs, as a goal, with the mode's name where it is exactly what a mode wants: what is left to go by when the
/// stored goal is lost. Nothing when nothing runs.
std::optional<Goal> goal_of_what_runs(const Snapshot& snapshot, const Catalog& catalog);

}  // namespace gpumod
