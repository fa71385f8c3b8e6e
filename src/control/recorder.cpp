#include "control/recorder.h"

#include <algorithm>

#include "fit/claim.h"
#include "fit/learning.h"
#include "fit/timeline.h"

namespace gpumod {

namespace {

using Stage = Switch::Stage;

/// The phase that a step is in; unset where its time says nothing about it: it waits for memory, or something went wrong.
std::optional<Phase> phase_in(Action action, Stage stage) {
  const bool acting = stage == Stage::acting;
  const bool coming = stage == Stage::waiting || stage == Stage::verifying;
  const bool falling = stage == Stage::waiting || stage == Stage::falling;
  const auto either = [](bool first, Phase one, bool second, Phase other) {
    return first ? std::optional(one) : second ? std::optional(other) : std::nullopt;
  };
  switch (action) {
    case Action::start: return either(acting, Phase::start, coming, Phase::ready);
    case Action::stop: return either(acting, Phase::stop, stage == Stage::proving, Phase::release);
    case Action::load: return either(acting, Phase::load, coming, Phase::load);
    case Action::wake: return either(acting, Phase::wake, coming, Phase::wake);
    case Action::sleep: return either(acting, Phase::sleep, falling, Phase::sleep);
    case Action::unload: return either(acting, Phase::unload, falling, Phase::unload);
    case Action::verify: return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

void Recorder::note_steps(const Switch& about, TimePoint at) {
  if (!first_look_ && about.first_snapshot()) note_first(*about.first_snapshot(), at);
  const auto& reports = about.reports();
  watched_.resize(reports.size());
  for (std::size_t i = 0; i < reports.size(); ++i)
    if (const auto stage = about.stage_of(static_cast<int>(i))) {
      tape_.note_stage(reports[i], *stage, at);
      note_step(reports[i], *stage, watched_[i], at);
    }
}

/// A router's processes carry its unit's name, but people think of the model: as long as there is one, it gives the name.
void Recorder::note_first(const Snapshot& first, TimePoint at) {
  first_look_ = first;
  for (const auto& [id, service] : knowledge_.services)
    unit_names_[service.unit_name()] = name_of_unit(service.unit_name(), knowledge_.services);
  std::map<std::string, int> loaded;
  for (const auto& [id, service] : knowledge_.services) {
    const auto view = first.services.find(id);
    if (!service.in_router() || view == first.services.end() || view->second.residency != Residency::running) continue;
    if (++loaded[service.unit_name()] == 1)
      loaded_before_[service.unit_name()] = id;
    else
      loaded_before_.erase(service.unit_name());
  }
  tape_.note_gpus(first.gpus, holders(first.unit_of_pid), at);
}

std::map<pid_t, std::string> Recorder::holders(const std::map<pid_t, std::string>& owners) const {
  std::map<pid_t, std::string> names;
  std::map<std::string, bool> loads;
  for (const auto& watched : watched_)
    loads[watched.unit] = loads[watched.unit] || watched.loads;
  for (const auto& [pid, unit] : owners) {
    const auto name = unit_names_.find(unit);
    const auto loaded = loaded_before_.find(unit);
    names[pid] = loaded != loaded_before_.end() && !loads[unit] ? loaded->second
                 : name != unit_names_.end()                    ? name->second
                                                                : unit;
  }
  for (const auto& watched : watched_)
    if (watched.loads)
      for (const auto pid : watched.own)
        names[pid] = watched.subject;
  return names;
}

void Recorder::note_step(const StepReport& report, Stage stage, Watched& watched, TimePoint at) {
  if (watched.stage == stage) return;
  if (watched.stage)
    if (const auto phase = phase_in(report.action, *watched.stage)) watched.phases[*phase] += at - watched.since;
  watched.unit = report.unit;
  watched.subject = report.subject;
  watched.stage = stage;
  watched.since = at;
  if (stage == Stage::acting && !watched.holds) {
    watched.holds = true;
    if (report.action == Action::load) begin_load(report, watched);
  }
  wants_a_sample_ = wants_a_sample_ || stage == Stage::verifying;
  watched.done = stage == Stage::done;
}

void Recorder::begin_load(const StepReport& report, Watched& watched) {
  for (auto& earlier : watched_) {
    if (!earlier.loads || earlier.unit != report.unit) continue;
    earlier.closed = true;
    // Processes of the earlier one that nobody has seen yet would be taken for this one's.
    watched.blind = watched.blind || earlier.own.empty();
  }
  watched.loads = true;
  // A step may begin before anything was sampled: what the switch itself has seen first was there before it in any case.
  const auto note = [&](const std::map<pid_t, std::string>& owners) {
    for (const auto& [pid, unit] : owners)
      if (unit == report.unit) watched.before.insert(pid);
  };
  note(owners_);
  if (first_look_) note(first_look_->unit_of_pid);
}

void Recorder::note_gpus(const std::vector<GpuSample>& gpus, const std::map<pid_t, std::string>& owners, TimePoint at) {
  gpus_ = gpus;
  owners_ = owners;
  for (auto& watched : watched_)
    if (watched.holds) note_held(watched);
  if (first_look_) tape_.note_gpus(gpus, holders(owners), at);
}

void Recorder::note_held(Watched& watched) const {
  watched.last.clear();
  for (const auto& gpu : gpus_) {
    if (gpu.free && !watched.done) {
      const auto [least, first] = watched.least_free.emplace(gpu.index, *gpu.free);
      if (!first) least->second = std::min(least->second, *gpu.free);
    }
    for (const auto& process : gpu.processes) {
      const auto owner = owners_.find(process.pid);
      if (owner == owners_.end() || owner->second != watched.unit || watched.before.contains(process.pid)) continue;
      if (!watched.closed) watched.own.insert(process.pid);
      if (!watched.own.contains(process.pid)) continue;
      watched.blind = watched.blind || !process.used;
      watched.last[gpu.index] += process.used.value_or(Bytes());
    }
  }
  for (const auto& [index, held] : watched.last)
    watched.peak[index] = std::max(watched.peak[index], held);
}

std::vector<Measurement> Recorder::learned(const Switch& about, WallTime at) const {
  std::map<std::pair<std::string, std::string>, Measurement> by_subject;
  if (!about.finished() || about.result() != SwitchResult::committed) return {};
  for (std::size_t i = 0; i < watched_.size(); ++i) {
    const auto& report = about.reports()[i];
    const auto* step = about.step_at(static_cast<int>(i));
    const auto key = keys_.find(report.subject);
    if (!step || key == keys_.end() || report.result != "done" || report.attempts != 1 || report.undo) continue;
    Measurement one;
    one.subject = report.subject;
    one.key = key->second;
    const auto gpu = name_of(step->gpus);
    if (!gpu) continue;
    one.gpu = *gpu;
    one.at = at;
    one.phases = watched_[i].phases;
    add_memory(*step, watched_[i], one);
    if (one.phases.empty() && !one.peak && one.steady.empty()) continue;
    // A service that was stopped and started in one switch is one run.
    auto& all = by_subject.try_emplace({one.subject, one.gpu}, one).first->second;
    if (one.peak) all.peak = one.peak;
    for (const auto& [residency, held] : one.steady)
      all.steady[residency] = held;
    for (const auto& [phase, took] : one.phases)
      all.phases[phase] = took;
  }
  std::vector<Measurement> runs;
  for (auto& [subject, run] : by_subject) {
    // Who was put to sleep as soon as it was up holds at the end what a sleeper holds.
    if (run.steady.size() > 1) run.steady.erase(Residency::running);
    runs.push_back(std::move(run));
  }
  return runs;
}

/// A GPU that the last sample lacks was there when it was planned on.
std::optional<std::string> Recorder::name_of(const std::vector<GpuIndex>& gpus) const {
  const auto name = gpu_name(gpus, gpus_);
  return name || !first_look_ ? name : gpu_name(gpus, first_look_->gpus);
}

Recording Recorder::recording(const Switch& about, Recording head) const {
  auto recording = tape_.played(about, std::move(head));
  if (!about.first_plan() || !about.first_snapshot()) return recording;
  const auto& plan = *about.first_plan();
  recording.predicted = plan.expected;
  const auto foreseen = timeline_of(*about.first_snapshot(), plan, knowledge_.services, knowledge_.footprints);
  for (auto& gpu : recording.gpus)
    if (const auto low = foreseen.lowest.find(gpu.index);
        foreseen.unknown.empty() && gpu.total && low != foreseen.lowest.end())
      gpu.predicted_peak = *gpu.total - low->second.free;
  return recording;
}

/// On the GPU where it took most.
void Recorder::add_memory(const Step& step, const Watched& watched, Measurement& measured) const {
  const auto service = knowledge_.services.find(step.service);
  if (service == knowledge_.services.end() || watched.blind || watched.peak.empty() || watched.last.empty()) return;
  // The process of a router, without any model: nobody asks how much that takes.
  const bool comes_up = (step.action == Action::start && !service->second.in_router()) || step.action == Action::load;
  if (!comes_up && step.action != Action::wake && step.action != Action::sleep) return;
  const auto by_amount = [](const auto& a, const auto& b) { return a.second < b.second; };
  const auto most = *std::max_element(watched.peak.begin(), watched.peak.end(), by_amount);
  const auto held = *std::max_element(watched.last.begin(), watched.last.end(), by_amount);
  const auto gpu = std::find_if(gpus_.begin(), gpus_.end(), [&](const auto& each) { return each.index == most.first; });
  if (gpu == gpus_.end() || gpu->name != measured.gpu) return;
  if (step.action == Action::sleep) {
    measured.steady[step.target] = held.second;
    return;
  }
  const auto& known = footprint_of(knowledge_.footprints, step.service);
  const auto free = watched.least_free.find(gpu->index);
  const auto least_free = free == watched.least_free.end() ? std::nullopt : std::optional(free->second);
  if (!may_be_learned(service->second, known, *gpu, most.second, least_free)) return;
  measured.steady[Residency::running] = held.second;
  if (comes_up) measured.peak = most.second;
}

}  // namespace gpumod
