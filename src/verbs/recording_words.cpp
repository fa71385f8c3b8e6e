#include "verbs/recording_words.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace {

/// Below this nobody asks.
constexpr Duration worth_a_word = 500ms;

Duration length_of(const Recording& recording, const Recording::Step& step) {
  if (!step.began) return {};
  return step.ended.value_or(recording.took) - *step.began;
}

std::string subject_of(const Recording::Step& step) {
  return fmt::format("{}{} of {}", step.undo ? "the way back, " : "", to_string(step.action), step.subject);
}

/// "28.1 s getting ready, 4.2 s waiting for memory": the phases that count, the longest first.
std::string phases_of(const Recording::Step& step, Duration whole) {
  std::map<Recording::Stage, Duration> by_name;
  for (const auto& phase : step.phases)
    by_name[phase.name] += phase.until - phase.from;
  std::vector<std::pair<Recording::Stage, Duration>> order(by_name.begin(), by_name.end());
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::vector<std::string> parts;
  for (const auto& [name, took] : order)
    if (took * 10 >= whole && parts.size() < 3)
      parts.push_back(fmt::format("{} {}", format_seconds(took), in_words(step.action, name)));
  return join(parts, ", ");
}

void say_length(const Recording& recording, std::vector<std::string>& out) {
  const bool arrived = recording.result == SwitchResult::committed;
  if (!recording.predicted || !arrived || recording.took < worth_a_word) return;
  const auto apart = recording.took - *recording.predicted;
  const bool other = std::chrono::abs(apart) > std::max<Duration>(1s, *recording.predicted / 6);
  out.push_back(other ? fmt::format("{} than expected: {}, where earlier runs let expect {}.",
                                    apart > Duration{} ? "Slower" : "Faster", format_seconds(recording.took),
                                    format_seconds(*recording.predicted))
                      : fmt::format("As fast as expected: {}, where earlier runs let expect {}.",
                                    format_seconds(recording.took), format_seconds(*recording.predicted)));
}

void say_longest(const Recording& recording, std::vector<std::string>& out) {
  const auto longest =
      std::max_element(recording.steps.begin(), recording.steps.end(),
                       [&](const auto& a, const auto& b) { return length_of(recording, a) < length_of(recording, b); });
  if (longest == recording.steps.end()) return;
  const auto whole = length_of(recording, *longest);
  if (whole < worth_a_word || whole * 5 < recording.took) return;
  const auto usual = longest->predicted ? fmt::format(", usually {}", format_seconds(*longest->predicted)) : "";
  const auto phases = phases_of(*longest, whole);
  out.push_back(fmt::format("Most of the time was {}: {}{}{}.", subject_of(*longest), format_seconds(whole), usual,
                            phases.empty() ? "" : "; " + phases));
  // Another one may be what was unusual.
  const auto excess = [&](const Recording::Step& step) {
    return step.predicted && step.result == "done" ? length_of(recording, step) - *step.predicted : Duration{};
  };
  const auto odd = std::max_element(recording.steps.begin(), recording.steps.end(),
                                    [&](const auto& a, const auto& b) { return excess(a) < excess(b); });
  if (odd == longest || !odd->predicted || excess(*odd) < std::max<Duration>(1s, *odd->predicted / 6)) return;
  out.push_back(fmt::format("Slower than usual was {}: {}, usually {}.", subject_of(*odd),
                            format_seconds(length_of(recording, *odd)), format_seconds(*odd->predicted)));
}

void say_waits(const Recording& recording, std::vector<std::string>& out) {
  for (const auto& wait : recording.waits) {
    const auto took = wait.until - wait.from;
    if (wait.what != Recording::Wait::For::memory || took < worth_a_word || wait.cause.empty()) continue;
    const auto step = std::find_if(recording.steps.begin(), recording.steps.end(),
                                   [&](const auto& each) { return each.step == wait.step; });
    if (step == recording.steps.end()) continue;
    out.push_back(fmt::format("{} waited {} for memory: {}.", step->subject, format_seconds(took), wait.cause));
  }
}

void say_mishaps(const Recording& recording, std::vector<std::string>& out) {
  for (const auto& step : recording.steps)
    if (step.attempts > 1 && !step.troubles.empty())
      out.push_back(
          fmt::format("{} needed {} attempts: {}.", subject_of(step), step.attempts, step.troubles.front().cause));
  const auto back = std::find_if(recording.steps.begin(), recording.steps.end(),
                                 [](const auto& step) { return step.undo && step.began; });
  if (back != recording.steps.end() && recording.took - *back->began >= worth_a_word)
    out.push_back(
        fmt::format("{} went into restoring what ran before.", format_seconds(recording.took - *back->began)));
}

/// Time in which no step was under way.
void say_idle(const Recording& recording, std::vector<std::string>& out) {
  std::vector<std::pair<Duration, Duration>> spans;
  for (const auto& step : recording.steps)
    if (step.began) spans.emplace_back(*step.began, step.ended.value_or(recording.took));
  std::sort(spans.begin(), spans.end());
  Duration reached{}, idle{};
  for (const auto& [from, until] : spans) {
    idle += std::max(Duration{}, from - reached);
    reached = std::max(reached, until);
  }
  idle += std::max(Duration{}, recording.took - reached);
  if (idle >= worth_a_word && idle * 5 >= recording.took)
    out.push_back(fmt::format("{} went into looking at the machine, planning and checking.", format_seconds(idle)));
}

}  // namespace

std::string_view in_words(Action action, Recording::Stage stage) {
  switch (stage) {
    case Recording::Stage::memory: return "waiting for memory";
    case Recording::Stage::ready: return "getting ready";
    case Recording::Stage::verify: return "being asked a question";
    case Recording::Stage::fall: return "giving memory back";
    case Recording::Stage::release: return "ending and giving memory back";
    case Recording::Stage::kill: return "being killed";
    case Recording::Stage::clear: return "being cleared away";
    case Recording::Stage::act: break;
  }
  switch (action) {
    case Action::start: return "starting";
    case Action::stop: return "stopping";
    case Action::load: return "loading";
    case Action::unload: return "unloading";
    case Action::sleep: return "falling asleep";
    case Action::wake: return "waking";
    case Action::verify: break;
  }
  return "being asked";
}

std::vector<std::string> why_so_long(const Recording& recording) {
  std::vector<std::string> out;
  if (recording.partial) return out;
  say_length(recording, out);
  say_longest(recording, out);
  say_waits(recording, out);
  say_mishaps(recording, out);
  say_idle(recording, out);
  return out;
}

}  // namespace gpumod
