#include "verbs/drift.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "engines/reply.h"
#include "fit/claim.h"
#include "switching/plan.h"

namespace gpumod {

namespace {

using Kind = Difference::Kind;

bool comes_up(Residency residency) {
  return residency == Residency::running || residency == Residency::starting;
}

bool satisfies(Residency is, Residency wanted) {
  const bool sleeps = is_asleep(is);
  switch (wanted) {
    case Residency::sleeping1:
    case Residency::sleeping2: return sleeps;
    // A router that is down, or could not load it, has unloaded it all the same.
    case Residency::unloaded: return is == wanted || is == Residency::stopped || is == Residency::failed;
    case Residency::stopped: return is == Residency::stopped || is == Residency::failed;
    default: return comes_up(is);
  }
}

std::optional<Residency> wanted_by(const std::optional<Goal>& goal, const ServiceId& id) {
  if (!goal) return std::nullopt;
  const auto found = goal->wanted.find(id);
  if (found == goal->wanted.end() || found->second == Residency::stopped) return std::nullopt;
  return found->second;
}

class Drift {
 public:
  Drift(const std::optional<Goal>& goal, const Snapshot& snapshot, const Catalog& catalog,
        const std::optional<Interruption>& cut_off, const SqueezeEvidence& evidence)
      : goal_(goal), snapshot_(snapshot), catalog_(catalog), cut_off_(cut_off), evidence_(evidence) {}

  std::vector<Difference> find() {
    for (const auto& [id, view] : snapshot_.services) {
      const auto service = catalog_.services.find(id);
      if (service == catalog_.services.end()) continue;
      if (cut_off_ && left_by_the_interrupted(service->second, view)) continue;
      if (const auto wanted = wanted_of(id))
        compare(service->second, view, *wanted);
      else
        unwanted(service->second, view);
    }
    if (goal_)
      for (const auto& [id, residency] : goal_->wanted)
        if (!catalog_.services.contains(id)) undefined(id, residency);
    return std::move(found_);
  }

 private:
  std::optional<Residency> wanted_of(const ServiceId& id) const { return wanted_by(goal_, id); }

  /// Where the interrupted switch wanted something else of it than the goal does. What it left is no riddle, and repair
  /// does not always do what the goal says.
  bool left_by_the_interrupted(const Service& service, const ServiceView& view) {
    const auto wanted = wanted_of(service.id), aimed = wanted_by(cut_off_->aim, service.id);
    if (wanted.has_value() == aimed.has_value()) return false;
    const auto later = wanted_by(cut_off_->repair, service.id);
    const bool there = is_there(view);
    std::string text;
    if (aimed && there)
      text = fmt::format("'{}' belongs to the interrupted {}: gpumod repair {}", service.id, cut_off_->name,
                         !later                              ? "stops it"
                         : satisfies(view.residency, *later) ? "keeps it"
                                                             : "brings it up");
    else if (aimed && later)
      text = fmt::format("'{}' is still to come for the interrupted {}: gpumod repair brings it up", service.id,
                         cut_off_->name);
    else if (wanted && !satisfies(view.residency, *wanted))
      text = fmt::format("'{}' made room for the interrupted {}: gpumod repair {}", service.id, cut_off_->name,
                         later ? "brings it back" : "leaves it so");
    else if (wanted && there && !later)
      text = fmt::format("'{}' is to make room for the interrupted {}: gpumod repair stops it", service.id,
                         cut_off_->name);
    if (text.empty()) return false;
    add(Kind::interrupted, service.id, to_string(later.value_or(Residency::stopped)), view.residency, std::move(text));
    return true;
  }

  bool is_there(const ServiceView& view) const {
    const auto unit = snapshot_.units.find(view.unit);
    const bool alive = unit != snapshot_.units.end() && !unit->second.gone();
    return alive && view.residency != Residency::stopped && view.residency != Residency::unloaded;
  }

  void undefined(const ServiceId& id, Residency wanted) {
    const auto fault = catalog_.service_faults.find(id);
    add(Kind::undefined, id, to_string(wanted), Residency::stopped,
        fault == catalog_.service_faults.end()
            ? fmt::format("'{}' is wanted, but no file defines it any more", id)
            : fmt::format("'{}' is wanted, but its file is broken: correct {}, or gpumod service stop {}", id,
                          to_string(fault->second), id));
    found_.back().repair_mends = false;
  }

