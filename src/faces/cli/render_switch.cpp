// Plans before a switch, and reports after it.

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "base/units.h"
#include "faces/cli/fields.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

std::string subject_of(const json::value& step) {
  for (const char* key : {"subject", "service", "unit"})
    if (auto name = text(member(step, key)); !name.empty()) return name;
  return {};
}

std::string claims_of(const json::value& step) {
  std::vector<std::string> parts;
  if (const auto* claim = member(step, "claim").if_object())
    for (const auto& [gpu, bytes] : *claim)
      parts.push_back(fmt::format("{} on {}", mebibytes(bytes), gpu_words(gpu)));
  const auto source = text(member(step, "claim_source"));
  const auto all = join(parts, ", ");
  return parts.empty() || source.empty() || source == "unknown" ? all : fmt::format("{} ({})", all, source);
}

std::string after_of(const json::value& step) {
  std::vector<std::string> numbers;
  for (const auto& earlier : elements(member(step, "after")))
    if (const auto index = number(earlier)) numbers.push_back(fmt::format("{}", *index + 1));
  return numbers.empty() ? "" : "after " + join(numbers, ", ");
}

std::string predicted_vram(const json::value& free) {
  std::string out;
  const auto* before = member(free, "before").if_object();
  if (!before) return out;
  for (const auto& [gpu, bytes] : *before)
    out += fmt::format("{}: {} free now, {} afterwards\n", gpu_words(gpu), mebibytes(bytes),
                       mebibytes(member(member(free, "after"), gpu)));
  return out;
}

std::string predicted_seconds(const json::value& plan) {
  if (const auto all = seconds_text(member(plan, "seconds")); !all.empty())
    return fmt::format("It would take about {}, going by earlier runs.\n", all);
  std::vector<std::string> unseen;
  for (const auto& step : elements(member(plan, "steps")))
    if (step.is_object() && step.get_object().contains("seconds") && member(step, "seconds").is_null())
      unseen.push_back(fmt::format("{} {}", text(member(step, "action")), subject_of(step)));
  if (unseen.empty()) return {};
  return fmt::format("How long it would take is not known: nothing was seen yet of {}.\n", join(unseen, ", "));
}

std::string step_table(const json::value& body, const Screen& screen) {
  Table table({{""}, {""}, {""}, {"", true}, {"", false, true}});
  for (const auto& step : elements(member(body, "steps"))) {
    const auto result = text(member(step, "result"));
    const bool failed = result == "failed", done = result == "done";
    const auto action = (truth(member(step, "undo")) ? "back: " : "") + text(member(step, "action"));
    auto note =
        done ? std::string() : text(member(step, "note"));  // what a done step says is the probe's answer: shown below
    if (!done && note.empty()) note = result;
    if (const auto attempts = number(member(step, "attempts")).value_or(0); attempts > 1)
      note += fmt::format("{}(attempt {})", note.empty() ? "" : " ", attempts);
    table.add({{std::string(glyph(screen, done     ? Glyph::done
                                          : failed ? Glyph::failed
                                                   : Glyph::skipped)),
                done     ? Ink::green
                : failed ? Ink::red
                         : Ink::dim},
               {action},
               {subject_of(step)},
               {seconds_text(member(step, "seconds")), Ink::dim},
               {note, failed ? Ink::red : Ink::dim}});
  }
  return table.render(screen, 0, false);
}

/// What the step table has no room for: the whole cause, what to do, the line of the log that says so.
std::string causes(const json::value& body, const Screen& screen) {
  std::string out;
  for (const auto& step : elements(member(body, "steps"))) {
    if (text(member(step, "result")) != "failed") continue;
    const auto note = text(member(step, "note")), remedy = text(member(step, "remedy")),
               log = text(member(step, "log"));
    if (remedy.empty() && log.empty()) continue;
    out += fmt::format("\n{} {}\n", text(member(step, "action")), paint(screen, Ink::bold, subject_of(step)));
    out += paragraph(note, screen, 7, "  why:", Ink::dim);
    out += paragraph(remedy, screen, 7, "  do:", Ink::dim);
    out += paragraph(log, screen, 7, "  log:", Ink::dim);
  }
  return out.empty() ? out : out + "\n";
}

