// What waits for what in a plan, and what people are told to expect of it.
#include <algorithm>

#include <fmt/format.h>

#include "fit/learning.h"
#include "switching/planner.h"

namespace gpumod {

void Planner::order() {
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
void Planner::let_the_starting_come_up() {
  for (std::size_t i = freeing_count_; i < plan_.steps.size(); ++i) {
    Step& rising = plan_.steps[i];
    if (rising.action != Action::verify || residency_of(rising.service) != Residency::starting) continue;
    rising.gpus = gpus_used_by(snapshot_, rising.unit);
    if (rising.gpus.empty()) rising.gpus = gpus_open_to(snapshot_, service(rising.service));
    for (auto& other : plan_.steps)
      if (other.action != Action::verify && !is_router_start(other) && share_gpu(rising, other))
        depend(other.index, rising.index);
  }
}

bool Planner::share_gpu(const Step& one, const Step& other) {
  return std::any_of(one.gpus.begin(), one.gpus.end(), [&](GpuIndex gpu) {
    return std::find(other.gpus.begin(), other.gpus.end(), gpu) != other.gpus.end();
  });
}

bool Planner::must_wait(const Step& taking, const Step& freeing) const {
  if (taking.unit == freeing.unit) return true;
  if (!is_router_start(taking) && share_gpu(taking, freeing)) return true;
  // Without figures, freeing first is the only order that cannot run out of memory, the host's included.
  return !taking.service.empty() && !is_known(service(taking.service));
}

void Planner::predict() {
  for (const auto& gpu : snapshot_.gpus) {
    if (!gpu.free) continue;
    plan_.free_before[gpu.index] = *gpu.free;
    Bytes after = *gpu.free - rising_on(gpu);
    for (const auto& step : plan_.steps) {
      if (const auto back = step.gives.find(gpu.index); back != step.gives.end()) after += back->second;
      if (const auto claim = step.claim.find(gpu.index); claim != step.claim.end()) after -= claim->second;
    }
    plan_.free_after[gpu.index] = after;
  }
  if (snapshot_.gpus.empty()) return;
  for (const auto& step : plan_.steps)
    if (allocates(step.action) && !step.service.empty() && step.claim.empty() && !step.gpus.empty())
      plan_.notes.push_back(
          fmt::format("how much VRAM '{}' takes is unknown: declare vram: in its file", step.service));
}

/// As long as it took before; of the whole, the longest chain of steps that wait for each other.
void Planner::predict_seconds() {
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
std::vector<std::size_t> Planner::by_dependency() const {
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

std::optional<Duration> Planner::expected_of(const Step& step) const {
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

}  // namespace gpumod
