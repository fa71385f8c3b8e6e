#include "fit/learning.h"

#include <algorithm>

#include "fit/claim.h"

namespace gpumod {

namespace {

template <typename T>
T median_of(std::vector<T> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];  // of an even number the longer, the larger: the cautious one
}

PhaseSeconds seconds_over(const std::vector<Duration>& runs) {
  PhaseSeconds seen;
  seen.median = median_of(runs);
  seen.runs = static_cast<int>(runs.size());
  Duration distance{};
  for (const auto run : runs)
    distance += run > seen.median ? run - seen.median : seen.median - run;
  seen.spread = distance / seen.runs;
  return seen;
}

}  // namespace

bool may_be_learned(const Service& service, const Footprint& known, const GpuSample& gpu, Bytes peak,
                    std::optional<Bytes> least_free) {
  if (peak <= Bytes()) return false;
  if (!may_shrink_itself(service)) return true;
  const auto* estimate = counted_estimate(service, known, gpu);
  if (estimate && peak >= estimate->exact()) return true;
  // It shrinks by layers and by pieces of context: a tenth is more than either.
  return least_free && !leaves_another_amount(service) && *least_free >= left_by_fit + Bytes(peak.count() / 10);
}

MeasuredFootprint summary_of(const std::vector<Measurement>& runs) {
  MeasuredFootprint all;
  std::map<Residency, std::vector<Bytes>> steady;
  std::map<Phase, std::vector<Duration>> phases;
  for (const auto& run : runs) {
    all.newest = std::max(all.newest, run.at);
    if (run.peak) all.peak = std::max(all.peak.value_or(Bytes()), *run.peak);
    if (run.peak) ++all.runs;
    for (const auto& [residency, held] : run.steady)
      steady[residency].push_back(held);
    for (const auto& [phase, took] : run.phases)
      phases[phase].push_back(took);
  }
  for (const auto& [residency, amounts] : steady)
    all.steady[residency] = median_of(amounts);
  for (const auto& [phase, times] : phases)
    all.phases[phase] = seconds_over(times);
  return all;
}

std::map<std::string, MeasuredFootprint> summaries_of(const std::vector<Measurement>& runs) {
  std::map<std::string, std::vector<Measurement>> by_gpu;
  for (const auto& run : runs)
    by_gpu[run.gpu].push_back(run);
  std::map<std::string, MeasuredFootprint> all;
  for (const auto& [gpu, its_runs] : by_gpu)
    all[gpu] = summary_of(its_runs);
  return all;
}

std::optional<std::string> gpu_name(const std::vector<GpuIndex>& gpus, const std::vector<GpuSample>& samples) {
  if (gpus.empty()) return "";
  for (const auto index : gpus)
    for (const auto& sample : samples)
      if (sample.index == index) return sample.name;
  return std::nullopt;
}

const MeasuredFootprint* measured_on(const Footprint& known, const std::vector<GpuIndex>& gpus,
                                     const std::vector<GpuSample>& samples) {
  const auto name = gpu_name(gpus, samples);
  const auto found = name ? known.measured.find(*name) : known.measured.end();
  return found == known.measured.end() ? nullptr : &found->second;
}

std::optional<Duration> seconds_of(const MeasuredFootprint* measured, std::initializer_list<Phase> phases) {
  if (!measured) return std::nullopt;
  Duration sum{};
  for (const auto phase : phases) {
    const auto found = measured->phases.find(phase);
    if (found == measured->phases.end()) return std::nullopt;
    sum += found->second.median;
  }
  return sum;
}

Duration patience_for(const PhaseSeconds& seen, Duration floor) {
  constexpr int most = 3;
  return std::clamp(seen.median * 3 / 2 + seen.spread * 4, floor, most * floor);
}

bool disagree(Bytes better_known, Bytes other) {
  const auto distance = better_known > other ? better_known - other : other - better_known;
  return distance.count() > better_known.count() / 10;
}

}  // namespace gpumod