  void compare(const Service& service, const ServiceView& view, Residency wanted) {
    const bool outdated = wanted == Residency::running && snapshot_.outdated.contains(view.unit);
    if (outdated && !stranger_on(service)) {
      // Where its file says now, it may never have answered.
      const bool failed = view.residency == Residency::failed && !view.detail.empty();
      add(Kind::outdated, service.id, to_string(wanted), view.residency,
          in_words_outdated(service) + (failed ? fmt::format(" (it is failed: {})", view.detail) : ""));
      found_.back().repair_mends = service.unit.empty();
      return;
    }
    if (satisfies(view.residency, wanted)) {
      if (view.residency == Residency::running) look_for_squeeze(service, view);
      if (view.residency == Residency::starting)
        add(Kind::unreached, service.id, to_string(wanted), view.residency,
            fmt::format("'{}' should run, but does not answer{}", service.id,
                        view.detail.empty() ? "" : ": " + view.detail));
      return;
    }
    const auto why = view.detail.empty() ? std::string() : fmt::format(": {}", view.detail);
    const auto wish = wanted == Residency::running ? "should run" : fmt::format("should be {}", to_string(wanted));
    if (wanted == Residency::running)
      if (const auto* stranger = stranger_on(service)) {
        const auto remedy = what_frees(*stranger);
        add(Kind::port, service.id, to_string(wanted), view.residency,
            fmt::format("'{}' should run but is {}: its port {} is held by {}{}", service.id, to_string(view.residency),
                        service.port, in_words(*stranger), remedy.empty() ? "" : "; " + remedy));
        found_.back().repair_mends = remedy.empty();
        return;
      }
    const bool dead =
        wanted == Residency::running && (view.residency == Residency::failed || view.residency == Residency::stopped);
    add(dead ? Kind::dead : Kind::unreached, service.id, to_string(wanted), view.residency,
        fmt::format("'{}' {} but is {}{}", service.id, wish, to_string(view.residency), why));
  }

  void unwanted(const Service& service, const ServiceView& view) {
    const auto unit = snapshot_.units.find(view.unit);
    const bool alive = unit != snapshot_.units.end() && !unit->second.gone();
    const bool asleep = is_asleep(view.residency);
    std::string text;
    if (comes_up(view.residency))
      text = fmt::format("'{}' runs, but the goal does not want it", service.id);
    else if (asleep)
      text = fmt::format("'{}' is {}, but the goal does not want it", service.id, to_string(view.residency));
    else if (alive && view.residency == Residency::failed && !service.in_router())
      text = fmt::format("'{}' is not wanted and has failed, but {} of its processes are still there", service.id,
                         unit->second.pids.size());
    if (!text.empty()) add(Kind::unwanted, service.id, "stopped", view.residency, std::move(text));
  }

  /// A listener on the service's port that is not of its own unit.
  const PortHolder* stranger_on(const Service& service) const {
    if (service.port == 0) return nullptr;
    const auto found = std::find_if(snapshot_.ports.begin(), snapshot_.ports.end(), [&](const PortHolder& holder) {
      return holder.port == service.port && holder.unit != service.unit_name();
    });
    return found == snapshot_.ports.end() ? nullptr : &*found;
  }

  static std::string in_words(const PortHolder& holder) {
    if (holder.pid == 0) return fmt::format("a process of user {}", holder.user);
    if (!holder.unit.empty()) return fmt::format("pid {} ({}) of {}", holder.pid, holder.command, holder.unit);
    return fmt::format("pid {} ({}, user {}), which is not ours", holder.pid, holder.command, holder.user);
  }

  /// What people have to do before repair can have the port. Empty: nothing, repair stops who holds it.
  std::string what_frees(const PortHolder& holder) const {
    if (holder.unit.empty())
      return holder.pid == 0 ? std::string("stop it, then gpumod repair")
                             : fmt::format("stop pid {} ({}), then gpumod repair", holder.pid, holder.command);
    for (const auto* member : catalog_.services_of_unit(holder.unit))
      if (wanted_of(member->id)) return fmt::format("gpumod service stop {}, or give one another port", member->id);
    const auto unit = snapshot_.units.find(holder.unit);
    if (unit != snapshot_.units.end() && runs_without_its_file(unit->second, catalog_))
      return fmt::format("gpumod service stop {}, then gpumod repair", unit->second.tag);
    return {};
  }

