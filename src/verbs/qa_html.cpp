// The HTML report: one file, its styles inside it, its charts drawn as SVG. It holds no script, and its own policy would
// forbid the browser to run or to fetch one: names of models and their answers are strangers' text.
#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "base/text.h"
#include "verbs/qa_issues.h"
#include "verbs/qa_report.h"
#include "verbs/qa_values.h"
#include "verbs/qa_words.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr std::string_view head = R"(<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root{--ink:#1b1f24;--dim:#667;--paper:#fff;--card:#f5f6f8;--line:#d8dbe0;--good:#1a7f37;--bad:#c0262d;--warn:#9a6700;
--c0:#4c78a8;--c1:#f58518;--c2:#54a24b;--c3:#b279a2;--c4:#9d755d;--c5:#72b7b2}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--dim:#9aa3ad;--paper:#14171a;--card:#1d2125;--line:#343a40;
--good:#56d364;--bad:#ff7b72;--warn:#e3b341}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid var(--line)}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.35rem .6rem .35rem 0;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;white-space:nowrap}.dim{color:var(--dim)}.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.card,details{background:var(--card);border-radius:6px;padding:.6rem 1rem;margin:.7rem 0}summary{cursor:pointer;font-weight:600}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:12.5px/1.45 ui-monospace,monospace}dt{font-weight:600}dd{margin:0 0 .4rem 1rem}
td,dd,li{overflow-wrap:anywhere}svg{width:100%;height:auto}.results td:first-child{min-width:9rem}
.bars>div{display:flex;align-items:center;gap:.7rem;margin:.3rem 0}.bars span{flex:0 0 12rem;overflow-wrap:anywhere}
.bars span:first-child{text-align:right}.bars span:last-child{flex-basis:17rem}.bars svg{flex:1 1 0;min-width:0;height:1rem}
.c0{fill:var(--c0);background:var(--c0)}.c1{fill:var(--c1);background:var(--c1)}.c2{fill:var(--c2);background:var(--c2)}.c3{fill:var(--c3);background:var(--c3)}.c4{fill:var(--c4);background:var(--c4)}.c5{fill:var(--c5);background:var(--c5)}
.curve{fill:var(--c0);fill-opacity:.35;stroke:var(--c0)}.over{height:9rem}.over *{vector-effect:non-scaling-stroke}.mark{stroke:var(--dim);stroke-dasharray:3 3}
.key{white-space:nowrap;margin-right:1em}.key span{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}
@media(max-width:40rem){.bars>div{flex-wrap:wrap;gap:.1rem .7rem;margin:.7rem 0}.bars span:first-child{flex:1 1 0;text-align:left}
.bars span:last-child{flex:0 1 auto;text-align:right}.bars svg{flex:0 0 100%;order:1}
.rows th{display:none}.rows tr{display:flex;flex-wrap:wrap;border-bottom:1px solid var(--line)}.rows td{border:0;min-width:0}
.results td:first-child{flex:1 0 40%}.rows td:last-child{flex:0 0 100%}}
</style>
)";

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : printable(text))
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  return out;
}

std::string tag(std::string_view name, std::string_view text, std::string_view style = {}) {
  return fmt::format("<{0}{1}>{2}</{0}>", name, style.empty() ? "" : fmt::format(" class=\"{}\"", style),
                     escaped(text));
}

std::string_view style_of(const json::value& transition) {
  const auto word = result_word(transition);
  return word == "PASS" ? "good" : word == "PASS*" ? "warn" : "bad";
}

// ---- charts ----

struct Segment {
  double amount = 0;
  int colour = 0;
};
struct Bar {
  std::string label;
  std::vector<Segment> segments;  ///< beside each other
  std::string value;              ///< in words, behind it
};

/// Bars that lie, one below the other, all to one scale. Only they are drawn: the words beside them stay text, so that a
/// narrow screen can break the line and nothing shrinks to where nobody can read it.
std::string chart(const std::vector<Bar>& bars, double most, std::string_view describes) {
  if (bars.empty() || !(most > 0)) return {};
  auto out = fmt::format("<div class=\"bars\" role=\"group\" aria-label=\"{}\">\n", escaped(describes));
  for (const auto& bar : bars) {
    out += "<div>" + tag("span", bar.label) + "<svg aria-hidden=\"true\">";
    double at = 0;
    for (const auto& segment : bar.segments) {
      const double width = std::clamp(segment.amount / most, 0.0, 1.0) * 100;
      out += fmt::format("<rect class=\"c{}\" x=\"{:.2f}%\" width=\"{:.2f}%\" height=\"100%\"/>", segment.colour % 6,
                         at, width);
      at += width;
    }
    out += "</svg>" + tag("span", bar.value, "dim") + "</div>\n";
  }
  return out + "</div>\n";
}

