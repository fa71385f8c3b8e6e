#include "verbs/trace.h"

#include <algorithm>
#include <map>
#include <set>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "verbs/recording_words.h"

namespace gpumod {

namespace json = boost::json;

namespace {

/// Services and GPUs are two "processes" of the trace.
constexpr int services_pid = 1, gpus_pid = 2;

std::int64_t microseconds(Duration d) {
  return std::chrono::duration_cast<std::chrono::microseconds>(d).count();
}

json::object named(const char* what, int pid, int tid, std::string_view name) {
  return {{"ph", "M"}, {"name", what}, {"pid", pid}, {"tid", tid}, {"args", json::object{{"name", name}}}};
}

json::object slice(std::string_view name, std::string_view category, int tid, Duration from, Duration until) {
  return {
      {"ph", "X"},
      {"name", name},
      {"cat", category},
      {"ts", microseconds(from)},
      {"dur", microseconds(until) - microseconds(from)},  // both ends rounded alike, or one could stick out of its step
      {"pid", services_pid},
      {"tid", tid}};
}

/// Slices of a row have to lie in each other or apart, so a wait is drawn where its row does nothing else.
void add_wait(const Recording& recording, const Recording::Wait& wait, int row, const std::map<int, int>& row_of_step,
              json::array& events) {
  auto from = wait.from;
  for (const auto& step : recording.steps)
    if (step.ended && *step.ended <= wait.until && row_of_step.at(step.step) == row) from = std::max(from, *step.ended);
  if (from < wait.until) events.push_back(slice("waiting for " + wait.cause, "wait", row, from, wait.until));
}

/// A counter keeps its last value: who holds nothing any more is told with a zero.
void add_counters(const Recording& recording, json::array& events) {
  std::map<GpuIndex, std::set<std::string>> holders;
  for (const auto& point : recording.curve)
    for (const auto& [name, held] : point.held)
      holders[point.gpu].insert(name);
  for (const auto& point : recording.curve) {
    json::object amounts;
    Bytes ours;
    for (const auto& name : holders[point.gpu]) {
      const auto found = point.held.find(name);
      const auto held = found == point.held.end() ? Bytes() : found->second;
      amounts[name] = held.to_mib();
      ours += held;
    }
    const auto unheld = point.unheld.value_or(Bytes());
    if (point.used) amounts["others"] = std::max(Bytes(), *point.used - ours - unheld).to_mib();
    if (point.unheld) amounts["nobody's"] = unheld.to_mib();
    events.push_back(json::object{{"ph", "C"},
                                  {"name", fmt::format("GPU {}", point.gpu)},
                                  {"ts", microseconds(point.at)},
                                  {"pid", gpus_pid},
                                  {"args", std::move(amounts)}});
  }
}

/// By time, and of what begins together the longest first: what holds others comes before them.
void sort_by_time(json::array& events) {
  const auto place = [](const json::value& event) {
    const auto& fields = event.as_object();
    const auto number = [&](const char* name, std::int64_t otherwise) {
      const auto* found = fields.if_contains(name);
      return found ? found->as_int64() : otherwise;
    };
    return std::pair(number("ts", -1), -number("dur", 0));
  };
  std::stable_sort(events.begin(), events.end(),
                   [&](const json::value& a, const json::value& b) { return place(a) < place(b); });
}

}  // namespace

json::object trace_of(const Recording& recording) {
  json::array events;
  events.push_back(named("process_name", services_pid, 0, "services"));
  events.push_back(named("process_name", gpus_pid, 0, "GPU memory, MiB"));
  std::map<std::string, int> rows;
  std::map<int, int> row_of_step;
  for (const auto& step : recording.steps) {
    const auto [row, first] = rows.try_emplace(step.subject, static_cast<int>(rows.size()) + 1);
    row_of_step[step.step] = row->second;
    if (first) events.push_back(named("thread_name", services_pid, row->second, step.subject));
    if (!step.began) continue;
    auto whole = slice(fmt::format("{}{}", step.undo ? "back: " : "", to_string(step.action)), "step", row->second,
                       *step.began, step.ended.value_or(recording.took));
    whole["args"] = json::object{{"result", step.result}, {"attempts", step.attempts}, {"note", step.note}};
    events.push_back(std::move(whole));
    for (const auto& phase : step.phases)
      events.push_back(slice(in_words(step.action, phase.name), "phase", row->second, phase.from, phase.until));
    for (const auto& trouble : step.troubles)
      events.push_back(json::object{{"ph", "i"},
                                    {"s", "t"},
                                    {"name", trouble.cause},
                                    {"ts", microseconds(trouble.at)},
                                    {"pid", services_pid},
                                    {"tid", row->second}});
  }
  for (const auto& wait : recording.waits)
    if (wait.what == Recording::Wait::For::turn) add_wait(recording, wait, row_of_step[wait.step], row_of_step, events);
  add_counters(recording, events);
  sort_by_time(events);
  return {{"traceEvents", std::move(events)},
          {"displayTimeUnit", "ms"},
          {"otherData", json::object{{"switch", recording.id}, {"began", format_wall(recording.began)}}}};
}

}  // namespace gpumod
