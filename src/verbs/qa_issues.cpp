#include "verbs/qa_issues.h"

#include <algorithm>
#include <array>
#include <map>

#include <fmt/format.h>

#include "base/text.h"
#include "base/units.h"
#include "verbs/qa_values.h"
#include "verbs/qa_wait.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr double long_wait = 2.0;  // seconds

struct Issue {
  std::string kind, title, service, symptom, cause, impact, remedy;
  std::vector<std::string> log;
};

int badness(const std::string& kind) {
  static const std::vector<std::string> order{"failed", "orphan", "probe", "attempts", "survivor", "wait"};
  return static_cast<int>(std::find(order.begin(), order.end(), kind) - order.begin());
}

std::string subject_of(const json::value& step) {
  const auto service = string_at(step, {"service"});
  return service.empty() ? string_at(step, {"unit"}) : service;
}

std::string seconds_words(double amount) {
  return format_seconds(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(amount)));
}

std::vector<std::string> texts_at(const json::value& root, std::initializer_list<JsonStep> path) {
  std::vector<std::string> out;
  for (const auto& text : list_at(root, path))
    if (text.is_string()) out.emplace_back(text.get_string());
  return out;
}

bool reached(const json::value& transition) {
  const auto result = string_at(transition, {"result"});
  return result == "committed" || result == "unchanged";
}

std::string what_became_of_it(const std::string& result) {
  if (result == "rolled_back") return "What ran before runs again; the mode that was asked for does not.";
  if (result == "refused") return "Nothing was touched: what ran before runs on.";
  if (result == "cancelled") return "It was taken back before its end.";
  return "The mode that was asked for does not run.";
}

std::vector<std::string> log_of(const json::value& transition, const std::string& service) {
  for (const auto& log : list_at(transition, {"logs"}))
    if (string_at(log, {"service"}) == service) return texts_at(log, {"lines"});
  return {};
}

void find_failure(const json::value& transition, std::vector<Issue>& issues) {
  const auto result = string_at(transition, {"result"});
  if (reached(transition) || result == "cancelled") return;
  Issue issue;
  issue.kind = "failed";
  issue.title = fmt::format("{} did not get there", name_of_transition(transition));
  issue.symptom = string_at(transition, {"problem", "message"});
  issue.remedy = string_at(transition, {"problem", "hint"});
  issue.impact = what_became_of_it(result);
  for (const auto& step : list_at(transition, {"steps"})) {
    if (string_at(step, {"result"}) != "failed") continue;
    issue.service = subject_of(step);
    issue.title = fmt::format("{} did not {}", issue.service, string_at(step, {"action"}));
    issue.cause = string_at(step, {"note"});
    if (const auto remedy = string_at(step, {"remedy"}); !remedy.empty()) issue.remedy = remedy;
    issue.log = log_of(transition, issue.service);
    if (const auto line = string_at(step, {"log"}); issue.log.empty() && !line.empty()) issue.log = {line};
    break;
  }
  if (issue.cause.empty()) issue.cause = issue.symptom;
  issues.push_back(std::move(issue));
}

/// What went wrong on the way and was dealt with.
void find_mishaps(const json::value& transition, std::vector<Issue>& issues) {
  for (const auto& step : list_at(transition, {"steps"})) {
    auto mishaps = texts_at(step, {"earlier"});
    if (was_made_good(transition, step)) mishaps.insert(mishaps.begin(), string_at(step, {"note"}));
    if (mishaps.empty()) continue;
    const auto action = string_at(step, {"action"});
    const bool goes = action == "stop" || action == "sleep" || action == "unload";
    const auto took = number_at(step, {"seconds"});
    Issue issue;
    issue.kind = goes ? "survivor" : "attempts";
    issue.service = subject_of(step);
    issue.cause = mishaps.front();
    issue.remedy = string_at(step, {"remedy"});
    if (goes) {
      issue.title = fmt::format("{} did not end when it was asked to", issue.service);
      issue.symptom = "Something of it went on after its stop.";
      issue.impact = "It was ended by force, and its memory proven free, before anything else started.";
    } else {
      const auto attempts = integer_at(step, {"attempts"}).value_or(1);
      issue.title = action == "verify" ? fmt::format("{} ran, and did not answer", issue.service)
                                       : fmt::format("{} came up only after a failure", issue.service);
      issue.symptom = action == "verify" ? "It was asked a question, and did not answer as it should."
                      : attempts > 1     ? fmt::format("It took {} attempts to {} it.", attempts, action)
                                         : fmt::format("It did not {} as it should at first.", action);
      issue.impact = "It was dealt with, and the switch went on.";
    }
    if (took) issue.impact += fmt::format(" The step took {}.", seconds_words(*took));
    if (const auto line = string_at(step, {"log"}); !line.empty()) issue.log = {line};
    issues.push_back(std::move(issue));
  }
}

/// What was waited for in vain is told as the failure of its step.
bool ended_in_failure(const json::value& transition, const json::value& wait) {
  const auto& steps = list_at(transition, {"steps"});
  return std::any_of(steps.begin(), steps.end(), [&](const json::value& step) {
    return string_at(step, {"result"}) == "failed" && subject_of(step) == string_at(wait, {"subject"});
  });
}