std::string key(const std::vector<std::pair<std::string, int>>& entries) {
  std::string out = "<p class=\"dim\">";
  for (const auto& [name, colour] : entries)
    out += fmt::format("<span class=\"key\"><span class=\"c{}\"></span>{}</span> ", colour % 6, escaped(name));
  return out + "</p>\n";
}

int colour_of_action(const std::string& action) {
  static const std::map<std::string, int> colours{{"stop", 4}, {"unload", 4}, {"sleep", 3}, {"start", 0},
                                                  {"load", 1}, {"wake", 5},   {"verify", 2}};
  const auto found = colours.find(action);
  return found == colours.end() ? 3 : found->second;
}

/// Steps that run beside each other are drawn one behind the other, shrunk to the time of the whole.
std::vector<Segment> segments_of(const json::value& transition, double whole) {
  std::vector<Segment> segments;
  double sum = 0;
  for (const auto& step : list_at(transition, {"steps"}))
    if (const auto took = number_at(step, {"seconds"}); took && *took > 0) {
      segments.push_back({*took, colour_of_action(string_at(step, {"action"}))});
      sum += *took;
    }
  if (sum > whole)
    for (auto& segment : segments)
      segment.amount *= whole / sum;
  else
    segments.push_back({whole - sum, 5});
  return segments;
}

std::string time_chart(const json::value& run) {
  std::vector<Bar> bars;
  double most = 0;
  for (const auto& transition : list_at(run, {"transitions"})) {
    const auto took = number_at(transition, {"seconds"}).value_or(0);
    most = std::max(most, took);
    bars.push_back(
        {name_of_transition(transition), segments_of(transition, took), seconds_words(find(transition, {"seconds"}))});
  }
  const auto drawn = chart(bars, most, "Seconds of each transition");
  if (drawn.empty()) return {};
  return tag("h2", "Time") + drawn +
         key({{"stop, unload", 4},
              {"sleep", 3},
              {"start", 0},
              {"load", 1},
              {"verify", 2},
              {"wake, everything else", 5}});
}

/// The memory of one GPU over all switches, one behind the other: between them nothing was recorded.
std::string curve_of(const json::value& run, std::int64_t gpu, double total) {
  constexpr double width = 800, height = 150;
  double whole = 0;
  for (const auto& transition : list_at(run, {"transitions"}))
    whole += number_at(transition, {"seconds"}).value_or(0);
  if (!(whole > 0) || !(total > 0)) return {};
  std::string line, marks;
  double began = 0, last = height;
  for (const auto& transition : list_at(run, {"transitions"})) {
    const double took = number_at(transition, {"seconds"}).value_or(0);
    for (const auto& point : list_at(transition, {"curve"})) {
      const auto used = number_at(point, {"used"}), at = number_at(point, {"at"});
      if (!used || !at || integer_at(point, {"gpu"}) != gpu) continue;
      const double x = (began + std::clamp(*at, 0.0, took)) / whole * width;
      line += fmt::format("{:.1f},{:.1f} ", x, last);  // it stayed so until now
      last = height - std::clamp(*used / total, 0.0, 1.0) * height;
      line += fmt::format("{:.1f},{:.1f} ", x, last);
    }
    began += took;
    marks += fmt::format("<path class=\"mark\" d=\"M{0:.1f} 0V{1}\"/>", began / whole * width, height);
  }
  if (line.empty()) return {};
  return fmt::format(
      "<svg class=\"over\" preserveAspectRatio=\"none\" viewBox=\"0 0 {0} {1}\" role=\"img\" aria-label=\"Memory in "
      "use over the switches\"><polyline "
      "class=\"curve\" "
      "points=\"0,{1} {2}{0},{3:.1f} {0},{1}\"/>{4}</svg>\n",
      width, height, line, last, marks);
}

