#include "fit/timeline.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "fit/rising.h"

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
      : snapshot_(snapshot), plan_(plan), services_(services), known_(known), rising_(find_rising()) {}

  Timeline draw() {
    find_concerned();
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

  /// Where something is taken, or is about to be.
  void find_concerned() {
    for (const auto& step : plan_.steps)
      if (allocates(step.action) && !step.service.empty()) concerned_.insert(step.gpus.begin(), step.gpus.end());
    for (const auto& [unit, members] : rising_)
      for (const auto& sample : snapshot_.gpus)
        if (still_to_take(snapshot_, unit, members, known_, sample).value_or(Bytes()) > Bytes())
          concerned_.insert(sample.index);
  }

  void may_take_more(std::string words) {
    timeline_.unknown.push_back(std::move(words));
    timeline_.may_take_more = true;
  }

  bool is_freed(const std::string& unit, GpuIndex gpu) const {
    return std::any_of(plan_.steps.begin(), plan_.steps.end(), [&](const Step& step) {
      return frees(step.action) && step.unit == unit &&
             std::find(step.gpus.begin(), step.gpus.end(), gpu) != step.gpus.end();
    });
  }

  void look_at_now() {
    for (const auto& sample : snapshot_.gpus) {
      const bool concerned = concerned_.contains(sample.index);
      if (!sample.free) {
        if (concerned) may_take_more(fmt::format("{} does not say what is free", gpu_in_words(sample.index)));
        continue;
      }
      Gpu gpu;
      gpu.free = *sample.free;
      Bytes ours;
      for (const auto& [name, unit] : snapshot_.units) {
        const auto held = held_by_unit(snapshot_, name, sample);
        if (!held && concerned && is_freed(name, sample.index)) {
          timeline_.unknown.push_back(
              fmt::format("what {} holds on {} cannot be read", name_of(name), gpu_in_words(sample.index)));
          timeline_.may_be_freer.insert(sample.index);
        }
        if (held.value_or(Bytes()) > Bytes()) gpu.held[name] = *held;
        ours += held.value_or(Bytes());
      }
      if (sample.total)
        gpu.others = std::max(Bytes(), *sample.total - sample.reserved.value_or(Bytes()) - gpu.free - ours);
      gpus_[sample.index] = std::move(gpu);
    }
  }

  /// As the planner counts them: they take what they do not hold yet, whatever else is done.
  void let_the_starting_rise() {
    bool any = false;
    for (const auto& [unit, members] : rising_)
      for (const auto& sample : snapshot_.gpus) {
        const auto rest = still_to_take(snapshot_, unit, members, known_, sample);
        if (!rest && concerned_.contains(sample.index))
          may_take_more(
              fmt::format("how much {} will still take of {} is not known", name_of(unit), gpu_in_words(sample.index)));
        const auto gpu = gpus_.find(sample.index);
        if (gpu == gpus_.end() || rest.value_or(Bytes()) <= Bytes()) continue;
        take(gpu->second, unit, *rest);
        any = true;
      }
    if (any) mark(Timeline::Edge::rises, std::nullopt);
  }

  /// Units of ours that are on the way up and are not to go, with their services.
  std::map<std::string, std::vector<const Service*>> find_rising() const {
    std::map<std::string, std::vector<const Service*>> rising;
    for (const auto& [id, view] : snapshot_.services)
      if (view.residency == Residency::starting && services_.contains(id) && !is_stopped(view.unit))
        rising[view.unit] = {};
    for (auto& [unit, members] : rising)
      for (const auto& [id, service] : services_)
        if (service.unit_name() == unit) members.push_back(&service);
    std::erase_if(rising, [](const auto& entry) { return entry.second.empty(); });
    return rising;
  }

  bool is_stopped(const std::string& unit) const {
    return std::any_of(plan_.steps.begin(), plan_.steps.end(),
                       [&](const Step& step) { return step.action == Action::stop && step.unit == unit; });
  }

  void begin(const Step& step) {
    if (!allocates(step.action)) return;
    for (const auto& [index, claim] : step.claim)
      if (const auto gpu = gpus_.find(index); gpu != gpus_.end()) take(gpu->second, step.unit, claim);
    if (step.service.empty()) return;
    // Of a GPU that does not say what is free nothing is claimed either.
    const bool missing = std::any_of(step.gpus.begin(), step.gpus.end(),
                                     [&](GpuIndex gpu) { return gpus_.contains(gpu) && !step.claim.contains(gpu); });
    if (missing) may_take_more(fmt::format("how much '{}' takes is not known", step.service));
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
  const std::map<std::string, std::vector<const Service*>> rising_;
  std::set<GpuIndex> concerned_;
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
  bool certain = !timeline.may_take_more;
  for (const auto& [gpu, low] : timeline.lowest_taking) {
    if (low.free >= margin) continue;
    if (!timeline.may_be_freer.contains(gpu)) return Fits::no;
    certain = false;
  }
  return certain ? Fits::yes : Fits::unknown;
}

}  // namespace gpumod
