#include "verbs/qa_words.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "base/time.h"
#include "base/units.h"
#include "verbs/qa_issues.h"
#include "verbs/qa_values.h"

namespace gpumod {

namespace json = boost::json;

namespace {

/// Something went wrong on the way and was dealt with.
bool had_mishaps(const json::value& transition) {
  const auto& steps = list_at(transition, {"steps"});
  return std::any_of(steps.begin(), steps.end(), [&](const json::value& step) {
    return !list_at(step, {"earlier"}).empty() || was_made_good(transition, step);
  });
}

std::string service_words(const json::value& service) {
  std::string words = string_at(service, {"service"}) + ": ";
  const auto& problems = list_at(service, {"problems"});
  if (!problems.empty()) {
    std::vector<std::string> wrong;
    for (const auto& problem : problems)
      if (problem.is_string()) wrong.emplace_back(problem.get_string());
    return words + join(wrong, "; ");
  }
  if (const auto answer = string_at(service, {"answer"}); !answer.empty()) words += fmt::format("\"{}\"", answer);
  const auto figures = figures_words(service);
  if (!figures.empty()) words += (words.ends_with(": ") ? "" : ", ") + figures;
  if (true_at(service, {"reasoning"})) words += ", with reasoning";
  if (const auto note = string_at(service, {"note"}); !note.empty())
    words += (words.ends_with(": ") ? "" : "; ") + note;
  return words.ends_with(": ") ? words + "it answers" : words;
}

}  // namespace

std::string seconds_words(const json::value* amount) {
  const auto number = amount ? number_at(*amount, {}) : std::nullopt;
  if (!number) return {};
  return *number < 10 ? fmt::format("{:.2f} s", *number)
                      : format_seconds(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(*number)));
}

std::string bytes_words(const json::value* amount) {
  const auto number = amount ? integer_at(*amount, {}) : std::nullopt;
  return number ? to_string(Bytes(*number)) : std::string();
}

std::string result_word(const json::value& transition) {
  const auto result = string_at(transition, {"result"});
  if (passed(transition)) return had_mishaps(transition) ? "PASS*" : "PASS";
  if (result == "rolled_back") return "ROLLED BACK";
  if (result == "refused") return "REFUSED";
  return result == "cancelled" ? "CANCELLED" : "FAIL";
}

std::string figures_words(const json::value& service) {
  std::vector<std::string> parts;
  const auto add = [&](const char* name, auto words) {
    if (const auto figure = number_at(service, {"figures", name})) parts.push_back(words(*figure));
  };
  add("dimensions", [](double v) { return fmt::format("{:.0f} dimensions", v); });
  add("norm", [](double v) { return fmt::format("norm {:.3g}", v); });
  add("near", [](double v) { return fmt::format("similar text {:.2f}", v); });
  add("far", [](double v) { return fmt::format("other text {:.2f}", v); });
  add("tokens_per_second", [](double v) { return fmt::format("{:.0f} tok/s", v); });
  add("prompt_tokens_per_second", [](double v) { return fmt::format("prompt {:.0f} tok/s", v); });
  add("first_token_seconds", [](double v) {
    return v < 1 ? fmt::format("first token after {:.0f} ms", v * 1000) : fmt::format("first token after {:.1f} s", v);
  });
  return join(parts, ", ");
}

std::vector<std::string> notes_on(const json::value& transition) {
  std::vector<std::string> notes;
  if (const auto note = string_at(transition, {"note"}); !note.empty()) notes.push_back(note);
  if (const auto problem = string_at(transition, {"problem", "message"}); !problem.empty()) notes.push_back(problem);
  for (const auto& step : list_at(transition, {"steps"})) {
    const auto service = string_at(step, {"service"}), who = service.empty() ? string_at(step, {"unit"}) : service;
    if (was_made_good(transition, step)) notes.push_back(fmt::format("{}: {}", who, string_at(step, {"note"})));
    for (const auto& mishap : list_at(step, {"earlier"}))
      if (mishap.is_string()) notes.push_back(fmt::format("{}: {}", who, std::string_view(mishap.get_string())));
  }
  for (const auto& wait : list_at(transition, {"waits"}))
    if (is_worth_telling(wait))
      notes.push_back(fmt::format("{} waited {}: {}", string_at(wait, {"subject"}),
                                  seconds_words(find(wait, {"seconds"})), string_at(wait, {"cause"})));
  for (const auto& orphan : list_at(transition, {"orphans"}))
    notes.push_back(
        fmt::format("left behind: {} ({})", string_at(orphan, {"name"}), bytes_words(find(orphan, {"bytes"}))));
  for (const auto& service : list_at(transition, {"services"}))
    notes.push_back(service_words(service));
  return notes;
}

std::string vram_words(const json::value& transition) {
  std::vector<std::string> parts;
  for (const char* key : {"before", "peak", "after"})
    if (auto words = bytes_words(find(transition, {"vram", key})); !words.empty()) parts.push_back(std::move(words));
  return join(parts, " → ");
}

std::string summary_words(const json::value& run) {
  std::size_t good = 0, starred = 0;
  const auto& transitions = list_at(run, {"transitions"});
  for (const auto& transition : transitions) {
    good += passed(transition) ? 1 : 0;
    starred += result_word(transition) == "PASS*" ? 1 : 0;
  }
  auto words = fmt::format("{} of {} passed", good, counted(transitions.size(), "transition"));
  if (starred > 0) words += fmt::format(", {} of them after something was dealt with", starred);
  return words;
}

std::string restored_words(const json::value& run) {
  if (const auto problem = string_at(run, {"restored", "problem"}); !problem.empty())
    return "What ran before could not be restored: " + problem;
  const auto mode = string_at(run, {"restored", "mode"});
  return mode.empty() ? mode : fmt::format("Afterwards the mode it began with, {}, was restored.", mode);
}

std::string sequence_words(const json::value& run) {
  std::vector<std::string> modes;
  for (const auto& mode : list_at(run, {"sequence"}))
    if (mode.is_string()) modes.emplace_back(mode.get_string());
  return join(modes, " → ");
}

}  // namespace gpumod