std::string curves(const json::value& run) {
  std::string out;
  for (const auto& gpu : list_at(run, {"environment", "gpus"})) {
    const auto drawn = curve_of(run, integer_at(gpu, {"index"}).value_or(0), number_at(gpu, {"total"}).value_or(0));
    if (drawn.empty()) continue;
    out += tag("p",
               fmt::format("{}, of {}; a line ends each switch", string_at(gpu, {"name"}),
                           bytes_words(find(gpu, {"total"}))),
               "dim") +
           drawn;
  }
  return out.empty() ? out : tag("h2", "VRAM over the switches") + out;
}

std::string memory_chart(const json::value& run) {
  double total = 0;
  for (const auto& gpu : list_at(run, {"environment", "gpus"}))
    total += number_at(gpu, {"total"}).value_or(0);
  std::vector<Bar> bars;
  for (const auto& transition : list_at(run, {"transitions"})) {
    const auto peak = number_at(transition, {"vram", "peak"}), after = number_at(transition, {"vram", "after"});
    if (!peak || !after) continue;
    total = std::max(total, *peak);
    bars.push_back({name_of_transition(transition),
                    {{*after, 0}, {std::max(0.0, *peak - *after), 1}},
                    fmt::format("{}, peak {}", bytes_words(find(transition, {"vram", "after"})),
                                bytes_words(find(transition, {"vram", "peak"})))});
  }
  const auto drawn = chart(bars, total, "Memory in use after each transition, and at its peak");
  return drawn.empty() ? drawn : tag("h2", "VRAM") + drawn + key({{"in use afterwards", 0}, {"at the peak", 1}});
}

std::string speed_chart(const json::value& run) {
  std::vector<Bar> bars;
  double most = 0;
  for (const auto& transition : list_at(run, {"transitions"}))
    for (const auto& service : list_at(transition, {"services"})) {
      const auto rate = number_at(service, {"figures", "tokens_per_second"});
      if (!rate) continue;
      most = std::max(most, *rate);
      bars.push_back({string_at(service, {"service"}),
                      {{*rate, 2}},
                      fmt::format("{:.0f} tok/s, {}", *rate, name_of_transition(transition))});
    }
  const auto drawn = chart(bars, most, "Tokens per second of each service");
  return drawn.empty() ? drawn : tag("h2", "Generation") + drawn;
}

// ---- text ----

std::string environment(const json::value& run) {
  std::string out = tag("h2", "Environment") + "<ul>\n";
  const auto item = [&](const std::string& text) { out += tag("li", text) + "\n"; };
  for (const auto& gpu : list_at(run, {"environment", "gpus"}))
    item(fmt::format("{} ({})", string_at(gpu, {"name"}), bytes_words(find(gpu, {"total"}))));
  if (const auto driver = string_at(run, {"environment", "driver"}); !driver.empty()) item("Driver " + driver);
  item("gpumod " + string_at(run, {"environment", "gpumod"}));
  for (const auto& service : list_at(run, {"environment", "services"}))
    item(fmt::format("{}: {} with {}", string_at(service, {"id"}), string_at(service, {"engine"}),
                     string_at(service, {"model"})));
  for (const auto& change : list_at(run, {"compared", "changes"}))
    if (change.is_string()) item("Changed: " + std::string(change.get_string()));
  return out + "</ul>\n";
}

std::string results(const json::value& run) {
  std::string out = tag("h2", "Results") +
                    "<table class=\"rows results\"><tr><th>Transition</th><th "
                    "class=\"n\">Time</th><th>Result</th><th>Notes</th></tr>\n";
  for (const auto& transition : list_at(run, {"transitions"}))
    out += "<tr>" + tag("td", name_of_transition(transition)) +
           tag("td", seconds_words(find(transition, {"seconds"})), "n") +
           tag("td", result_word(transition), style_of(transition)) + tag("td", join(notes_on(transition), "; ")) +
           "</tr>\n";
  return out + "</table>\n";
}

std::string definition(const json::value& issue, const char* name, const char* member) {
  const auto text = string_at(issue, {member});
  return text.empty() ? text : tag("dt", name) + tag("dd", text);
}

std::string log_text(const json::array& lines) {
  std::string out;
  for (const auto& line : lines)
    if (line.is_string()) out += escaped(line.get_string()) + "\n";
  return out.empty() ? out : "<pre>" + out + "</pre>";
}

