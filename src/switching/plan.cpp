#include "switching/plan.h"

#include <algorithm>

#include <fmt/format.h>

#include "fit/claim.h"
#include "fit/learning.h"
#include "fit/placement.h"

namespace gpumod {

namespace {

bool holds_memory(Residency residency) {
  return residency == Residency::running || residency == Residency::starting || residency == Residency::sleeping1 ||
         residency == Residency::sleeping2;
}

/// A fall of less than this proves nothing.
constexpr Bytes least_to_tell = Bytes::mib(64);

bool sleeps(Residency residency) {
  return residency == Residency::sleeping1 || residency == Residency::sleeping2;
}

/// A unit together with what the goal makes of its services.
struct UnitCase {
  const UnitStatus* status = nullptr;  ///< null: the manager knows nothing of it
  std::vector<const Service*> members;
  std::vector<const Service*> kept;  ///< they run, or shall run, in this unit after the switch
  bool restart = false;              ///< it must come down although services are kept
  std::string why;                   ///< of the restart, or of the stop
  std::optional<int> stop_step;
  std::optional<int> start_step;

  bool alive() const { return status && !status->gone(); }
  bool is_router() const { return !members.empty() && members.front()->in_router(); }
};

class Planner {
 public:
  Planner(const Snapshot& snapshot, const Goal& goal, const Knowledge& knowledge)
      : snapshot_(snapshot), goal_(goal), knowledge_(knowledge) {}

