// The list of switches: which were slow, which failed.

#include <fmt/format.h>

#include "faces/cli/fields.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

std::string render_history(const json::value& answer, const Screen& screen) {
  Table table({{"SWITCH", true},
               {.title = "BEGAN", .goes = 2},
               {"WHAT"},
               {"RESULT"},
               {.title = "TOOK", .right = true, .goes = 1},
               {.title = "EXPECTED", .right = true, .goes = 3},
               {.title = "WHY", .wraps = true}});
  for (const auto& line : elements(member(answer, "switches"))) {
    const auto result = text(member(line, "result"));
    const auto took = number(member(line, "seconds")), expected = number(member(line, "predicted_seconds"));
    const bool slow = took && expected && *took > *expected + 1 && *took > *expected * 7 / 6;
    const auto from = text(member(line, "from")), to = text(member(line, "to"));
    auto what = text(member(line, "what"));
    if (text(member(line, "kind")) == "mode switch" && !from.empty() && from != to)
      what = fmt::format("{} {} {}", from, glyph(screen, Glyph::arrow), to);
    table.add({{plain(member(line, "id"))},
               {local_time(member(line, "began"), screen), Ink::dim},
               {what, Ink::bold},
               {result == "unchanged" ? result : outcome_words(result), outcome_ink(result)},
               {seconds_text(member(line, "seconds")), slow ? Ink::yellow : Ink::plain},
               {seconds_text(member(line, "predicted_seconds")), Ink::dim},
               {text(member(line, "cause")), Ink::dim}});
  }
  std::string out;
  for (const auto& note : texts(member(answer, "notes")))
    out += paragraph(note, screen, 6, "note:", Ink::yellow);
  if (table.empty()) return out.empty() ? "No switch was made yet.\n" : out;
  out += table.render(screen);
  if (screen.terminal) out += paragraph("gpumod history show SWITCH shows one of them over its time.", screen, 0);
  return out;
}

}  // namespace gpumod::cli
