#include <algorithm>

#include <fmt/format.h>

#include "switching/planner.h"

namespace gpumod {

Result<Plan> Planner::run() {
  TRY(check_goal());        // first: nothing below has to ask whether a service exists
  gather_units();           // what each unit is to the goal
  add_freeing_steps();      // what must go
  TRY(add_taking_steps());  // what must come, and whether its port can be had
  TRY(place_on_gpus());     // whether it fits, and where
  order();                  // what waits for what
  predict();                // what people are shown
  predict_seconds();
  return std::move(plan_);
}

Result<void> Planner::check_goal() {
  for (const auto& [id, residency] : goal_.wanted) {
    if (!knowledge_.services.contains(id) && residency == Residency::stopped) continue;  // so it does not run
    if (!knowledge_.services.contains(id))
      return fail(ErrorCode::not_found,
                  fmt::format("the goal names service '{}', which the catalogue does not have", id));
    if (is_asleep(residency) && service(id).sleep == SleepAbility::none && residency_of(id) != residency)
      return fail(ErrorCode::refused, fmt::format("service '{}' cannot sleep", id),
                  "Its engine has no sleep, or its file does not say sleep: l1 or l2.");
  }
  return {};
}

void Planner::gather_units() {
  for (const auto& [name, status] : snapshot_.units)
    units_[name].status = &status;
  for (const auto& [id, service] : knowledge_.services)
    units_[service.unit_name()].members.push_back(&service);
  for (auto& [name, unit] : units_) {
    for (const auto* member : unit.members)
      if (is_kept(*member)) unit.kept.push_back(member);
    if (!unit.kept.empty()) decide_restart(name, unit);
  }
}

bool Planner::is_kept(const Service& member) const {
  const auto wanted = goal_.wanted.find(member.id);
  if (wanted != goal_.wanted.end()) return wanted->second != Residency::stopped;
  return !goal_.exclusive && holds_memory(residency_of(member.id));
}

void Planner::decide_restart(const std::string& name, UnitCase& unit) {
  if (!unit.alive()) return;
  const auto broken = [&](const Service* member) { return residency_of(member->id) == Residency::failed; };
  const bool wanted_here = std::any_of(unit.kept.begin(), unit.kept.end(),
                                       [&](const Service* member) { return goal_.wanted.contains(member->id); });
  if (knowledge_.distrusted.contains(name)) {
    unit.restart = true;
    unit.why = "it did not do what was asked of it";
  } else if (unit.status->active == ActiveState::deactivating) {
    unit.restart = true;
    unit.why = "it is stopping";
  } else if (outdated_where_wanted(name, unit)) {
    unit.restart = true;
    unit.why = "runs with older settings than its file's";
  } else if (wanted_here && std::all_of(unit.members.begin(), unit.members.end(), broken)) {
    unit.restart = true;
    const auto& detail = view(unit.kept.front()->id).detail;
    unit.why = detail.empty() ? "it has failed" : detail;
  }
}

/// Its file was changed since it was started, and the goal is the whole of what is to run: then it is restarted, as by
/// who changed it. A change to single services takes nobody else's down, and when people's own unit is restarted is
/// theirs to say: then it is only told.
bool Planner::outdated_where_wanted(const std::string& name, const UnitCase& unit) {
  if (!snapshot_.outdated.contains(name)) return false;
  for (const auto* member : unit.kept) {
    const auto wanted = goal_.wanted.find(member->id);
    if (wanted == goal_.wanted.end() || wanted->second != Residency::running) continue;
    // Where it is asked now it may never have listened: who names it does not wait for that.
    const bool comes_up = unit.members.size() == 1 && residency_of(member->id) == Residency::starting;
    if ((goal_.exclusive || comes_up) && member->unit.empty()) return true;
    plan_.left_alone.push_back(in_words_outdated(*member));
  }
  return false;
}

void Planner::add_freeing_steps() {
  for (auto& [name, unit] : units_) {
    if (!unit.alive()) continue;
    if (unit.members.empty() && may_be_broken(name, unit)) {
      leave_or_stop_broken(name, unit);
      continue;
    }
    if (unit.restart || (unit.kept.empty() && (goal_.exclusive || told_to_stop(unit)))) {
      if (!unit.restart)
        unit.why = unit.members.empty() ? "orphan: nothing in the catalogue wants it" : "outside the goal";
      unit.stop_step =
          add(Action::stop, unit.members.size() == 1 ? unit.members.front()->id : ServiceId(), name, unit.why);
      continue;
    }
    for (const auto* member : unit.members) {
      const auto residency = residency_of(member->id);
      const auto wanted = goal_.wanted.find(member->id);
      const bool to_unload = wanted != goal_.wanted.end()
                                 ? wanted->second == Residency::stopped || wanted->second == Residency::unloaded
                                 : goal_.exclusive;
      if (member->in_router() && to_unload && holds_memory(residency))
        add(Action::unload, member->id, name, wanted != goal_.wanted.end() ? "asked to unload" : "outside the goal");
      if (wanted != goal_.wanted.end() && is_asleep(wanted->second) && residency == Residency::running)
        plan_.steps[static_cast<std::size_t>(add(Action::sleep, member->id, name, "asked to sleep"))].target =
            wanted->second;
    }
  }
  for (auto& step : plan_.steps) {
    step.gpus = gpus_of_freeing(step.unit);
    step.gives = given_back_by(step);
    if (step.action != Action::stop) step.ceiling = ceiling_of(step);
  }
}

/// What it should be, nobody knows; but who says that it is to stop needs no file for that.
void Planner::leave_or_stop_broken(const std::string& name, UnitCase& unit) {
  const auto& id = unit.status->tag;
  const auto wanted = goal_.wanted.find(id);
  if (wanted != goal_.wanted.end() && wanted->second == Residency::stopped)
    unit.stop_step = add(Action::stop, ServiceId(), name, "asked to stop");
  else if (goal_.exclusive)
    plan_.left_alone.push_back(
        knowledge_.broken.contains(id)
            ? fmt::format("{} is left as it is, for its file is broken: correct {}, or gpumod service stop {}", name,
                          knowledge_.broken.at(id), id)
            : fmt::format("{} is left as it is, for the file of a model of it may be broken: correct {}", name,
                          knowledge_.broken.begin()->second));
}

/// A router is called after itself: of whose file it is, a broken one does not tell.
bool Planner::may_be_broken(const std::string& name, const UnitCase& unit) const {
  return knowledge_.broken.contains(unit.status->tag) ||
         (name.starts_with("gpumod-router-") && !knowledge_.broken.empty());
}

bool Planner::told_to_stop(const UnitCase& unit) const {
  return std::any_of(unit.members.begin(), unit.members.end(), [&](const Service* member) {
    const auto wanted = goal_.wanted.find(member->id);
    return wanted != goal_.wanted.end() && wanted->second == Residency::stopped;
  });
}

Result<void> Planner::add_taking_steps() {
  freeing_count_ = plan_.steps.size();
  for (auto& [name, unit] : units_) {
    for (const auto* member : unit.kept) {
      const auto wanted = goal_.wanted.find(member->id);
      const bool runs_on = unit.alive() && !unit.restart;
      if (wanted == goal_.wanted.end() && runs_on) continue;  // not our concern: it runs and stays
      TRY(bring_up(name, unit, *member, wanted == goal_.wanted.end() ? Residency::running : wanted->second));
    }
  }
  return {};
}

Result<void> Planner::bring_up(const std::string& name, UnitCase& unit, const Service& member, Residency target) {
  const auto residency = unit.alive() && !unit.restart ? residency_of(member.id) : Residency::stopped;
  if (residency == target && is_asleep(target)) return {};
  if (target == Residency::unloaded && unit.alive() && !unit.restart) return {};  // the freeing steps saw to it
  int last = -1;
  if (residency == Residency::running || residency == Residency::starting) {
    if (residency == Residency::running && is_asleep(target)) return {};  // the freeing steps see to it
    last = add(Action::verify, member.id, name, residency == Residency::running ? "runs already" : "is starting");
    if (!is_asleep(target)) return {};
  } else if (is_asleep(residency)) {
    if (is_asleep(target)) return {};  // asleep on another level: as good for everybody's purpose
    last = add(Action::wake, member.id, name, "asleep");
  } else {
    if (!unit.alive() || unit.restart || !member.in_router()) {
      if (!unit.start_step) {
        TRY(check_port(name, unit, member));
        unit.start_step = add(Action::start, member.router.empty() ? member.id : ServiceId(), name,
                              unit.restart ? unit.why : "does not run");
        if (unit.stop_step) depend(*unit.start_step, *unit.stop_step);
        for (const int blocker : port_blockers_)
          depend(*unit.start_step, blocker);
      }
      last = *unit.start_step;
    }
    if (member.in_router() && target != Residency::unloaded) {
      const int load = add(Action::load, member.id, name, "not loaded");
      if (last >= 0) depend(load, last);
      last = load;
    }
  }
  if (is_asleep(target)) {
    const int nap = add(Action::sleep, member.id, name, "was asleep before");
    plan_.steps[static_cast<std::size_t>(nap)].target = target;
    depend(nap, last);
  }
  return {};
}

/// Fills port_blockers_ with the stop steps that must come first.
Result<void> Planner::check_port(const std::string& name, const UnitCase& unit, const Service& member) {
  port_blockers_.clear();
  if (member.port == 0) return {};
  for (const auto& holder : snapshot_.ports) {
    if (holder.port != member.port || holder.unit == name) continue;
    if (!holder.unit.empty()) {
      TRY(yield_port(holder.unit, member));
      continue;
    }
    if (member.command() && !member.command()->container.empty()) continue;  // the container may already listen
    const auto who = holder.pid ? fmt::format("pid {} ({}, user {})", holder.pid, holder.command, holder.user)
                                : fmt::format("a process of user {}", holder.user);
    return fail(ErrorCode::refused,
                fmt::format("port {} of service '{}' is held by {}, which is not ours", member.port, member.id, who),
                "Stop that process, or give the service another port.");
  }
  for (const auto& [other_name, other] : units_) {
    if (other_name == name || &other == &unit || (!other.alive() && !other.start_step)) continue;
    const bool same_port = std::any_of(other.members.begin(), other.members.end(),
                                       [&](const Service* s) { return s->port == member.port; });
    if (!same_port) continue;
    if (other.start_step)  // single services put into the goal one after the other, while the other one was down
      return fail(
          ErrorCode::refused,
          fmt::format("'{}' and '{}' are both to run, and both on port {}", other.kept.front()->id, member.id,
                      member.port),
          fmt::format("Take one out of the goal (gpumod service stop {}), or give it another port.", member.id));
    TRY(yield_port(other_name, member));
  }
  return {};
}

Result<void> Planner::yield_port(const std::string& holder, const Service& member) {
  const auto found = units_.find(holder);
  if (found != units_.end() && found->second.stop_step && found->second.kept.empty()) {
    port_blockers_.push_back(*found->second.stop_step);
    ports_conflict_ = true;
    return {};
  }
  const auto subject =
      found != units_.end() && found->second.members.size() == 1 ? found->second.members.front()->id : holder;
  return fail(
      ErrorCode::refused,
      fmt::format("port {} of service '{}' is held by '{}', which is to go on running", member.port, member.id,
                  subject),
      fmt::format("Stop it first (gpumod service stop {}), switch to a mode without it, or change a port.", subject));
}

int Planner::add(Action action, ServiceId service, std::string unit, std::string why) {
  Step step;
  step.index = static_cast<int>(plan_.steps.size());
  step.action = action;
  step.service = std::move(service);
  step.unit = std::move(unit);
  step.why = std::move(why);
  plan_.steps.push_back(std::move(step));
  return plan_.steps.back().index;
}

void Planner::depend(int later, int earlier) {
  auto& after = plan_.steps[static_cast<std::size_t>(later)].after;
  if (later != earlier && std::find(after.begin(), after.end(), earlier) == after.end()) after.push_back(earlier);
}

bool Planner::is_router_start(const Step& step) const {
  return step.action == Action::start && (step.service.empty() || service(step.service).in_router());
}

const ServiceView& Planner::view(const ServiceId& id) const {
  static const ServiceView nothing;
  const auto found = snapshot_.services.find(id);
  return found == snapshot_.services.end() ? nothing : found->second;
}

std::string in_words_outdated(const Service& service) {
  if (!service.unit.empty())
    return fmt::format(
        "'{}' was started before {} was changed: systemctl --user daemon-reload, then gpumod service "
        "restart {}",
        service.id, service.unit, service.id);
  return fmt::format("'{}' runs with older settings than its file's: gpumod service restart {} applies the new ones",
                     service.id, service.id);
}

Result<Plan> plan(const Snapshot& snapshot, const Goal& goal, const Knowledge& knowledge) {
  const auto sliced = [](const GpuSample& gpu) { return gpu.mig == true; };
  if (std::none_of(snapshot.gpus.begin(), snapshot.gpus.end(), sliced)) return Planner(snapshot, goal, knowledge).run();
  Snapshot seen = snapshot;
  seen.gpus = placeable(std::move(seen.gpus));
  return Planner(seen, goal, knowledge).run();
}

Goal goal_from(const Snapshot& snapshot) {
  Goal goal;
  goal.exclusive = false;
  for (const auto& [id, view] : snapshot.services) {
    // Alive, but neither up nor asleep: nobody can be asked to restore that, and stopping it is not ours to decide.
    const auto unit = snapshot.units.find(view.unit);
    const bool alive = unit != snapshot.units.end() && !unit->second.gone();
    if (alive && (view.residency == Residency::failed || view.residency == Residency::stopping ||
                  view.residency == Residency::suspended))
      continue;
    const bool comes_up = view.residency == Residency::running || view.residency == Residency::starting;
    const bool rests = is_asleep(view.residency) || view.residency == Residency::unloaded;
    goal.wanted[id] = comes_up ? Residency::running : rests ? view.residency : Residency::stopped;
  }
  return goal;
}

}  // namespace gpumod
