#include "fit/timeline.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "fit/claim.h"

namespace gpumod {

namespace {

/// Steps in an order in which each comes after those it waits for; of several that could come, the first in the plan.
std::vector<const Step*> in_order(const Plan& plan) {
  std::vector<const Step*> order;
  std::set<int> done;
  while (order.size() < plan.steps.size()) {
    const auto next = std::find_if(plan.steps.begin(), plan.steps.end(), [&](const Step& step) {
      return !done.contains(step.index) &&
             std::all_of(step.after.begin(), step.after.end(), [&](int earlier) { return done.contains(earlier); });
    });
    if (next == plan.steps.end()) break;  // steps that wait for each other: no plan of ours has them
    done.insert(next->index);
    order.push_back(&*next);
  }
  return order;
}

class Drawing {
 public:
  Drawing(const Snapshot& snapshot, const Plan& plan, const std::map<ServiceId, Service>& services,
          const Footprints& known)
      : snapshot_(snapshot), plan_(plan), services_(services), known_(known) {}

  Timeline draw() {
    look_at_now();
    mark(Timeline::Edge::now, std::nullopt);
    let_the_starting_rise();
    for (const auto* step : in_order(plan_)) {
      begin(*step);
      mark(Timeline::Edge::begins, step->index);
      end(*step);
      mark(Timeline::Edge::ends, step->index);
    }
    return std::move(timeline_);
  }

 private:
  struct Gpu {
    Bytes free;
    Bytes others;
    std::map<std::string, Bytes> held;  ///< by unit
    bool taken = false;                 ///< something is, at this moment
  };

  void look_at_now() {
    for (const auto& sample : snapshot_.gpus) {
      if (!sample.free) {
        timeline_.unknown.push_back(fmt::format("GPU {} does not say what is free", sample.index));
        continue;
      }
      Gpu gpu;
      gpu.free = *sample.free;
      Bytes ours;
      for (const auto& [name, unit] : snapshot_.units) {
        const auto held = held_by_unit(snapshot_, name, sample);
        if (!held) {
          timeline_.unknown.push_back(
              fmt::format("what {} holds on GPU {} cannot be read", name_of(name), sample.index));
          continue;
        }
        if (*held > Bytes()) gpu.held[name] = *held;
        ours += *held;
      }
      if (sample.total)
        gpu.others = std::max(Bytes(), *sample.total - sample.reserved.value_or(Bytes()) - gpu.free - ours);
      gpus_[sample.index] = std::move(gpu);
    }
  }

  /// As the planner counts them: they take what they do not hold yet, whatever else is done.
  void let_the_starting_rise() {
    bool any = false;
    for (const auto& [id, view] : snapshot_.services) {
      const auto service = services_.find(id);
      if (view.residency != Residency::starting || service == services_.end() || is_stopped(view.unit)) continue;
      for (auto& [index, gpu] : gpus_) {
        const auto claim = rest_of_claim(service->second, view.unit, index);
        if (claim <= Bytes()) continue;
        take(gpu, view.unit, claim);
        any = true;
      }
    }
    if (any) mark(Timeline::Edge::rises, std::nullopt);
  }

  Bytes rest_of_claim(const Service& service, const std::string& unit, GpuIndex index) const {
    const auto sample = std::find_if(snapshot_.gpus.begin(), snapshot_.gpus.end(),
                                     [&](const GpuSample& each) { return each.index == index; });
    const bool holds = gpus_.at(index).held.contains(unit);
    const bool bound = std::any_of(service.gpu.devices.begin(), service.gpu.devices.end(), [&](const auto& device) {
      return device == sample->uuid || device == std::to_string(index);
    });
    // Free to go anywhere, and seen nowhere yet: with one GPU it is that one, with several nobody knows.
    const bool only_one = service.gpu.any() && snapshot_.gpus.size() == 1;
    if (!holds && !bound && !only_one) return Bytes();
    const auto claim = claim_of(service, footprint_of(known_, service.id), *sample).bytes.value_or(Bytes());
    return holds ? claim - gpus_.at(index).held.at(unit) : claim;
  }

  bool is_stopped(const std::string& unit) const {
    return std::any_of(plan_.steps.begin(), plan_.steps.end(),
                       [&](const Step& step) { return step.action == Action::stop && step.unit == unit; });
  }

  void begin(const Step& step) {
    if (!allocates(step.action)) return;
    for (const auto& [index, claim] : step.claim)
      if (const auto gpu = gpus_.find(index); gpu != gpus_.end()) take(gpu->second, step.unit, claim);
    const bool takes_some = !step.service.empty() && !step.gpus.empty();
    if (takes_some && step.claim.empty())
      timeline_.unknown.push_back(fmt::format("how much '{}' takes is not known", step.service));
  }

  void end(const Step& step) {
    for (auto& [index, gpu] : gpus_) {
      gpu.taken = false;
      const auto gives = step.gives.find(index);
      if (gives == step.gives.end()) continue;
      auto& held = gpu.held[step.unit];
      const auto back = std::min(gives->second, held);
      held -= back;
      gpu.free += back;
    }
  }

  static void take(Gpu& gpu, const std::string& unit, Bytes amount) {
    gpu.free -= amount;
    gpu.held[unit] += amount;
    gpu.taken = true;
  }

  void mark(Timeline::Edge edge, std::optional<int> step) {
    Timeline::Moment moment{edge, step, {}};
    for (auto& [index, gpu] : gpus_) {
      Timeline::Level level{index, gpu.free, {}};
      for (const auto& [unit, held] : gpu.held)
        if (held > Bytes()) level.held.push_back({name_of(unit), held});
      if (gpu.others > Bytes()) level.held.push_back({"", gpu.others});
      moment.levels.push_back(std::move(level));
      const auto at = timeline_.moments.size();
      keep_lowest(timeline_.lowest, index, {gpu.free, at});
      if (gpu.taken) keep_lowest(timeline_.lowest_taking, index, {gpu.free, at});
      if (edge == Timeline::Edge::rises) gpu.taken = false;
    }
    timeline_.moments.push_back(std::move(moment));
  }

  static void keep_lowest(std::map<GpuIndex, Timeline::Low>& lows, GpuIndex gpu, Timeline::Low low) {
    const auto found = lows.find(gpu);
    if (found == lows.end())
      lows.emplace(gpu, low);
    else if (low.free < found->second.free)
      found->second = low;
  }

  std::string name_of(const std::string& unit) const { return name_of_unit(unit, services_); }

  const Snapshot& snapshot_;
  const Plan& plan_;
  const std::map<ServiceId, Service>& services_;
  const Footprints& known_;
  std::map<GpuIndex, Gpu> gpus_;
  Timeline timeline_;
};

}  // namespace

std::string name_of_unit(const std::string& unit, const std::map<ServiceId, Service>& services) {
  std::string name;
  for (const auto& [id, service] : services) {
    if (service.unit_name() != unit) continue;
    if (!name.empty()) return service.router.empty() ? unit : service.router;
    name = id;
  }
  return name.empty() ? unit : name;
}

Timeline timeline_of(const Snapshot& snapshot, const Plan& plan, const std::map<ServiceId, Service>& services,
                     const Footprints& known) {
  return Drawing(snapshot, plan, services, known).draw();
}

Fits fits(const Timeline& timeline, Bytes margin) {
  for (const auto& [gpu, low] : timeline.lowest_taking)
    if (low.free < margin) return Fits::no;
  return timeline.unknown.empty() ? Fits::yes : Fits::unknown;
}

}  // namespace gpumod