std::string issues(const json::value& run) {
  std::string out = tag("h2", "Issues found");
  const auto& found = list_at(run, {"issues"});
  if (found.empty()) return out + tag("p", "None.", "good");
  for (const auto& issue : found) {
    std::vector<std::string> where;
    for (const auto& name : list_at(issue, {"transitions"}))
      if (name.is_string()) where.emplace_back(name.get_string());
    out += "<div class=\"card\">" + tag("strong", string_at(issue, {"title"})) + " " +
           tag("span", join(where, ", "), "dim") + "<dl>" + definition(issue, "Symptom", "symptom") +
           definition(issue, "Cause", "cause") + definition(issue, "Impact", "impact") +
           definition(issue, "Remedy", "remedy") + "</dl>" + log_text(list_at(issue, {"log"})) + "</div>\n";
  }
  return out;
}

std::string step_row(const json::value& step) {
  const auto service = string_at(step, {"service"});
  std::string said = string_at(step, {"note"});
  for (const auto& mishap : list_at(step, {"earlier"}))
    if (mishap.is_string()) said += (said.empty() ? "" : "; before that: ") + std::string(mishap.get_string());
  return "<tr>" + tag("td", (true_at(step, {"undo"}) ? "back: " : "") + string_at(step, {"action"})) +
         tag("td", service.empty() ? string_at(step, {"unit"}) : service) + tag("td", string_at(step, {"result"})) +
         tag("td", seconds_words(find(step, {"seconds"})), "n") + tag("td", said) + "</tr>\n";
}

std::string details(const json::value& run) {
  std::string out = tag("h2", "Detailed log");
  for (const auto& transition : list_at(run, {"transitions"})) {
    out += "<details>" +
           tag("summary", fmt::format("{}: {}, {}", name_of_transition(transition), result_word(transition),
                                      seconds_words(find(transition, {"seconds"})))) +
           tag("p", vram_words(transition), "dim") + "<table class=\"rows\">\n";
    for (const auto& step : list_at(transition, {"steps"}))
      out += step_row(step);
    out += "</table><ul>\n";
    for (const auto& note : notes_on(transition))
      out += tag("li", note) + "\n";
    for (const auto& foreign : list_at(transition, {"foreign"}))
      out += tag("li", fmt::format("foreign: {} holds {}", string_at(foreign, {"name"}),
                                   bytes_words(find(foreign, {"bytes"})))) +
             "\n";
    out += "</ul>";
    for (const auto& log : list_at(transition, {"logs"}))
      out += tag("p", "The last lines of " + string_at(log, {"service"})) + log_text(list_at(log, {"lines"}));
    out += "</details>\n";
  }
  return out;
}

std::string comparison(const json::value& run) {
  const auto before = integer_at(run, {"compared", "before"});
  if (!before) return {};
  auto out = tag("h2", fmt::format("Compared with run {}", *before)) + "<ul>\n";
  const auto list = [&](const char* what, const char* style) {
    for (const auto& entry : list_at(run, {"compared", what}))
      out += tag("li", string_at(entry, {"text"}), style) + "\n";
  };
  list("regressions", "bad");
  list("improvements", "good");
  if (out.ends_with("<ul>\n")) out += tag("li", "Nothing is worse or better by more than the tolerance.");
  return out + "</ul>\n";
}

}  // namespace

std::string qa_html(const json::value& run) {
  const auto id = integer_at(run, {"id"});
  const auto title = fmt::format("Quality run{}", id ? fmt::format(" {}", *id) : "");
  const bool good = string_at(run, {"result"}) == "passed";
  std::string out = "<!doctype html>\n<html lang=\"en\">\n" + std::string(head) + tag("title", title) + "\n";
  out += tag("h1", title) + tag("p", string_at(run, {"began"}), "dim") + tag("p", sequence_words(run));
  out += tag("p",
             fmt::format("{}: {}, in {}", string_at(run, {"result"}), summary_words(run),
                         seconds_words(find(run, {"seconds"}))),
             good ? "good" : "bad");
  if (const auto words = restored_words(run); !words.empty()) out += tag("p", words);
  if (const auto fault = string_at(run, {"fault", "what"}); !fault.empty()) out += tag("p", "Planted fault: " + fault);
  return out + results(run) + time_chart(run) + curves(run) + memory_chart(run) + speed_chart(run) + issues(run) +
         comparison(run) + environment(run) + details(run) + "</html>\n";
}

}  // namespace gpumod
