#include "faces/cli/doctor.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/ask.h"
#include "faces/cli/fields.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

constexpr int broken_code = static_cast<int>(ErrorCode::environment);
constexpr int warning_code = 8;

struct Look {
  std::string_view state;
  Glyph glyph;
  Ink ink;
};
/// From good to bad.
constexpr Look looks[] = {{"ok", Glyph::done, Ink::green},
                          {"skipped", Glyph::skipped, Ink::dim},
                          {"note", Glyph::dot, Ink::cyan},
                          {"warning", Glyph::half, Ink::yellow},
                          {"failure", Glyph::failed, Ink::red}};

const Look& look_of(std::string_view state) {
  for (const auto& look : looks)
    if (look.state == state) return look;
  return looks[1];
}

/// One line: what was found, or how many things.
std::string in_short(const json::value& check) {
  const auto& findings = elements(member(check, "findings"));
  const auto state = text(member(check, "state"));
  std::vector<std::string> said;
  for (const auto& finding : findings)
    if (text(member(finding, "state")) == state) said.push_back(text(member(finding, "text")));
  if (state == "skipped") return fmt::format("not looked at: {}", join(said, "; "));
  if (state == "ok" || said.size() <= 1) return join(said, "; ");
  return fmt::format("{} (and {} more)", said.front(), said.size() - 1);
}

std::string list_of_checks(const json::value& answer, const Screen& screen) {
  std::string out, group;
  int title_width = 0;
  for (const auto& check : elements(member(answer, "checks")))
    title_width = std::max(title_width, display_width(text(member(check, "title"))));
  for (const auto& check : elements(member(answer, "checks"))) {
    if (text(member(check, "group")) != group) {
      group = text(member(check, "group"));
      out += paint(screen, Ink::bold, group) + "\n";
    }
    const auto state = text(member(check, "state"));
    const auto& look = look_of(state);
    const auto title = text(member(check, "title"));
    const auto blank = std::string(static_cast<std::size_t>(title_width - display_width(title) + 2), ' ');
    const int room = screen.width - title_width - 6;
    auto words = in_short(check);
    if (screen.terminal && screen.width > 0) words = fit(screen, words, std::max(20, room));
    const bool bad = state == "warning" || state == "failure";
    out += fmt::format("  {} {}{}{}\n", paint(screen, look.ink, glyph(screen, look.glyph)), title, blank,
                       paint(screen,
                             bad             ? look.ink
                             : state == "ok" ? Ink::plain
                                             : Ink::dim,
                             words));
  }
  return out;
}

/// The findings of one state, each with why it matters and what to do.
std::string explain(const json::value& answer, std::string_view state, const Screen& screen) {
  std::string out;
  const auto& look = look_of(state);
  for (const auto& check : elements(member(answer, "checks"))) {
    bool first = true;
    for (const auto& finding : elements(member(check, "findings"))) {
      if (text(member(finding, "state")) != state) continue;
      out += paragraph(fmt::format("{}: {}", raw_text(member(check, "title")), raw_text(member(finding, "text"))),
                       screen, 2, glyph(screen, look.glyph), look.ink);
      if (std::exchange(first, false) && state != "note") out += paragraph(raw_text(member(check, "why")), screen, 4);
      const auto mend = text(member(finding, "mend"));
      if (!mend.empty())  // not wrapped: it is to be copied
        out += fmt::format("    {} {}\n", paint(screen, Ink::bold, glyph(screen, Glyph::arrow)), mend);
    }
  }
  return out;
}

/// "1 failure, 2 warnings, 3 notes; 14 in order, 1 not looked at"
std::string summary(const json::value& answer, const Screen& screen) {
  const auto count = [&](std::string_view state) {
    const auto& checks = elements(member(answer, "checks"));
    return static_cast<std::size_t>(std::count_if(
        checks.begin(), checks.end(), [&](const json::value& check) { return text(member(check, "state")) == state; }));
  };
  std::vector<std::string> parts;
  for (const char* state : {"failure", "warning", "note"})
    if (const auto number = count(state); number > 0)
      parts.push_back(paint(screen, look_of(state).ink, counted(number, state)));
  std::string out = join(parts, ", ");
  out += fmt::format("{}{} in order", out.empty() ? "" : "; ", count("ok"));
  if (const auto number = count("skipped"); number > 0) out += fmt::format(", {} not looked at", number);
  return out + ".\n";
}

std::string list_of_fixes(const json::value& fixes, const Screen& screen) {
  std::string out;
  for (const auto& fix : elements(fixes)) {
    const auto problem = text(member(fix, "problem"));
    if (!member(fix, "done").is_null())
      out += paint(screen, problem.empty() ? Ink::green : Ink::red,
                   glyph(screen, problem.empty() ? Glyph::done : Glyph::failed)) +
             " ";
    out += text(member(fix, "text")) + (problem.empty() ? "" : ": " + problem) + "\n";
  }
  return out;
}

int code_of(const json::value& answer) {
  for (const auto& fix : elements(member(answer, "fixed")))
    if (!truth(member(fix, "done"))) return static_cast<int>(ErrorCode::failed);
  const auto state = text(member(answer, "state"));
  return state == "failure" ? broken_code : state == "warning" ? warning_code : 0;
}

int finish(const json::value& answer, const Output& output) {
  const auto fixes = elements(member(answer, "fixes")).size();
  if (output.json)
    print_json(answer);
  else
    print(render_doctor(answer, output.out));
  if (!output.json && fixes > 0 && elements(member(answer, "fixed")).empty())
    print(fmt::format("gpumod doctor --fix can mend {}; it asks first.\n", counted(fixes, "thing")));
  return code_of(answer);
}

}  // namespace

std::string render_doctor(const json::value& answer, const Screen& screen) {
  std::string out = list_of_checks(answer, screen) + "\n";
  for (const char* state : {"note", "warning", "failure"})
    if (const auto words = explain(answer, state, screen); !words.empty()) out += words + "\n";
  if (const auto fixed = list_of_fixes(member(answer, "fixed"), screen); !fixed.empty())
    out += paint(screen, Ink::bold, "Mended") + "\n" + fixed + "\n";
  return out + summary(answer, screen);
}

int run_doctor(const Paths& paths, const Invocation& invocation, const Output& output) {
  json::object request = invocation.request;
  const auto answer = call(paths, *invocation.verb, request, output);
  if (!answer) return conclude(answer.error(), output);
  const auto& fixes = elements(member(*answer, "fixes"));
  if (!flag_of(request, "fix") || flag_of(request, "yes") || output.json || fixes.empty())
    return finish(*answer, output);

  print(render_doctor(*answer, output.out) + "\nThis can be mended now:\n" +
        list_of_fixes(member(*answer, "fixes"), output.out));
  if (!can_ask())
    return conclude(Error{ErrorCode::refused,
                          "nothing was mended: there is nobody to ask",
                          "gpumod doctor --fix --yes mends without asking.",
                          {}},
                    output);
  if (!ask("Mend it?", false)) return conclude(Error{ErrorCode::cancelled, "nothing was mended", {}, {}}, output);
  request["apply"] = true;
  const auto after = call(paths, *invocation.verb, request, output);
  if (!after) return conclude(after.error(), output);
  return finish(*after, output);
}

}  // namespace gpumod::cli