/// What went wrong on the way and was dealt with.
std::string mishaps(const json::value& body, const Screen& screen) {
  std::string out;
  for (const auto& step : elements(member(body, "steps")))
    for (const auto& mishap : texts(member(step, "earlier")))
      out += paragraph(fmt::format("{}: {}", subject_of(step), mishap), screen, 4, "  !", Ink::yellow);
  return out;
}

std::string probe_answers(const json::value& body, const Screen& screen) {
  std::string out;
  for (const auto& step : elements(member(body, "steps"))) {
    const auto note = text(member(step, "note"));
    if (text(member(step, "result")) != "done" || note.empty() || truth(member(step, "undo"))) continue;
    const auto line = fmt::format("{}: {}", subject_of(step), note);
    out += "  " + (screen.width ? fit(screen, line, screen.width - 2) : line) + "\n";
  }
  return out;
}

}  // namespace

std::string outcome_words(const std::string& result) {
  if (result == "rolled_back") return "rolled back";
  if (result == "unchanged") return "nothing had to change";
  if (result == "running") return "under way";
  return result;
}

Ink outcome_ink(const std::string& result) {
  return result == "committed" || result == "unchanged" ? Ink::green
         : result == "failed" || result == "refused"    ? Ink::red
         : result == "running"                          ? Ink::cyan
                                                        : Ink::yellow;
}

std::string render_plan(const json::value& answer, const Screen& screen) {
  const auto& plan = member(answer, "plan");
  const auto& steps = elements(member(plan, "steps"));
  const auto to = text(member(answer, "to"));
  const bool changes = std::any_of(steps.begin(), steps.end(),
                                   [](const json::value& step) { return text(member(step, "action")) != "verify"; });
  std::string out;
  if (steps.empty())
    out += "Nothing would be done: everything is as asked.\n";
  else if (!changes)
    out += "Nothing would change; these would only be verified:\n";
  else
    out += to.empty() ? "These steps would be taken:\n"
                      : fmt::format("To reach {}, these steps would be taken:\n", paint(screen, Ink::bold, to));
  Table table({{"", true}, {""}, {""}, {"", false, true}, {""}, {"", false, true}, {"", true}});
  for (const auto& step : steps) {
    const auto index = number(member(step, "step")).value_or(0);
    table.add({{fmt::format("{}.", index + 1), Ink::dim},
               {text(member(step, "action"))},
               {subject_of(step), Ink::bold},
               {text(member(step, "why")), Ink::dim},
               {after_of(step)},
               {claims_of(step)},
               {text(member(step, "action")) == "verify" ? "" : seconds_text(member(step, "seconds")), Ink::dim}});
  }
  out += table.render(screen, 2, false);
  if (const auto vram = predicted_vram(member(plan, "free")); !vram.empty()) out += "\n" + vram;
  if (changes) out += predicted_seconds(plan);
  for (const auto& note : texts(member(plan, "notes")))
    out += fmt::format("{} {}\n", paint(screen, Ink::yellow, "note:"), note);
  return out;
}

std::string render_switch(const json::value& answer, const Screen& screen, Steps steps, std::string_view about) {
  const auto& body = member(answer, "switch");
  const auto result = text(member(body, "result"));
  const auto from = text(member(body, "from")), to = text(member(body, "to"));
  std::string out;
  if (steps == Steps::shown) out += step_table(body, screen);
  out += causes(body, screen);
  std::string who = about.empty() ? to : std::string(about);
  if (about.empty() && !from.empty() && from != to && !to.empty())
    who = fmt::format("{} {} {}", from, glyph(screen, Glyph::arrow), to);
  if (!who.empty()) out += paint(screen, Ink::bold, who) + ": ";
  out += paint(screen, outcome_ink(result), outcome_words(result));
  if (const auto took = seconds_text(member(body, "seconds")); !took.empty())
    out += result == "unchanged" ? fmt::format(" (checked in {})", took) : fmt::format(" in {}", took);
  const auto& vram = member(body, "vram");
  if (const auto after = mebibytes(member(vram, "after")); !after.empty()) {
    const auto peak = mebibytes(member(vram, "peak"));
    out += paint(screen, Ink::dim,
                 fmt::format("; VRAM in use {}{}", after, peak.empty() ? "" : fmt::format(", {} at the peak", peak)));
  }
  out += "\n";
  out += mishaps(body, screen);
  if (result == "committed" || result == "unchanged") out += probe_answers(body, screen);
  return out;
}

}  // namespace gpumod::cli
