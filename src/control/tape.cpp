#include "control/tape.h"

#include <algorithm>

#include <fmt/format.h>

namespace gpumod {

namespace {

/// Less than this is the driver's and the desktop's noise.
constexpr Bytes worth_a_point = Bytes::mib(8);
constexpr std::size_t points_of_all = 960, fewest_points = 40, most_points = 240;
/// Shorter ones are a look at the GPU, and no wait.
constexpr Duration worth_telling = 1ms;

std::optional<Recording::Stage> recorded(Action action, Switch::Stage stage) {
  using From = Switch::Stage;
  using To = Recording::Stage;
  switch (stage) {
    case From::memory: return To::memory;
    case From::acting: return To::act;
    case From::waiting: return frees(action) ? To::fall : To::ready;
    case From::falling: return To::fall;
    case From::verifying: return To::verify;
    case From::proving:
    case From::proving_kill: return To::release;
    case From::killing: return To::kill;
    case From::clearing:
    case From::clearing_proof:
    case From::clearing_kill:
    case From::clearing_last_proof: return To::clear;
    case From::pending:
    case From::done:
    case From::failed: return std::nullopt;
  }
  return std::nullopt;
}

bool is_trouble(const Event& event) {
  using Kind = Event::Kind;
  const auto kind = event.kind;
  return !event.abandoned && (kind == Kind::job_failed || kind == Kind::not_ready || kind == Kind::not_verified ||
                              kind == Kind::memory_short || kind == Kind::survived || kind == Kind::not_journaled);
}

bool apart(Bytes a, Bytes b) {
  return (a < b ? b - a : a - b) >= worth_a_point;
}

bool differs(const Recording::Point& before, const Recording::Point& now) {
  if (before.used.has_value() != now.used.has_value()) return true;
  if (now.used && apart(*before.used, *now.used)) return true;
  return before.held.size() != now.held.size() ||
         !std::equal(before.held.begin(), before.held.end(), now.held.begin(),
                     [](const auto& a, const auto& b) { return a.first == b.first && !apart(a.second, b.second); });
}

}  // namespace

void Tape::note_event(const Event& event, TimePoint at) {
  if (event.step < 0) return;
  auto& track = tracks_[event.step];
  const bool about_memory = event.kind == Event::Kind::memory_ok || event.kind == Event::Kind::memory_short;
  if (about_memory) track.awaited[event.attempt] = event.text;
  if (!is_trouble(event)) return;
  auto log = event.log;
  if (log.empty() && !event.log_line.empty()) log.push_back(event.log_line);
  track.troubles.push_back({event.attempt, at - began_, event.text, event.remedy, std::move(log)});
}

void Tape::note_stage(const StepReport& report, Switch::Stage stage, TimePoint at) {
  const auto [found, first] = tracks_.try_emplace(report.step);
  auto& track = found->second;
  if (first) track.seen = at;
  if (track.stage == stage) return;
  track.stage = stage;
  const auto name = recorded(report.action, stage);
  const bool goes_on = track.open && name == track.phases.back().name && track.phases.back().attempt == report.attempts;
  if (goes_on) return;
  if (track.open) track.phases.back().until = at - began_;
  track.open = name.has_value();
  if (name) track.phases.push_back({*name, report.attempts, at - began_, at - began_});
}

void Tape::note_gpus(const std::vector<GpuSample>& gpus, const std::map<pid_t, std::string>& holders, TimePoint at) {
  const auto most = std::clamp(points_of_all / std::max<std::size_t>(1, gpus.size()), fewest_points, most_points);
  for (const auto& gpu : gpus) {
    auto& card = cards_[gpu.index];
    card.name = gpu.name;
    card.total = gpu.total;
    Recording::Point point{at - began_, gpu.index, std::nullopt, {}};
    if (gpu.total && gpu.free) point.used = point.unheld = *gpu.total - *gpu.free;
    for (const auto& process : gpu.processes) {
      if (!process.used) point.unheld.reset();
      if (point.unheld) *point.unheld -= std::min(*process.used, *point.unheld);
      if (const auto holder = holders.find(process.pid); holder != holders.end() && process.used)
        point.held[holder->second] += *process.used;
    }
    if (point.used) card.peak = std::max(card.peak.value_or(*point.used), *point.used);
    if (card.points.empty() || differs(card.points.back(), point)) card.points.push_back(point);
    if (card.points.size() > 2 * most) card.points = thinned(std::move(card.points), most);
    card.latest = std::move(point);
  }
}

void Tape::add_waits(const Track& track, const Recording::Step& step, Recording& recording) const {
  using For = Recording::Wait::For;
  const auto add = [&](For what, std::string cause, Duration from, Duration until) {
    if (until - from >= worth_telling) recording.waits.push_back({step.step, what, std::move(cause), from, until});
  };
  const Recording::Step* last = nullptr;  // of those it had to come after
  for (const auto& earlier : recording.steps) {
    const bool before = std::find(step.after.begin(), step.after.end(), earlier.step) != step.after.end();
    if (before && earlier.ended && (!last || *earlier.ended > *last->ended)) last = &earlier;
  }
  if (last && step.began)
    add(For::turn, fmt::format("{} of {}", to_string(last->action), last->subject), track.seen - began_, *step.began);
  for (const auto& phase : step.phases) {
    if (phase.name == Recording::Stage::release)
      add(For::release, fmt::format("{} to end, and its memory to come back", step.subject), phase.from, phase.until);
    if (phase.name != Recording::Stage::memory) continue;
    const auto awaited = track.awaited.find(phase.attempt);
    add(For::memory, awaited == track.awaited.end() ? "" : awaited->second, phase.from, phase.until);
  }
}

Recording Tape::played(const Switch& about, Recording head) const {
  Recording recording = std::move(head);
  const auto since = [&](const std::optional<TimePoint>& at) {
    return at ? std::optional<Duration>(*at - began_) : std::nullopt;
  };
  for (const auto& report : about.reports()) {
    const auto* planned = about.step_at(report.step);
    const auto track = tracks_.find(report.step);
    Recording::Step step;
    step.step = report.step;
    step.action = report.action;
    step.subject = report.subject;
    step.service = report.service;
    step.unit = report.unit;
    step.undo = report.undo;
    step.result = report.result;
    step.attempts = report.attempts;
    step.began = since(report.began);
    step.ended = since(report.ended);
    step.note = report.note;
    if (planned) {
      step.predicted = planned->expected;
      step.after = planned->after;
    }
    if (track != tracks_.end()) {
      step.phases = track->second.phases;
      step.troubles = track->second.troubles;
      if (track->second.open) step.phases.back().until = recording.took;
    }
    recording.steps.push_back(std::move(step));
  }
  for (const auto& step : recording.steps)
    if (const auto track = tracks_.find(step.step); track != tracks_.end()) add_waits(track->second, step, recording);
  std::stable_sort(recording.waits.begin(), recording.waits.end(),
                   [](const auto& a, const auto& b) { return a.from < b.from; });
  if (about.finished() && about.problem()) {
    const auto failed = std::find_if(recording.steps.begin(), recording.steps.end(),
                                     [](const auto& step) { return step.result == "failed" && !step.undo; });
    recording.failure = Recording::Failure{about.problem()->message, about.problem()->hint, std::nullopt};
    if (failed != recording.steps.end()) recording.failure->step = failed->step;
  }
  for (const auto& [index, card] : cards_) {
    recording.gpus.push_back({index, card.name, card.total, std::nullopt, card.peak});
    recording.curve.insert(recording.curve.end(), card.points.begin(), card.points.end());
    if (!card.points.empty() && card.latest.at > card.points.back().at) recording.curve.push_back(card.latest);
  }
  std::stable_sort(recording.curve.begin(), recording.curve.end(),
                   [](const auto& a, const auto& b) { return a.at < b.at; });
  return recording;
}

}  // namespace gpumod
