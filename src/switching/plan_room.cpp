// What a plan takes and gives back of each GPU, and where it takes it.
#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "fit/placement.h"
#include "fit/rising.h"
#include "switching/planner.h"

namespace gpumod {

namespace {

/// A fall of less than this proves nothing.
constexpr Bytes least_to_tell = Bytes::mib(64);

}  // namespace

std::map<GpuIndex, Bytes> Planner::given_back_by(const Step& step) const {
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
std::vector<GpuIndex> Planner::gpus_of_freeing(const std::string& name) const {
  auto gpus = gpus_used_by(snapshot_, name);
  for (const auto* member : units_.at(name).members)
    if (residency_of(member->id) == Residency::starting)
      for (const auto gpu : gpus_open_to(snapshot_, *member))
        if (std::find(gpus.begin(), gpus.end(), gpu) == gpus.end()) gpus.push_back(gpu);
  return gpus;
}

/// The most that the unit of a sleep or an unload may hold once it is done: what proves that memory came back.
/// Nothing where too little is held for the difference to tell.
std::map<GpuIndex, Bytes> Planner::ceiling_of(const Step& step) const {
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
      if (gpus_used_by(snapshot_, step.unit).size() > 1) return {};
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

Result<void> Planner::place_on_gpus() {
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
void Planner::place_naps() {
  for (std::size_t i = freeing_count_; i < plan_.steps.size(); ++i) {
    Step& nap = plan_.steps[i];
    if (nap.action != Action::sleep) continue;
    nap.gpus = gpus_used_by(snapshot_, nap.unit);
    if (nap.gpus.empty()) nap.gpus = gpus_open_to(snapshot_, service(nap.service));  // it is on its way up
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

Result<void> Planner::place_where_there_is_room(const std::vector<Step*>& takers) {
  // Beside what runs? Then nobody has to wait for a stop, and a failed start costs nothing.
  if (can_start_first(takers) && place_all(takers, free_now())) {
    starts_first_ = freeing_count_ > 0 && !takers.empty();
    return {};
  }
  if (auto placed = place_all(takers, free_after_freeing()); !placed) return fail(explain(std::move(placed).error()));
  return {};
}

/// One that is to run on certain GPUs must not run anywhere because they cannot be read.
Result<void> Planner::check_binding(const Service& bound) const {
  if (bound.vram == Bytes(0) || bound.gpu.any()) return {};
  return fail(
      ErrorCode::environment,
      fmt::format("service '{}' is to run on GPU {}, but no GPU can be read: {}", bound.id, bound.gpu.devices.front(),
                  snapshot_.gpu_problem ? snapshot_.gpu_problem->message : "this machine has no GPU"),
      snapshot_.gpu_problem ? snapshot_.gpu_problem->hint : std::string());
}

bool Planner::can_start_first(const std::vector<Step*>& takers) const {
  if (ports_conflict_) return false;
  const auto first_taking = plan_.steps.begin() + static_cast<long>(freeing_count_);
  const bool same_unit = std::any_of(first_taking, plan_.steps.end(), [&](const Step& taking) {
    return taking.action != Action::verify && std::any_of(plan_.steps.begin(), first_taking, [&](const Step& freeing) {
             return freeing.unit == taking.unit;
           });
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

Result<void> Planner::place_all(const std::vector<Step*>& takers, const std::map<GpuIndex, Bytes>& free) {
  std::vector<Service> services;
  std::vector<RoomWanted> wanted(takers.size());
  services.reserve(takers.size());
  for (std::size_t i = 0; i < takers.size(); ++i) {
    wanted[i].service = &services.emplace_back(as_placed(*takers[i]));
    wanted[i].settled = takers[i]->action == Action::wake;
    if (wanted[i].settled) wanted[i].given = missing_to_wake(*takers[i]);
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
Service Planner::as_placed(const Step& step) const {
  Service placed = service(step.service);
  const auto& unit = units_.at(step.unit);
  if (step.action == Action::start || !unit.alive() || unit.restart || !placed.gpu.any()) return placed;
  for (const auto gpu : gpus_used_by(snapshot_, step.unit))
    placed.gpu.devices.push_back(std::to_string(gpu));
  return placed;
}

/// Who wakes is where it sleeps, and holds a part of its claim there already. Empty: NVML does not say where, or how
/// much.
std::map<GpuIndex, Bytes> Planner::missing_to_wake(const Step& step) const {
  std::map<GpuIndex, Bytes> missing;
  for (const auto& gpu : snapshot_.gpus) {
    const auto used = gpus_used_by(snapshot_, step.unit);
    if (std::find(used.begin(), used.end(), gpu.index) == used.end()) continue;
    const auto claim = claim_of(service(step.service), gpu).bytes;
    const auto held = held_by_unit(snapshot_, step.unit, gpu);
    if (!claim || !held) return {};
    missing[gpu.index] = std::max(Bytes(1), *claim - *held);
  }
  return missing;
}

std::map<GpuIndex, Bytes> Planner::free_now() const {
  std::map<GpuIndex, Bytes> free;
  for (const auto& gpu : snapshot_.gpus) {
    if (!gpu.free) continue;
    free[gpu.index] = *gpu.free - knowledge_.settings.vram_margin - rising_on(gpu);
  }
  return free;
}

/// Of what nobody knows, nothing is counted: the check before each start decides.
Bytes Planner::rising_on(const GpuSample& gpu) const {
  Bytes rising;
  for (const auto& [name, unit] : units_)
    if (unit.alive() && !unit.stop_step && !unit.members.empty())
      rising += still_to_take(snapshot_, name, unit.members, knowledge_.footprints, gpu).value_or(Bytes());
  return rising;
}

/// What can be counted on once the freeing steps are done. Where NVML does not say what a process holds, the best
/// case stands in: the check right before each start then decides.
std::map<GpuIndex, Bytes> Planner::free_after_freeing() const {
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
std::optional<Bytes> Planner::freed_by(const std::string& name, Bytes held, const GpuSample& gpu) const {
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

bool Planner::is_unloaded(const Service& member) const {
  return std::any_of(plan_.steps.begin(), plan_.steps.end(),
                     [&](const Step& step) { return step.action == Action::unload && step.service == member.id; });
}

/// A refusal for lack of room names who holds the room and is not ours to move.
Error Planner::explain(Error error) const {
  if (!lacks_memory(error)) return error;
  std::vector<std::string> strangers, left_over, of_broken_files;
  for (const auto& gpu : snapshot_.gpus)
    for (const auto& process : gpu.processes) {
      if (!process.used || *process.used < Bytes::mib(256)) continue;
      const auto held = fmt::format("holds {} on {}", to_string(*process.used), gpu_in_words(gpu.index));
      const auto owner = snapshot_.unit_of_pid.find(process.pid);
      if (owner == snapshot_.unit_of_pid.end())
        strangers.push_back(fmt::format("pid {} {}", process.pid, held));
      else if (const auto unit = units_.find(owner->second); unit == units_.end() || !unit->second.alive())
        left_over.push_back(fmt::format("pid {} of {} {}", process.pid, owner->second, held));
      else if (unit->second.members.empty() && knowledge_.broken.contains(unit->second.status->tag))
        of_broken_files.push_back(
            fmt::format("{} {}: gpumod service stop {}", owner->second, held, unit->second.status->tag));
    }
  if (!strangers.empty()) error.hint = fmt::format("Not ours: {}. {}", join(strangers, ", "), error.hint);
  if (!left_over.empty())
    error.hint = fmt::format("In a container that has outlived its unit: {}; stop that container. {}",
                             join(left_over, ", "), error.hint);
  if (!of_broken_files.empty())
    error.hint = fmt::format("Left as it is, for its file is broken: {}. {}", join(of_broken_files, ", "), error.hint);
  error.message += fmt::format(" ({} a GPU are kept free)", to_string(knowledge_.settings.vram_margin));
  return error;
}

std::vector<GpuIndex> Planner::gpus_declared_in(const std::string& unit) const {
  std::vector<GpuIndex> declared;
  for (const auto& gpu : snapshot_.gpus)
    if (std::any_of(units_.at(unit).members.begin(), units_.at(unit).members.end(),
                    [&](const Service* member) { return names(member->gpu, gpu); }))
      declared.push_back(gpu.index);
  return declared;
}

Claim Planner::claim_of(const Service& service, const GpuSample& gpu) const {
  return gpumod::claim_of(service, footprint_of(knowledge_.footprints, service.id), gpu);
}

ClaimSource Planner::source_of_claim(const Step& step) const {
  for (const auto& gpu : snapshot_.gpus)
    if (step.claim.contains(gpu.index)) return claim_of(service(step.service), gpu).source;
  return ClaimSource::unknown;
}

/// How much it takes is known, wherever it may go. Without a GPU there is nothing to know beyond its file.
bool Planner::is_known(const Service& service) const {
  if (snapshot_.gpus.empty()) return service.vram || service.vllm();
  const auto open = gpus_open_to(snapshot_, service);
  return std::all_of(snapshot_.gpus.begin(), snapshot_.gpus.end(), [&](const GpuSample& gpu) {
    return std::find(open.begin(), open.end(), gpu.index) == open.end() || claim_of(service, gpu).bytes;
  });
}

}  // namespace gpumod