  /// What its unit holds on the GPU where it holds most, against what all that run in that unit are known to take there. An
  /// estimate is not held against it: where that is wrong, no restart would ever help.
  void look_for_squeeze(const Service& service, const ServiceView& view) {
    const GpuSample* most = nullptr;
    Bytes held_most;
    for (const auto& gpu : snapshot_.gpus) {
      const auto held = held_by_unit(snapshot_, view.unit, gpu);
      if (!held) return;
      if (!most || *held > held_most) most = &gpu, held_most = *held;
    }
    if (!most) return;
    Bytes claim;
    ClaimSource source = ClaimSource::unknown;
    std::size_t sharers = 0;
    for (const auto* member : catalog_.services_of_unit(view.unit)) {
      const auto seen = snapshot_.services.find(member->id);
      if (seen == snapshot_.services.end() || seen->second.residency != Residency::running) continue;
      const auto one = vouched_claim(*member, footprint_of(evidence_.known, member->id), *most);
      if (!one.bytes) return;
      claim += *one.bytes;
      source = one.source;
      ++sharers;
    }
    if (!is_squeezed(service, claim, held_most)) return;
    const bool tried = evidence_.tried.contains(view.unit);
    const bool room = most->free && *most->free + held_most >= claim + left_by_fit;
    add(Kind::squeezed, service.id, "running", view.residency,
        fmt::format("'{}' runs with {} of VRAM where {} are {}{}: --fit has probably shrunk it to what was free "
                    "at its start, and it is slow{}",
                    service.id, to_string(held_most), to_string(claim), sharers > 1 ? "claimed" : to_string(source),
                    sharers > 1 ? fmt::format(" for the {} models of its router", sharers) : "",
                    what_a_restart_does(*most, source, room, tried)));
    found_.back().restart_may_help = found_.back().repair_mends = room && !tried;
  }

  static std::string what_a_restart_does(const GpuSample& gpu, ClaimSource source, bool room, bool tried) {
    if (!room)
      return fmt::format("; {} more are free now, too little for a restart to help",
                         to_string(gpu.free.value_or(Bytes())));
    const bool declared = source == ClaimSource::declared;
    if (tried)
      return fmt::format("; gpumod repair has restarted it, and that changed nothing{}",
                         declared ? ": its vram: may be too high" : "");
    return declared ? "; if a restart does not help, its vram: is too high" : "";
  }

  void add(Kind kind, const ServiceId& id, std::string_view wanted, Residency is, std::string text) {
    found_.push_back({kind, id, std::string(wanted), is, std::move(text)});
  }

