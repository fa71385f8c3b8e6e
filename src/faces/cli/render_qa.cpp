// Quality runs for people: a table of the transitions, what was found, and what has become worse.
#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/fields.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"
#include "verbs/qa_words.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

Ink ink_of(const std::string& word) {
  return word == "PASS" ? Ink::green : word == "PASS*" ? Ink::yellow : Ink::red;
}

std::string transition(const json::value& row, const Screen& screen) {
  const auto from = text(member(row, "from"));
  return fmt::format("{} {} {}", from.empty() ? "(no mode)" : from, glyph(screen, Glyph::arrow),
                     text(member(row, "to")));
}

std::string render_transitions(const json::array& rows, const Screen& screen) {
  Table table({{"TRANSITION"},
               {"TIME", true},
               {"RESULT"},
               {.title = "VRAM", .right = true, .goes = 1},
               {.title = "PEAK", .right = true, .goes = 2}});
  for (const auto& row : rows) {
    const auto word = result_word(row);
    const auto& vram = member(row, "vram");
    table.add({{transition(row, screen), Ink::bold},
               {seconds_text(member(row, "seconds"))},
               {word, ink_of(word)},
               {mebibytes(member(vram, "after"))},
               {mebibytes(member(vram, "peak"))}});
  }
  std::vector<std::vector<std::string>> notes;
  for (const auto& row : rows)
    notes.push_back(notes_on(row));
  return with_notes(table.render(screen), notes, screen);
}

std::string render_issue(const json::value& issue, const Screen& screen) {
  auto out = fmt::format("\n{} {}\n", paint(screen, Ink::bold, text(member(issue, "title"))),
                         paint(screen, Ink::dim, fmt::format("({})", plain(member(issue, "transitions")))));
  for (const char* key : {"symptom", "cause", "impact", "remedy"})
    if (const auto words = text(member(issue, key)); !words.empty())
      out += paragraph(words, screen, 11, fmt::format("  {}:", key), Ink::dim);
  for (const auto& line : texts(member(issue, "log")))
    out += paint(screen, Ink::dim, paragraph(line, screen, 11));
  return out;
}

std::string render_differences(const json::value& found, const Screen& screen) {
  std::string out;
  const auto list = [&](const char* key, std::string_view lead, Ink ink) {
    for (const auto& entry : elements(member(found, key)))
      out += paragraph(entry.is_string() ? text(entry) : text(member(entry, "text")), screen, 9, lead, ink);
  };
  list("regressions", "worse:", Ink::red);
  list("improvements", "better:", Ink::green);
  list("changes", "changed:", Ink::plain);
  list("missing", "not run:", Ink::yellow);
  return out;
}

/// Verbs write their arrow as it is; beside ours it has to be the same.
std::string with_our_arrow(std::string words, const Screen& screen) {
  constexpr std::string_view theirs = "→";
  const auto ours = glyph(screen, Glyph::arrow);
  for (auto at = words.find(theirs); ours != theirs && at != std::string::npos; at = words.find(theirs, at))
    words.replace(at, theirs.size(), ours);
  return words;
}

}  // namespace

std::string render_qa(const json::value& answer, const Screen& screen) {
  const auto& run = member(answer, "qa");
  auto out = render_transitions(elements(member(run, "transitions")), screen);
  for (const auto& issue : elements(member(run, "issues")))
    out += render_issue(issue, screen);
  if (const auto& compared = member(run, "compared"); !compared.is_null()) {
    const auto differences = render_differences(compared, screen);
    out += fmt::format("\nSince run {}:{}\n", plain(member(compared, "before")),
                       differences.empty() ? " nothing is worse." : "");
    out += differences;
  }
  const auto& restored = member(run, "restored");
  if (const auto mode = text(member(restored, "mode")); !mode.empty() && member(restored, "problem").is_null())
    out += fmt::format("\nMode {}, which ran before, was restored.\n", mode);
  const auto id = plain(member(run, "id"));
  const auto result = text(member(run, "result"));
  out += fmt::format("\n{}: {}, in {}{}\n", paint(screen, result == "passed" ? Ink::green : Ink::red, result),
                     summary_words(run), seconds_text(member(run, "seconds")),
                     id.empty() ? "" : fmt::format("; kept as run {}", id));
  for (const auto& file : texts(member(run, "reports")))
    out += file + "\n";
  return with_our_arrow(std::move(out), screen);
}

std::string render_qa_tour(const json::value& answer, const Screen& screen) {
  const auto& tour = member(answer, "tour");
  const auto targets = texts(member(tour, "targets"));
  auto from = text(member(tour, "from"));
  auto out = fmt::format("{}:\n", counted(targets.size(), "transition"));
  for (const auto& target : targets) {
    out += fmt::format("  {} {} {}\n", from.empty() ? "(no mode)" : from, glyph(screen, Glyph::arrow), target);
    from = target;
  }
  return out + "Then what runs now is restored, if it does not run.\n";
}

std::string render_qa_list(const json::value& answer, const Screen& screen) {
  const auto& runs = elements(member(answer, "runs"));
  if (runs.empty()) return "No quality run is kept yet. gpumod qa run makes one.\n";
  Table table({{"RUN", true},
               {.title = "BEGAN", .goes = 1},
               {.title = "TIME", .right = true, .goes = 3},
               {"RESULT"},
               {"PASSED", true},
               {"ISSUES", true},
               {.title = "WORSE", .right = true, .goes = 2},
               {"SEQUENCE", false, true}});
  for (const auto& run : runs) {
    const auto result = text(member(run, "result"));
    table.add({{plain(member(run, "id")), Ink::bold},
               {local_time(member(run, "began"), screen), Ink::dim},
               {seconds_text(member(run, "seconds"))},
               {result, result == "passed" ? Ink::green : Ink::red},
               {fmt::format("{}/{}", plain(member(run, "passed")), plain(member(run, "transitions")))},
               {plain(member(run, "issues"))},
               {plain(member(run, "regressions"))},
               {join(texts(member(run, "sequence")), " ")}});
  }
  return table.render(screen);
}

std::string render_qa_diff(const json::value& answer, const Screen& screen) {
  const auto& found = member(answer, "diff");
  const auto out = with_our_arrow(render_differences(found, screen), screen);
  if (!elements(member(found, "regressions")).empty()) return out;
  return out + paint(screen, Ink::green, "nothing is worse") + "\n";
}

}  // namespace gpumod::cli
