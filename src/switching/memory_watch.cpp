#include "switching/memory_watch.h"

#include <algorithm>

#include <fmt/format.h>

namespace gpumod {

namespace {

/// A browser's ups and downs last moments; room that foreign processes have taken for longer will not come back.
constexpr Duration foreign_patience = 5s;
/// Drivers give memory back in pieces, with pauses: only after so long a pause was the last piece the last.
constexpr Duration quiet_time = 2s;
/// More than this above what nobody held before the switch is memory that is on its way back.
constexpr Bytes baseline_slack = Bytes::mib(64);
/// A server that is asleep and whose memory has not moved for so long has given what it gives.
constexpr Duration fall_patience = 10s;
/// Sums of figures that NVML gives one after the other waver by so much without anything happening.
constexpr Bytes wavering = Bytes::mib(1);

const MemoryReading* reading_of(const std::vector<MemoryReading>& readings, GpuIndex gpu) {
  const auto found = std::find_if(readings.begin(), readings.end(), [&](const auto& r) { return r.gpu == gpu; });
  return found == readings.end() ? nullptr : &*found;
}

}  // namespace

RoomWatch::RoomWatch(std::map<GpuIndex, Bytes> need, std::map<GpuIndex, Bytes> baseline, TimePoint now,
                     TimePoint deadline)
    : need_(std::move(need)), baseline_(std::move(baseline)), deadline_(deadline), fell_at_(now) {}

RoomWatch::Answer RoomWatch::on(std::vector<MemoryReading> readings, TimePoint now) {
  Answer answer;
  if (readings.empty()) answer.missing = "the GPUs cannot be read";
  bool ours_still = !before_.empty(), as_before = true, falls = false, taken = false;
  for (const auto& reading : readings) {
    if (const auto* last = reading_of(before_, reading.gpu)) {
      ours_still = ours_still && last->ours == reading.ours;
      falls = falls || reading.unattributed + wavering < last->unattributed;
    }
    const auto baseline = baseline_.find(reading.gpu);
    as_before = as_before && baseline != baseline_.end() && reading.unattributed <= baseline->second + baseline_slack;
    const auto [lowest, first] = least_.try_emplace(reading.gpu, reading.unattributed);
    if (reading.unattributed + wavering < lowest->second) {
      lowest->second = reading.unattributed;
      fell_at_ = now;
    }
    const auto need = need_.find(reading.gpu);
    if (need == need_.end() || !reading.free || *reading.free >= need->second) continue;
    answer.short_of = reading.gpu;
    answer.missing = fmt::format("{} has {} free, {} are needed", gpu_in_words(reading.gpu), to_string(*reading.free),
                                 to_string(need->second));
    // Even if all came back that nobody holds, it would not be enough: listed processes have it.
    taken = taken || (reading.every_holder_known && *reading.free + reading.unattributed < need->second);
  }
  const bool room = answer.missing.empty();
  const bool all_is_back = as_before && !falls;
  if (room && ours_still && (all_is_back || now - fell_at_ > quiet_time)) {
    answer.verdict = Verdict::room;
    return answer;
  }
  if (!taken || !ours_still) taken_since_.reset();
  if (taken && ours_still && !taken_since_) taken_since_ = now;
  const bool will_not_come = taken_since_ && now - *taken_since_ > foreign_patience;
  if (will_not_come || now >= deadline_) {
    answer.verdict = Verdict::none;
    if (room) answer.missing = "the memory of our own services has not stopped moving";
    return answer;
  }
  if (!room)
    answer.awaited = answer.missing + coming_back(readings);
  else if (!ours_still && !before_.empty())
    answer.awaited = "the memory of our own services to stop moving";
  else if (ours_still)
    answer.awaited = "what nobody holds any more to come back" + coming_back(readings);
  answer.until = now;
  if (before_ == readings) {
    answer.until = deadline_;
    if (room && ours_still) answer.until = std::min(answer.until, fell_at_ + quiet_time + Duration(1));
    if (taken_since_) answer.until = std::min(answer.until, *taken_since_ + foreign_patience + Duration(1));
  }
  before_ = std::move(readings);
  return answer;
}

/// "; 9000 MiB that nobody holds were on their way back", or nothing.
std::string RoomWatch::coming_back(const std::vector<MemoryReading>& readings) const {
  Bytes on_its_way;
  for (const auto& reading : readings) {
    const auto baseline = baseline_.find(reading.gpu);
    if (baseline != baseline_.end() && reading.unattributed > baseline->second + baseline_slack)
      on_its_way += reading.unattributed - baseline->second;
  }
  return on_its_way == Bytes() ? ""
                               : fmt::format("; {} that nobody holds were on their way back", to_string(on_its_way));
}

FallWatch::FallWatch(std::map<GpuIndex, Bytes> ceiling, TimePoint now, TimePoint deadline)
    : ceiling_(std::move(ceiling)), deadline_(deadline), fell_at_(now) {}

FallWatch::Answer FallWatch::on(const Result<std::map<GpuIndex, Bytes>>& held, TimePoint now) {
  Answer answer;
  if (!held) answer.above = fmt::format("its release cannot be proven: {}", held.error().message);
  Bytes sum;
  for (const auto& [gpu, most] : ceiling_) {
    if (!held) break;
    const auto found = held->find(gpu);
    const auto holds = found == held->end() ? Bytes() : found->second;
    sum += holds;
    if (holds > most)
      answer.above = fmt::format("it still holds {} on {}: at most {} were expected", to_string(holds),
                                 gpu_in_words(gpu), to_string(most));
  }
  if (answer.above.empty()) {
    answer.verdict = Verdict::fallen;
    return answer;
  }
  if (held && (!least_ || sum < *least_)) {
    least_ = sum;
    fell_at_ = now;
  }
  if (now >= deadline_ || now - fell_at_ > fall_patience) {
    answer.verdict = Verdict::stays;
    return answer;
  }
  answer.until = std::min(deadline_, fell_at_ + fall_patience + Duration(1));
  return answer;
}

}  // namespace gpumod