  const std::optional<Goal>& goal_;
  const Snapshot& snapshot_;
  const Catalog& catalog_;
  const std::optional<Interruption>& cut_off_;
  const SqueezeEvidence& evidence_;
  std::vector<Difference> found_;
};

}  // namespace

bool runs_without_its_file(const UnitStatus& unit, const Catalog& catalog) {
  const bool broken = catalog.broken_services.contains(unit.tag) ||
                      (unit.name.starts_with("gpumod-router-") && !catalog.broken_services.empty());
  return !unit.gone() && broken && catalog.services_of_unit(unit.name).empty();
}

std::string_view to_string(Difference::Kind kind) {
  switch (kind) {
    case Kind::dead: return "dead";
    case Kind::port: return "port";
    case Kind::unreached: return "unreached";
    case Kind::outdated: return "outdated";
    case Kind::squeezed: return "squeezed";
    case Kind::unwanted: return "unwanted";
    case Kind::undefined: return "undefined";
    case Kind::interrupted: return "interrupted";
  }
  return "unknown";
}

std::vector<Difference> differences_of(const std::optional<Goal>& goal, const Snapshot& snapshot,
                                       const Catalog& catalog, const std::optional<Interruption>& cut_off,
                                       const SqueezeEvidence& evidence) {
  // As everybody who plans sees it: an instance of a GPU in MIG mode is a GPU.
  Snapshot seen = snapshot;
  seen.gpus = placeable(std::move(seen.gpus));
  return Drift(goal, seen, catalog, cut_off, evidence).find();
}

std::string_view to_string(Deviation::Kind kind) {
  switch (kind) {
    case Deviation::Kind::without: return "without";
    case Deviation::Kind::besides: return "besides";
    case Deviation::Kind::asleep: return "asleep";
  }
  return "unknown";
}

std::vector<Deviation> deviations_of(const std::optional<Goal>& goal, const Catalog& catalog,
                                     const std::set<ServiceId>& by_hand) {
  std::vector<Deviation> found;
  const auto mode = goal ? catalog.modes.find(goal->mode) : catalog.modes.end();
  if (mode == catalog.modes.end()) return found;
  const auto& name = mode->second.id;
  std::set<ServiceId> members;
  for (const auto& id : mode->second.services) {
    members.insert(id);
    const auto wanted = wanted_by(goal, id);
    if (!wanted)
      found.push_back({Deviation::Kind::without, id,
                       fmt::format("mode {} without '{}': {}; gpumod mode switch {} brings it {}", name, id,
                                   by_hand.contains(id) ? "stopped by hand" : "the mode's file names it only since",
                                   name, by_hand.contains(id) ? "back" : "up")});
    else if (*wanted != Residency::running)
      found.push_back({Deviation::Kind::asleep, id,
                       fmt::format("mode {} with '{}' {}, by hand; gpumod mode switch {} wakes it", name, id,
                                   *wanted == Residency::unloaded ? std::string_view("unloaded") : "asleep", name)});
  }
  for (const auto& [id, residency] : goal->wanted)
    if (wanted_by(goal, id) && !members.contains(id) && catalog.services.contains(id))
      found.push_back(
          {Deviation::Kind::besides, id,
           fmt::format("'{}' beside mode {}: {}; gpumod mode switch {} stops it", id, name,
                       by_hand.contains(id) ? "started by hand" : "the mode's file names it no more", name)});
  return found;
}

bool may_be_squeezed(const Snapshot& snapshot, const Catalog& catalog) {
  return !snapshot.gpus.empty() &&
         std::any_of(snapshot.services.begin(), snapshot.services.end(), [&](const auto& entry) {
           const auto service = catalog.services.find(entry.first);
           return service != catalog.services.end() && entry.second.residency == Residency::running &&
                  service->second.vram != Bytes(0) && may_shrink_itself(service->second);
         });
}

std::set<std::string> squeezed_units(const std::optional<Goal>& goal, const Snapshot& snapshot, const Catalog& catalog,
                                     const SqueezeEvidence& evidence) {
  std::set<std::string> units;
  for (const auto& difference : differences_of(goal, snapshot, catalog, {}, evidence))
    if (difference.kind == Kind::squeezed && difference.restart_may_help)
      units.insert(catalog.services.at(difference.service).unit_name());
  return units;
}

std::set<std::string> last_started_by_repair(const std::vector<StoredSwitch>& history) {
  std::set<std::string> seen, by_repair;
  for (const auto& past : history) {
    std::error_code malformed;
    const auto report = boost::json::parse(past.report, malformed);
    const auto* steps = malformed ? nullptr : find(report, {"switch", "steps"});
    if (!steps || !steps->is_array()) continue;
    for (const auto& step : steps->get_array()) {
      const auto action = string_at(step, {"action"});
      if (string_at(step, {"result"}) != "done" || (action != "start" && action != "load")) continue;
      const auto unit = string_at(step, {"unit"});
      if (seen.insert(unit).second && past.kind == "repair") by_repair.insert(unit);
    }
  }
  return by_repair;
}

std::optional<Goal> goal_of_what_runs(const Snapshot& snapshot, const Catalog& catalog) {
  Goal goal = goal_from(snapshot);
  goal.exclusive = true;
  std::erase_if(goal.wanted, [](const auto& entry) {
    return entry.second == Residency::stopped || entry.second == Residency::unloaded;
  });
  if (goal.wanted.empty()) return std::nullopt;
  const bool all_run = std::all_of(goal.wanted.begin(), goal.wanted.end(),
                                   [](const auto& entry) { return entry.second == Residency::running; });
  for (const auto& [id, mode] : catalog.modes) {
    const std::set<ServiceId> members(mode.services.begin(), mode.services.end());
    const bool same = members.size() == goal.wanted.size() &&
                      std::all_of(members.begin(), members.end(),
                                  [&](const ServiceId& member) { return goal.wanted.contains(member); });
    if (all_run && same) goal.mode = id;
    if (all_run && same) break;
  }
  return goal;
}

}  // namespace gpumod
