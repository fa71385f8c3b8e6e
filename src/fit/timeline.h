// The memory of each GPU over the time of a switch, as its plan foresees it: what is free, and who holds the rest, before
// and after each step. Pure.
//
// Steps are taken in an order that the plan allows, one after the other. That loses nothing: on one GPU a plan lets at
// most one step allocate at a time and none free beside it, and steps on different GPUs do not meet. A step that takes
// holds its whole claim from its beginning (its peak), one that frees gives back at its end.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "model/footprint.h"
#include "model/plan.h"
#include "model/service.h"
#include "model/snapshot.h"

namespace gpumod {

struct Timeline {
  struct Holding {
    std::string name;  ///< a service, a router, a unit that nothing wants; "" for everybody else's
    Bytes bytes;
  };
  struct Level {
    GpuIndex gpu = 0;
    Bytes free;                 ///< below zero: it would not fit
    std::vector<Holding> held;  ///< ours by name, then everybody else's; nobody with nothing
  };
  /// rises: who is being started already takes the rest of its claim.
  enum class Edge { now, rises, begins, ends };
  struct Moment {
    Edge edge = Edge::now;
    std::optional<int> step;    ///< its index in the plan; unset for now and rises
    std::vector<Level> levels;  ///< of every GPU that says what is free, by index
  };
  struct Low {
    Bytes free;
    std::size_t moment = 0;
  };

  std::vector<Moment> moments;     ///< the first is now
  std::map<GpuIndex, Low> lowest;  ///< over all moments
  /// At moments in which something is taken; missing for a GPU on which nothing is.
  std::map<GpuIndex, Low> lowest_taking;
  std::vector<std::string> unknown;  ///< what is not in the figures and could matter to what is taken, in words
  bool may_take_more = false;        ///< some of that may take room
  std::set<GpuIndex> may_be_freer;   ///< some of it may give room back, here
};

Timeline timeline_of(const Snapshot& snapshot, const Plan& plan, const std::map<ServiceId, Service>& services,
                     const Footprints& known);

/// What people call a unit: its only service, the router that several share, or the unit itself.
std::string name_of_unit(const std::string& unit, const std::map<ServiceId, Service>& services);

/// Unknown where something that is not in the figures could take room, or give what is lacking. What is silent on a GPU
/// where nothing is taken, or merely goes on there, does not matter: what the GPU says is free counts.
enum class Fits { no, unknown, yes };
/// Nothing that is taken may leave less than `margin` free. What others hold beside that is not the plan's doing.
Fits fits(const Timeline& timeline, Bytes margin);

}  // namespace gpumod