void find_waits(const json::value& transition, std::vector<Issue>& issues) {
  for (const auto& wait : list_at(transition, {"waits"})) {
    const auto what = string_at(wait, {"for"});
    const double took = number_at(wait, {"seconds"}).value_or(0);
    if (!is_worth_telling(wait) || ended_in_failure(transition, wait)) continue;
    Issue issue;
    issue.kind = "wait";
    issue.service = string_at(wait, {"subject"});
    issue.title = what == "release" ? fmt::format("The memory of {} came back late", issue.service)
                                    : fmt::format("{} had to wait for memory", issue.service);
    issue.symptom = fmt::format("The switch waited {}: {}.", seconds_words(took), string_at(wait, {"cause"}));
    std::vector<std::string> who;
    for (const auto& given : list_at(wait, {"given_back"}))
      if (auto words = given_back_words(given); !words.empty()) who.push_back(std::move(words));
    issue.cause =
        !who.empty() ? join(who, " ")
        : what == "release"
            ? "What it held was given back late: by its processes, which ended slowly, or by the driver."
            : "Memory was still moving, or somebody else held the room; the transition names who is on the GPU.";
    issue.impact = "Nothing was started into memory that was not free; the switch took that much longer.";
    issues.push_back(std::move(issue));
  }
}

void find_failed_probes(const json::value& transition, std::vector<Issue>& issues) {
  for (const auto& service : list_at(transition, {"services"})) {
    const auto problems = texts_at(service, {"problems"});
    if (problems.empty()) continue;
    Issue issue;
    issue.kind = "probe";
    issue.service = string_at(service, {"service"});
    issue.title = fmt::format("{} does not answer as it should", issue.service);
    issue.symptom = join(problems, "; ");
    issue.cause = "Its server runs and was found ready by its probe; this it did not answer as it should.";
    issue.impact = "Whoever uses this mode gets this answer, or none.";
    issue.remedy = fmt::format(
        "gpumod service logs {0} shows what it wrote; gpumod service show {0} what it is started with.", issue.service);
    issue.log = log_of(transition, issue.service);
    issues.push_back(std::move(issue));
  }
}

std::string why_orphan(const std::string& why) {
  if (why == "unwanted") return "It is defined, and the mode that runs does not want it.";
  if (why == "undefined") return "No file defines it any more.";
  if (why == "escaped")
    return "It was started by a service and has left its unit, so stopping the unit did not end it.";
  return "It is marked as ours, and nothing wants it.";
}

void find_orphans(const json::value& transition, std::vector<Issue>& issues) {
  for (const auto& orphan : list_at(transition, {"orphans"})) {
    Issue issue;
    issue.kind = "orphan";
    issue.service = string_at(orphan, {"name"});
    issue.title = fmt::format("{} was left behind", issue.service);
    const auto held = integer_at(orphan, {"bytes"}).value_or(0);
    issue.symptom = fmt::format("After the switch it still runs{}.",
                                held > 0 ? fmt::format(" and holds {}", to_string(Bytes(held))) : std::string());
    issue.cause = why_orphan(string_at(orphan, {"why"}));
    issue.impact =
        held > 0 ? "Its memory is missing for what runs next." : "It holds its port, and whatever else it has.";
    issue.remedy = "gpumod repair stops what nothing wants; gpumod gpu processes names the processes.";
    issues.push_back(std::move(issue));
  }
}

json::object described(const Issue& issue) {
  return {{"kind", issue.kind},           {"title", issue.title},     {"service", issue.service},
          {"transitions", json::array()}, {"symptom", issue.symptom}, {"cause", issue.cause},
          {"impact", issue.impact},       {"remedy", issue.remedy},   {"log", json::value_from(issue.log)}};
}

}  // namespace

bool was_made_good(const json::value& transition, const json::value& step) {
  return reached(transition) && string_at(step, {"result"}) == "failed";
}

bool is_worth_telling(const json::value& wait) {
  return string_at(wait, {"for"}) != "turn" && number_at(wait, {"seconds"}).value_or(0) >= long_wait;
}

std::string name_of_transition(const json::value& transition) {
  const auto from = string_at(transition, {"from"});
  return fmt::format("{} → {}", from.empty() ? "(no mode)" : from, string_at(transition, {"to"}));
}

bool passed(const json::value& transition) {
  if (!reached(transition) || !list_at(transition, {"orphans"}).empty()) return false;
  const auto& services = list_at(transition, {"services"});
  return std::all_of(services.begin(), services.end(),
                     [](const json::value& service) { return list_at(service, {"problems"}).empty(); });
}

void finish_run(json::object& run) {
  run["issues"] = issues_of(run.at("transitions").as_array());
}

json::array issues_of(const json::array& transitions) {
  json::array merged;
  std::map<std::array<std::string, 3>, std::size_t> known;
  for (const auto& transition : transitions) {
    std::vector<Issue> issues;
    find_failure(transition, issues);
    find_orphans(transition, issues);
    find_failed_probes(transition, issues);
    find_mishaps(transition, issues);
    find_waits(transition, issues);
    for (const auto& issue : issues) {
      // A probe's words carry figures that differ from time to time.
      const auto [entry, first] =
          known.try_emplace({issue.kind, issue.title, issue.kind == "failed" ? issue.cause : ""}, merged.size());
      if (first) merged.push_back(described(issue));
      auto& seen_in = merged[entry->second].at("transitions").as_array();
      json::value name(name_of_transition(transition));
      if (std::find(seen_in.begin(), seen_in.end(), name) == seen_in.end()) seen_in.push_back(std::move(name));
    }
  }
  std::stable_sort(merged.begin(), merged.end(), [](const json::value& a, const json::value& b) {
    return badness(string_at(a, {"kind"})) < badness(string_at(b, {"kind"}));
  });
  return merged;
}

}  // namespace gpumod