  Result<Plan> run() {
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

 private:
  Result<void> check_goal() {
    for (const auto& [id, residency] : goal_.wanted) {
      if (!knowledge_.services.contains(id) && residency == Residency::stopped) continue;  // so it does not run
      if (!knowledge_.services.contains(id))
        return fail(ErrorCode::not_found,
                    fmt::format("the goal names service '{}', which the catalogue does not have", id));
      if (sleeps(residency) && service(id).sleep == SleepAbility::none && residency_of(id) != residency)
        return fail(ErrorCode::refused, fmt::format("service '{}' cannot sleep", id),
                    "Its engine has no sleep, or its file does not say sleep: l1 or l2.");
    }
    return {};
  }

  void gather_units() {
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

  bool is_kept(const Service& member) const {
    const auto wanted = goal_.wanted.find(member.id);
    if (wanted != goal_.wanted.end()) return wanted->second != Residency::stopped;
    return !goal_.exclusive && holds_memory(residency_of(member.id));
  }

  void decide_restart(const std::string& name, UnitCase& unit) {
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
    } else if (wanted_here && std::all_of(unit.members.begin(), unit.members.end(), broken)) {
      unit.restart = true;
      const auto& detail = view(unit.kept.front()->id).detail;
      unit.why = detail.empty() ? "it has failed" : detail;
    }
  }

  void add_freeing_steps() {
    for (auto& [name, unit] : units_) {
      if (!unit.alive()) continue;
      if (unit.members.empty() && knowledge_.broken.contains(unit.status->tag)) {
        plan_.notes.push_back(fmt::format("{} is left alone: the file of '{}' is broken", name, unit.status->tag));
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
        if (wanted != goal_.wanted.end() && sleeps(wanted->second) && residency == Residency::running)
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

  std::map<GpuIndex, Bytes> given_back_by(const Step& step) const {
    std::map<GpuIndex, Bytes> gives;
    for (const auto& gpu : snapshot_.gpus) {
      const auto held = held_by_unit(snapshot_, step.unit, gpu);
      const auto freed = held && *held > Bytes() ? freed_by(step.unit, *held, gpu) : std::nullopt;
      if (!freed) continue;
      // Of several models that one router unloads, nobody knows which gives how much: as much each.
      const auto beside = std::count_if(plan_.steps.begin(), plan_.steps.end(), [&](const Step& other) {
        return other.action == Action::unload && other.unit == step.unit;
      });
      gives[gpu.index] = step.action == Action::unload ? Bytes(freed->count() / beside) : *freed;
    }
    return gives;
  }

  /// Where the unit holds memory, or will before it has been told to stop: one that is on its way up is listed late.
  std::vector<GpuIndex> gpus_of_freeing(const std::string& name) const {
    auto gpus = gpus_used_by(name);
    for (const auto* member : units_.at(name).members)
      if (residency_of(member->id) == Residency::starting)
        for (const auto gpu : gpus_open_to(*member))
          if (std::find(gpus.begin(), gpus.end(), gpu) == gpus.end()) gpus.push_back(gpu);
    return gpus;
  }

  /// The most that the unit of a sleep or an unload may hold once it is done: what proves that memory came back.
  /// Nothing where too little is held for the difference to tell.
  std::map<GpuIndex, Bytes> ceiling_of(const Step& step) const {
    const auto& unit = units_.at(step.unit);
    const bool others_stay = std::any_of(unit.members.begin(), unit.members.end(), [&](const Service* member) {
      return holds_memory(residency_of(member->id)) && !is_unloaded(*member);
    });
    std::map<GpuIndex, Bytes> ceiling;
    for (const auto& gpu : snapshot_.gpus) {
      const auto held = held_by_unit(snapshot_, step.unit, gpu);
      if (!held) return {};
      if (step.action == Action::unload && others_stay) {
        // Nobody tells which of its GPUs a model is on.
        if (gpus_used_by(step.unit).size() > 1) return {};
        // Of what the models are thought to give back, half is enough to tell that they went: the figures are rough.
        const auto goes = freed_by(step.unit, *held, gpu);
        if (goes && *goes > least_to_tell) ceiling[gpu.index] = *held - Bytes(goes->count() / 2);
        continue;
      }
      const auto kept = step.action == Action::sleep ? most_kept_asleep : most_kept_by_router;
      if (*held > kept) ceiling[gpu.index] = std::max(kept, Bytes(held->count() / 4));
    }
    return ceiling;
  }

  bool told_to_stop(const UnitCase& unit) const {
    return std::any_of(unit.members.begin(), unit.members.end(), [&](const Service* member) {
      const auto wanted = goal_.wanted.find(member->id);
      return wanted != goal_.wanted.end() && wanted->second == Residency::stopped;
    });
  }

  Result<void> add_taking_steps() {
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

  Result<void> bring_up(const std::string& name, UnitCase& unit, const Service& member, Residency target) {
    const auto residency = unit.alive() && !unit.restart ? residency_of(member.id) : Residency::stopped;
    if (residency == target && sleeps(target)) return {};
    if (target == Residency::unloaded && unit.alive() && !unit.restart) return {};  // the freeing steps saw to it
    int last = -1;
    if (residency == Residency::running || residency == Residency::starting) {
      if (residency == Residency::running && sleeps(target)) return {};  // the freeing steps see to it
      last = add(Action::verify, member.id, name, residency == Residency::running ? "runs already" : "is starting");
      if (!sleeps(target)) return {};
    } else if (sleeps(residency)) {
      if (sleeps(target)) return {};  // asleep on another level: as good for everybody's purpose
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
    if (sleeps(target)) {
      const int nap = add(Action::sleep, member.id, name, "was asleep before");
      plan_.steps[static_cast<std::size_t>(nap)].target = target;
      depend(nap, last);
    }
    return {};
  }

  /// Fills port_blockers_ with the stop steps that must come first.
  Result<void> check_port(const std::string& name, const UnitCase& unit, const Service& member) {
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

  Result<void> yield_port(const std::string& holder, const Service& member) {
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

  Result<void> place_on_gpus() {
    std::vector<Step*> takers;
    for (std::size_t i = freeing_count_; i < plan_.steps.size(); ++i) {
      Step& step = plan_.steps[i];
      // The process itself takes nothing, but what it is bound to decides where its models go.
      if (is_router_start(step))
        step.gpus = gpus_declared_in(step.unit);
      else if (allocates(step.action))
        takers.push_back(&step);
    }
    if (snapshot_.gpus.empty())
      for (const auto& step : plan_.steps)
        if (is_router_start(step)) TRY(check_binding(*units_.at(step.unit).members.front()));
    for (const auto* step : takers) {
      if (snapshot_.gpus.empty()) TRY(check_binding(service(step->service)));
      if (!needs_gpu(service(step->service)) || !snapshot_.gpus.empty()) continue;
      const auto reason = snapshot_.gpu_problem ? snapshot_.gpu_problem->message : "this machine has no GPU";
      return fail(
          ErrorCode::environment,
          fmt::format("service '{}' claims VRAM, but no GPU can be read: {}", step->service, reason),
          snapshot_.gpu_problem ? snapshot_.gpu_problem->hint : "Declare vram: 0 for a service that runs on the CPU.");
    }
    TRY(place_where_there_is_room(takers));
    place_naps();
    return {};
  }

  /// Who is put to sleep as soon as it is up frees memory where it has just taken it.
  void place_naps() {
    for (std::size_t i = freeing_count_; i < plan_.steps.size(); ++i) {
      Step& nap = plan_.steps[i];
      if (nap.action != Action::sleep) continue;
      nap.gpus = gpus_used_by(nap.unit);
      if (nap.gpus.empty()) nap.gpus = gpus_open_to(service(nap.service));  // it is on its way up
      for (const auto& step : plan_.steps)
        if (step.action == Action::start && step.service == nap.service) nap.gpus = step.gpus;
      for (const auto& gpu : snapshot_.gpus) {
        if (std::find(nap.gpus.begin(), nap.gpus.end(), gpu.index) == nap.gpus.end()) continue;
        const auto claim = claim_of(service(nap.service), gpu).bytes.value_or(Bytes());
        if (claim > most_kept_asleep) nap.gives[gpu.index] = claim - most_kept_asleep;
        if (claim > most_kept_asleep) nap.ceiling[gpu.index] = std::max(most_kept_asleep, Bytes(claim.count() / 4));
      }
    }
  }

  Result<void> place_where_there_is_room(const std::vector<Step*>& takers) {
    // Beside what runs? Then nobody has to wait for a stop, and a failed start costs nothing.
    if (can_start_first(takers) && place_all(takers, free_now())) {
      starts_first_ = freeing_count_ > 0 && !takers.empty();
      return {};
    }
    if (auto placed = place_all(takers, free_after_freeing()); !placed) return fail(explain(std::move(placed).error()));
    return {};
  }

  /// One that is to run on certain GPUs must not run anywhere because they cannot be read.
  Result<void> check_binding(const Service& bound) const {
    if (bound.vram == Bytes(0) || bound.gpu.any()) return {};
    return fail(
        ErrorCode::environment,
        fmt::format("service '{}' is to run on GPU {}, but no GPU can be read: {}", bound.id, bound.gpu.devices.front(),
                    snapshot_.gpu_problem ? snapshot_.gpu_problem->message : "this machine has no GPU"),
        snapshot_.gpu_problem ? snapshot_.gpu_problem->hint : std::string());
  }

  bool can_start_first(const std::vector<Step*>& takers) const {
    if (ports_conflict_) return false;
    const auto first_taking = plan_.steps.begin() + static_cast<long>(freeing_count_);
    const bool same_unit = std::any_of(first_taking, plan_.steps.end(), [&](const Step& taking) {
      return taking.action != Action::verify &&
             std::any_of(plan_.steps.begin(), first_taking,
                         [&](const Step& freeing) { return freeing.unit == taking.unit; });
    });
    // Who is to go and still allocates must go first: two do not allocate beside each other.
    const bool one_rises = std::any_of(units_.begin(), units_.end(), [&](const auto& entry) {
      return entry.second.stop_step &&
             std::any_of(entry.second.members.begin(), entry.second.members.end(), [&](const Service* member) {
               return member->vram != Bytes(0) && residency_of(member->id) == Residency::starting;
             });
    });
    // A service whose need is unknown could take the memory of the one that it replaces.
    const bool all_known =
        std::all_of(takers.begin(), takers.end(), [&](const Step* taker) { return is_known(service(taker->service)); });
    return !same_unit && !one_rises && all_known;
  }

  Result<void> place_all(const std::vector<Step*>& takers, const std::map<GpuIndex, Bytes>& free) {
    std::vector<Service> services;
    std::vector<RoomWanted> wanted(takers.size());
    services.reserve(takers.size());
    for (std::size_t i = 0; i < takers.size(); ++i) {
      wanted[i].service = &services.emplace_back(as_placed(*takers[i]));
      if (takers[i]->action == Action::wake) wanted[i].given = missing_to_wake(*takers[i]);
    }
    auto places = TRY(place_together(snapshot_.gpus, free, wanted, knowledge_.footprints));
    for (std::size_t i = 0; i < takers.size(); ++i) {
      takers[i]->gpus = std::move(places[i].gpus);
      takers[i]->claim = std::move(places[i].claim);
      takers[i]->claim_source = wanted[i].given.empty() ? places[i].source : source_of_claim(*takers[i]);
    }
    return {};
  }

  /// What a step really takes, and where: a model that goes into a running router is bound to the GPUs its unit is on.
  Service as_placed(const Step& step) const {
    Service placed = service(step.service);
    const auto& unit = units_.at(step.unit);
    if (step.action == Action::start || !unit.alive() || unit.restart || !placed.gpu.any()) return placed;
    for (const auto gpu : gpus_used_by(step.unit))
      placed.gpu.devices.push_back(std::to_string(gpu));
    return placed;
  }

  /// Who wakes is where it sleeps, and holds a part of its claim there already. Empty: NVML does not say where, or how
  /// much.
  std::map<GpuIndex, Bytes> missing_to_wake(const Step& step) const {
    std::map<GpuIndex, Bytes> missing;
    for (const auto& gpu : snapshot_.gpus) {
      const auto used = gpus_used_by(step.unit);
      if (std::find(used.begin(), used.end(), gpu.index) == used.end()) continue;
      const auto claim = claim_of(service(step.service), gpu).bytes;
      const auto held = held_by_unit(snapshot_, step.unit, gpu);
      if (!claim || !held) return {};
      missing[gpu.index] = std::max(Bytes(1), *claim - *held);
    }
    return missing;
  }

  std::map<GpuIndex, Bytes> free_now() const {
    std::map<GpuIndex, Bytes> free;
    for (const auto& gpu : snapshot_.gpus) {
      if (!gpu.free) continue;
      free[gpu.index] = *gpu.free - knowledge_.settings.vram_margin;
      for (const auto& [name, unit] : units_)
        if (unit.alive() && !unit.stop_step) free[gpu.index] -= still_to_take(name, unit, gpu);
    }
    return free;
  }

  /// Who is on the way up does not hold yet what it will.
  Bytes still_to_take(const std::string& name, const UnitCase& unit, const GpuSample& gpu) const {
    bool on_its_way = false;
    Bytes claims;
    for (const auto* member : unit.members) {
      const auto residency = residency_of(member->id);
      if (residency != Residency::running && residency != Residency::starting) continue;
      on_its_way = on_its_way || residency == Residency::starting;
      const auto claim = claim_of(*member, gpu).bytes;
      if (!claim) return Bytes();
      claims += *claim;
    }
    if (!on_its_way) return Bytes();
    auto where = gpus_used_by(name);
    if (where.empty()) where = gpus_open_to(*unit.members.front());
    // Not listed yet, and free to go anywhere: then only the check before each start can tell.
    const auto spread = unit.members.front()->gpu.any() ? std::size_t{1} : unit.members.front()->gpu.devices.size();
    if (where.size() > std::max(spread, gpus_used_by(name).size())) return Bytes();
    if (std::find(where.begin(), where.end(), gpu.index) == where.end()) return Bytes();
    const auto held = held_by_unit(snapshot_, name, gpu);
    return held ? std::max(Bytes(), claims - *held) : Bytes();
  }

  /// What can be counted on once the freeing steps are done. Where NVML does not say what a process holds, the best
  /// case stands in: the check right before each start then decides.
  std::map<GpuIndex, Bytes> free_after_freeing() const {
    auto free = free_now();
    for (const auto& gpu : snapshot_.gpus) {
      if (!gpu.free) continue;
      Bytes freed;
      bool known = true;
      std::set<std::string> units;
      for (std::size_t i = 0; i < freeing_count_; ++i)
        units.insert(plan_.steps[i].unit);
      for (const auto& name : units) {
        const auto held = held_by_unit(snapshot_, name, gpu);
        known = known && held;
        if (held) freed += freed_by(name, *held, gpu).value_or(*held);
      }
      if (known || !gpu.total)
        free[gpu.index] += freed;
      else
        free[gpu.index] = *gpu.total - knowledge_.settings.vram_margin;
    }
    return free;
  }

  /// Of what a unit holds, what its freeing steps give back. Of a router that keeps some of its models it is an
  /// estimate, in the proportion of what they claim; unset where one of them does not say.
  std::optional<Bytes> freed_by(const std::string& name, Bytes held, const GpuSample& gpu) const {
    const auto& unit = units_.at(name);
    if (unit.stop_step) return held;
    if (!unit.is_router()) return held - std::min(held, most_kept_asleep);
    std::int64_t go = 0, all = 0;
    bool all_go = true;
    for (const auto* member : unit.members) {
      if (!holds_memory(residency_of(member->id))) continue;
      const auto claim = claim_of(*member, gpu).bytes;
      if (!claim) all = -1;
      if (all >= 0) all += claim->to_mib() + 1;
      if (is_unloaded(*member) && claim) go += claim->to_mib() + 1;
      all_go = all_go && is_unloaded(*member);
    }
    if (all_go) return held;
    if (all < 0) return std::nullopt;
    return Bytes::mib(held.to_mib() * go / all);
  }

  bool is_unloaded(const Service& member) const {
    return std::any_of(plan_.steps.begin(), plan_.steps.end(),
                       [&](const Step& step) { return step.action == Action::unload && step.service == member.id; });
  }

  /// A refusal for lack of room names who holds the room and is not ours to move.
  Error explain(Error error) const {
    if (error.code != ErrorCode::refused) return error;
    std::string strangers;
    for (const auto& gpu : snapshot_.gpus)
      for (const auto& process : gpu.processes)
        if (process.used && *process.used >= Bytes::mib(256) && !snapshot_.unit_of_pid.contains(process.pid))
          strangers += fmt::format("{}pid {} holds {} on GPU {}", strangers.empty() ? "" : ", ", process.pid,
                                   to_string(*process.used), gpu.index);
    if (!strangers.empty()) error.hint = fmt::format("Not ours: {}. {}", strangers, error.hint);
    error.message += fmt::format(" ({} a GPU are kept free)", to_string(knowledge_.settings.vram_margin));
    return error;
  }

  void order() {
    let_the_starting_come_up();
    for (std::size_t i = freeing_count_; i < plan_.steps.size(); ++i) {
      Step& taking = plan_.steps[i];
      if (!allocates(taking.action) && taking.action != Action::sleep) continue;
      for (std::size_t f = 0; f < freeing_count_; ++f) {
        Step& freeing = plan_.steps[f];
        if (starts_first_)
          depend(freeing.index, taking.index);
        else if (must_wait(taking, freeing))
          depend(taking.index, freeing.index);
      }
      // After every earlier one, not only the last: which of them comes to nothing is not known yet.
      for (std::size_t e = freeing_count_; e < i; ++e) {
        const Step& earlier = plan_.steps[e];
        const bool takes = allocates(earlier.action) || earlier.action == Action::sleep;
        if (takes && !is_router_start(earlier) && !is_router_start(taking) && share_gpu(earlier, taking))
          depend(taking.index, earlier.index);
      }
    }
  }

  /// Who is being started already, by an interrupted switch or by people, allocates: nothing else does on its GPU, and
  /// nothing frees there, until it is up.
  void let_the_starting_come_up() {
    for (std::size_t i = freeing_count_; i < plan_.steps.size(); ++i) {
      Step& rising = plan_.steps[i];
      if (rising.action != Action::verify || residency_of(rising.service) != Residency::starting) continue;
      rising.gpus = gpus_used_by(rising.unit);
      if (rising.gpus.empty()) rising.gpus = gpus_open_to(service(rising.service));
      for (auto& other : plan_.steps)
        if (other.action != Action::verify && !is_router_start(other) && share_gpu(rising, other))
          depend(other.index, rising.index);
    }
  }

  static bool share_gpu(const Step& one, const Step& other) {
    return std::any_of(one.gpus.begin(), one.gpus.end(), [&](GpuIndex gpu) {
      return std::find(other.gpus.begin(), other.gpus.end(), gpu) != other.gpus.end();
    });
  }

  bool must_wait(const Step& taking, const Step& freeing) const {
    if (taking.unit == freeing.unit) return true;
    if (!is_router_start(taking) && share_gpu(taking, freeing)) return true;
    // Without figures, freeing first is the only order that cannot run out of memory, the host's included.
    return !taking.service.empty() && !is_known(service(taking.service));
  }

  void predict() {
    for (const auto& gpu : snapshot_.gpus) {
      if (!gpu.free) continue;
      plan_.free_before[gpu.index] = *gpu.free;
      Bytes after = *gpu.free;
      for (std::size_t i = 0; i < freeing_count_; ++i)
        if (plan_.steps[i].action == Action::stop)
          after += held_by_unit(snapshot_, plan_.steps[i].unit, gpu).value_or(Bytes());
      for (const auto& step : plan_.steps)
        if (const auto claim = step.claim.find(gpu.index); claim != step.claim.end()) after -= claim->second;
      plan_.free_after[gpu.index] = after;
    }
    if (snapshot_.gpus.empty()) return;
    for (const auto& step : plan_.steps)
      if (allocates(step.action) && !step.service.empty() && step.claim.empty() && !step.gpus.empty())
        plan_.notes.push_back(
            fmt::format("how much VRAM '{}' takes is unknown: declare vram: in its file", step.service));
  }

  /// As long as it took before; of the whole, the longest chain of steps that wait for each other.
  void predict_seconds() {
    std::vector<Duration> done(plan_.steps.size());
    bool all_known = true;
    for (const std::size_t index : by_dependency()) {
      Step& step = plan_.steps[index];
      step.expected = expected_of(step);
      all_known = all_known && step.expected;
      Duration begins{};
      for (const int earlier : step.after)
        begins = std::max(begins, done[static_cast<std::size_t>(earlier)]);
      done[index] = begins + step.expected.value_or(Duration::zero());
      if (all_known) plan_.expected = std::max(plan_.expected.value_or(Duration::zero()), done[index]);
    }
    if (!all_known) plan_.expected.reset();
  }

  /// Every step behind those that it waits for.
  std::vector<std::size_t> by_dependency() const {
    std::vector<std::size_t> order;
    std::vector<bool> placed(plan_.steps.size());
    for (bool moved = true; std::exchange(moved, false);)
      for (std::size_t i = 0; i < plan_.steps.size(); ++i) {
        const auto& after = plan_.steps[i].after;
        const bool ready = std::all_of(after.begin(), after.end(),
                                       [&](int earlier) { return placed[static_cast<std::size_t>(earlier)]; });
        if (placed[i] || !ready) continue;
        placed[i] = moved = true;
        order.push_back(i);
      }
    return order;
  }

  std::optional<Duration> expected_of(const Step& step) const {
    const auto* seen = measured_on(footprint_of(knowledge_.footprints, step.subject()), step.gpus, snapshot_.gpus);
    switch (step.action) {
      case Action::start: return seconds_of(seen, {Phase::start, Phase::ready});
      case Action::load: return seconds_of(seen, {Phase::load});
      case Action::stop: return seconds_of(seen, {Phase::stop, Phase::release});
      case Action::unload: return seconds_of(seen, {Phase::unload});
      case Action::sleep: return seconds_of(seen, {Phase::sleep});
      case Action::wake: return seconds_of(seen, {Phase::wake});
      case Action::verify: return Duration::zero();  // one question to a server that is up
    }
    return std::nullopt;
  }

  int add(Action action, ServiceId service, std::string unit, std::string why) {
    Step step;
    step.index = static_cast<int>(plan_.steps.size());
    step.action = action;
    step.service = std::move(service);
    step.unit = std::move(unit);
    step.why = std::move(why);
    plan_.steps.push_back(std::move(step));
    return plan_.steps.back().index;
  }

  void depend(int later, int earlier) {
    auto& after = plan_.steps[static_cast<std::size_t>(later)].after;
    if (later != earlier && std::find(after.begin(), after.end(), earlier) == after.end()) after.push_back(earlier);
  }

  std::vector<GpuIndex> gpus_used_by(const std::string& unit) const {
    std::vector<GpuIndex> used;
    for (const auto& gpu : snapshot_.gpus) {
      const bool listed = std::any_of(gpu.processes.begin(), gpu.processes.end(), [&](const GpuProcess& process) {
        const auto owner = snapshot_.unit_of_pid.find(process.pid);
        return owner != snapshot_.unit_of_pid.end() && owner->second == unit;
      });
      if (listed) used.push_back(gpu.index);
    }
    return used;
  }

  bool is_router_start(const Step& step) const {
    return step.action == Action::start && (step.service.empty() || service(step.service).in_router());
  }

  static bool names(const GpuSelector& selector, const GpuSample& gpu) {
    return std::any_of(selector.devices.begin(), selector.devices.end(), [&](const std::string& device) {
      return device == gpu.uuid || device == std::to_string(gpu.index);
    });
  }

  /// Empty for a service that uses none.
  std::vector<GpuIndex> gpus_open_to(const Service& service) const {
    std::vector<GpuIndex> open;
    for (const auto& gpu : snapshot_.gpus)
      if (service.vram != Bytes(0) && (service.gpu.any() || names(service.gpu, gpu))) open.push_back(gpu.index);
    return open;
  }

  std::vector<GpuIndex> gpus_declared_in(const std::string& unit) const {
    std::vector<GpuIndex> declared;
    for (const auto& gpu : snapshot_.gpus)
      if (std::any_of(units_.at(unit).members.begin(), units_.at(unit).members.end(),
                      [&](const Service* member) { return names(member->gpu, gpu); }))
        declared.push_back(gpu.index);
    return declared;
  }

  Claim claim_of(const Service& service, const GpuSample& gpu) const {
    return gpumod::claim_of(service, footprint_of(knowledge_.footprints, service.id), gpu);
  }

  ClaimSource source_of_claim(const Step& step) const {
    for (const auto& gpu : snapshot_.gpus)
      if (step.claim.contains(gpu.index)) return claim_of(service(step.service), gpu).source;
    return ClaimSource::unknown;
  }

  /// How much it takes is known, wherever it may go. Without a GPU there is nothing to know beyond its file.
  bool is_known(const Service& service) const {
    if (snapshot_.gpus.empty()) return service.vram || service.vllm();
    const auto open = gpus_open_to(service);
    return std::all_of(snapshot_.gpus.begin(), snapshot_.gpus.end(), [&](const GpuSample& gpu) {
      return std::find(open.begin(), open.end(), gpu.index) == open.end() || claim_of(service, gpu).bytes;
    });
  }

  const Service& service(const ServiceId& id) const { return knowledge_.services.at(id); }
  const ServiceView& view(const ServiceId& id) const {
    static const ServiceView nothing;
    const auto found = snapshot_.services.find(id);
    return found == snapshot_.services.end() ? nothing : found->second;
  }
  Residency residency_of(const ServiceId& id) const { return view(id).residency; }

  const Snapshot& snapshot_;
  const Goal& goal_;
  const Knowledge& knowledge_;
  std::map<std::string, UnitCase> units_;
  Plan plan_;
  std::size_t freeing_count_ = 0;
  std::vector<int> port_blockers_;
  bool ports_conflict_ = false;
  bool starts_first_ = false;
};

}  // namespace

Result<Plan> plan(const Snapshot& snapshot, const Goal& goal, const Knowledge& knowledge) {
  return Planner(snapshot, goal, knowledge).run();
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
    const bool rests = sleeps(view.residency) || view.residency == Residency::unloaded;
    goal.wanted[id] = comes_up ? Residency::running : rests ? view.residency : Residency::stopped;
  }
  return goal;
}

}  // namespace gpumod
