// `gpumod status`: the screen for a person at 23:00. First whether all is well, then the GPUs, the services, and last,
// each with the command that mends it, what is not as it should be.

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/text.h"
#include "base/units.h"
#include "faces/cli/fields.h"
#include "faces/cli/memory_bar.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

std::string command(const Screen& screen, std::string_view words) {
  return paint(screen, Ink::cyan, words);
}

std::int64_t count_of(const json::value& bytes) {
  return static_cast<std::int64_t>(number(bytes).value_or(0));
}

/// Who holds a GPU's memory, biggest first.
struct Holder {
  std::string name;
  std::string kind;  ///< managed, orphan, foreign
  std::int64_t used = 0;
  bool known = true;
};

std::string name_of_unit(std::string unit) {
  if (unit.starts_with("gpumod-")) unit.erase(0, 7);
  if (unit.ends_with(".service")) unit.erase(unit.size() - 8);
  return unit;
}

std::vector<Holder> holders_of(const json::value& gpu) {
  std::vector<Holder> holders;
  for (const auto& holder : elements(member(member(gpu, "ledger"), "holders"))) {
    const auto kind = text(member(holder, "holder")), name = text(member(holder, "name"));
    holders.push_back({kind == "foreign" ? name : name_of_unit(name), kind, count_of(member(holder, "used")),
                       truth(member(holder, "complete"))});
  }
  return holders;
}

Ink ink_of_holder(std::string_view kind) {
  return kind == "managed" ? Ink::green : kind == "orphan" ? Ink::red : kind == "foreign" ? Ink::yellow : Ink::plain;
}

std::string bar(const Screen& screen, const std::vector<Holder>& holders, std::int64_t used, std::int64_t total,
                int width) {
  std::vector<BarPart> parts;
  std::int64_t unexplained = used;
  for (const char* kind : {"managed", "orphan", "foreign"}) {
    std::int64_t held = 0;
    for (const auto& holder : holders)
      if (holder.kind == kind) held += holder.used;
    held = std::min(held, unexplained);  // memory that is shared is counted in each
    unexplained -= held;
    parts.push_back(bar_part(screen, Glyph::full, ink_of_holder(kind), held));
  }
  parts.push_back(bar_part(screen, Glyph::full, Ink::plain, unexplained));
  parts.push_back(bar_part(screen, Glyph::empty, Ink::dim, total - used));
  return draw_bar(parts, screen, width);
}

std::string render_gpu(const json::value& gpu, const Screen& screen) {
  std::string out;
  const auto total = count_of(member(gpu, "total"));
  const auto used = total - count_of(member(gpu, "free"));
  const auto holders = holders_of(gpu);
  const auto title = fmt::format("GPU {}  {}", plain(member(gpu, "index")), text(member(gpu, "name")));
  const auto figures = total > 0 ? fmt::format("{} of {}", Bytes(used).to_mib(), to_string(Bytes(total)))
                                 : std::string("its memory cannot be read");
  const int space =
      (screen.width ? std::min(screen.width, 100) : 80) - display_width(title) - display_width(figures) - 4;
  out += paint(screen, Ink::bold, title);
  if (space >= 10 && total > 0) out += "  " + bar(screen, holders, used, total, std::min(space, 40));
  out += "  " + figures + "\n";
  std::vector<std::string> parts;
  for (const auto& holder : holders) {
    const auto amount = holder.known ? " " + to_string(Bytes(holder.used)) : std::string();
    parts.push_back(holder.kind == "managed" ? holder.name + amount
                                             : fmt::format("{} ({}){}", holder.name, holder.kind, amount));
  }
  if (!parts.empty()) {
    const auto line = join(parts, fmt::format(" {} ", glyph(screen, Glyph::dot)));
    out += "       " + paint(screen, Ink::dim, screen.width ? fit(screen, line, screen.width - 8) : line) + "\n";
  }
  return out;
}

std::string render_gpus(const json::value& answer, const Screen& screen, Picture picture) {
  std::string out;
  for (const auto& gpu : elements(member(answer, "gpus"))) {
    if (picture == Picture::visual)
      out += (out.empty() ? "" : "\n") + render_ledger(gpu, screen);
    else
      out += render_gpu(gpu, screen);
  }
  const auto& problem = member(answer, "gpu_problem");
  if (!problem.is_null()) {
    out += paragraph(text(member(problem, "message")), screen, 6, "GPUs:", Ink::yellow);
    out += paragraph(text(member(problem, "hint")), screen, 6);
  }
  return out;
}

/// What is to run, does not answer, and is brought up by nobody has hung, or never came up: to call that starting would
/// promise that it comes.
std::string state_of(const json::value& service, bool under_way) {
  const auto state = text(member(service, "state"));
  return state == "starting" && text(member(service, "wanted")) == "running" && !under_way ? "not answering" : state;
}

std::string render_services(const json::value& answer, const Screen& screen) {
  Table table({{"SERVICE"},
               {"STATE"},
               {.title = "WANTED", .goes = 2},
               {.title = "PORT", .right = true, .goes = 1},
               {.title = "PID", .right = true, .goes = 3},
               {"VRAM", true},
               {"", false, true}});
  const bool under_way = truth(member(member(answer, "switch"), "under_way"));
  for (const auto& service : elements(member(answer, "services"))) {
    const auto state = state_of(service, under_way), wanted = text(member(service, "wanted"));
    const bool as_wanted = state == wanted || wanted.empty();
    table.add({{text(member(service, "id"))},
               state_cell(state, screen),
               {wanted == "stopped" ? "" : wanted, as_wanted ? Ink::dim : Ink::yellow},
               {plain(member(service, "port"))},
               {plain(member(service, "pid"))},
               {count_of(member(service, "vram_used")) > 0 ? mebibytes(member(service, "vram_used")) : ""},
               {text(member(service, "detail")), state == "failed" ? Ink::red : Ink::dim}});
  }
  return table.empty() ? "No services yet: gpumod init writes some.\n" : table.render(screen);
}

std::string render_differences(const json::value& answer, const Screen& screen) {
  std::string out;
  if (truth(member(member(answer, "switch"), "under_way"))) return out;  // they are being dealt with
  bool repair_mends = false, people_first = false;
  std::set<std::string> told;
  for (const auto& difference : elements(member(answer, "differences"))) {
    out += fmt::format("{} {}\n", paint(screen, Ink::yellow, "!"), text(member(difference, "text")));
    told.insert(text(member(difference, "service")));
    const bool mends = member(difference, "repair_mends") != json::value(false);
    repair_mends = repair_mends || mends;
    people_first = people_first || (!mends && text(member(difference, "kind")) == "port");  // repair refuses until then
  }
  for (const auto& orphan : elements(member(answer, "orphans"))) {
    const auto pids = plain(member(orphan, "pids"));
    const auto place = text(member(orphan, "broken_file")), id = text(member(orphan, "tag"));
    if (!place.empty()) {
      if (!told.contains(id))
        out += fmt::format("{} {} is {}{}, and its file is broken: correct {}, or {}\n",
                           paint(screen, Ink::yellow, "!"), text(member(orphan, "unit")), text(member(orphan, "state")),
                           pids.empty() ? "" : fmt::format(" (pid {})", pids), place,
                           command(screen, "gpumod service stop " + id));
      continue;
    }
    repair_mends = true;
    out += fmt::format("{} orphan: {} is {}{}, but no file defines it\n", paint(screen, Ink::yellow, "!"),
                       text(member(orphan, "unit")), text(member(orphan, "state")),
                       pids.empty() ? "" : fmt::format(" (pid {})", pids));
  }
  if (!repair_mends || people_first) return out;         // what to do was said with each
  if (member(answer, "switch").is_object()) return out;  // what to do about it was said with the switch
  const auto mode = text(member(answer, "mode"));
  out += mode.empty() ? fmt::format("  {} says what should run, and stops the rest.\n",
                                    command(screen, "gpumod mode switch MODE"))
                      : fmt::format("  {} puts this in order.\n", command(screen, "gpumod repair"));
  return out;
}

/// What people changed by hand since: as wanted, but worth remembering.
std::string render_deviations(const json::value& answer, const Screen& screen) {
  std::string out;
  for (const auto& deviation : elements(member(answer, "deviations")))
    out += paragraph(text(member(deviation, "text")), screen, 2, "~", Ink::cyan);
  return out;
}

/// "12 s", "3:07 min".
std::string age(const json::value& seconds) {
  const auto whole = static_cast<std::int64_t>(std::max(0.0, number(seconds).value_or(0)));
  return whole < 100 ? fmt::format("{} s", whole) : fmt::format("{}:{:02} min", whole / 60, whole % 60);
}

std::string render_unfinished(const json::value& answer, const Screen& screen) {
  const auto& change = member(answer, "switch");
  if (change.is_null()) return {};
  if (!truth(member(change, "under_way"))) {
    const auto words = text(member(change, "text"));
    return paragraph(words.empty() ? "a switch was interrupted" : words, screen, 2, "!", Ink::red) +
           paragraph(text(member(change, "hint")), screen, 2);
  }
  auto verb = text(member(change, "verb"));
  if (verb.empty()) verb = "a change";
  const auto id = plain(member(change, "id"));
  return fmt::format("{} {} is under way since {} ({}; pid {}{})\n",
                     paint(screen, Ink::cyan, glyph(screen, Glyph::half)), paint(screen, Ink::bold, verb),
                     local_time(member(change, "since"), screen), age(member(change, "seconds")),
                     plain(member(change, "pid")), id.empty() ? "" : ", switch " + id) +
         fmt::format("  {}{} takes it back.\n",
                     id.empty() ? "" : command(screen, "gpumod history show " + id) + " shows how far it is; ",
                     command(screen, "gpumod mode cancel"));
}

/// "Mode code without chat, with asr"
std::string mode_words(const json::value& answer, const Screen& screen) {
  const auto mode = text(member(answer, "mode"));
  if (mode.empty()) return paint(screen, Ink::bold, "No mode has been switched to yet");
  std::map<std::string, std::vector<std::string>> by_kind;
  for (const auto& deviation : elements(member(answer, "deviations")))
    by_kind[text(member(deviation, "kind"))].push_back(text(member(deviation, "service")));
  std::vector<std::string> parts;
  if (const auto& names = by_kind["without"]; !names.empty()) parts.push_back("without " + join(names, " and "));
  if (const auto& names = by_kind["besides"]; !names.empty()) parts.push_back("with " + join(names, " and "));
  if (const auto& names = by_kind["asleep"]; !names.empty()) parts.push_back(join(names, " and ") + " asleep");
  return "Mode " + paint(screen, Ink::bold, mode) + (parts.empty() ? "" : " " + join(parts, ", "));
}

std::string headline(const json::value& answer, const Screen& screen, bool in_order) {
  const auto mode = text(member(answer, "mode"));
  const auto manager = text(member(answer, "unit_manager"));
  std::string out = mode_words(answer, screen);
  out += fmt::format(" {} ", glyph(screen, Glyph::dash));
  const bool under_way = truth(member(member(answer, "switch"), "under_way"));
  const auto& services = elements(member(answer, "services"));
  // Single services may have been started without any mode.
  const bool wants_nothing = mode.empty() && std::all_of(services.begin(), services.end(), [](const json::value& each) {
                               const auto wanted = text(member(each, "wanted"));
                               return wanted.empty() || wanted == "stopped";
                             });
  out += under_way  ? paint(screen, Ink::cyan, "a change is under way")
         : in_order ? paint(screen, Ink::green, wants_nothing ? "nothing of ours runs" : "all as it should be")
                    : paint(screen, Ink::yellow, "not as it should be");
  if (manager == "local") out += paint(screen, Ink::dim, " (local supervisor)");
  return out + "\n";
}

bool is_in_order(const json::value& answer) {
  return elements(member(answer, "differences")).empty() && elements(member(answer, "orphans")).empty() &&
         member(answer, "switch").is_null() && elements(member(answer, "notes")).empty();
}

void add_part(std::string& out, const std::string& part) {
  if (!part.empty()) out += "\n" + part;
}

std::string render_notes(const json::value& answer, const Screen& screen) {
  std::string out;
  for (const auto& note : texts(member(answer, "notes")))
    out += paragraph(note, screen, 2, glyph(screen, Glyph::half), Ink::yellow);
  return out;
}

}  // namespace

Cell state_cell(const std::string& state, const Screen& screen) {
  if (state.empty()) return {};
  const bool quiet = state == "stopped" || state == "unknown";
  const bool up = state == "running";
  const Ink ink = up ? Ink::green : state == "failed" ? Ink::red : quiet ? Ink::dim : Ink::yellow;
  const Glyph mark = up ? Glyph::on : state == "failed" ? Glyph::failed : quiet ? Glyph::off : Glyph::half;
  return {fmt::format("{} {}", glyph(screen, mark), state), ink};
}

std::string render_status(const json::value& answer, const Screen& screen, Picture picture) {
  std::string out = headline(answer, screen, is_in_order(answer)) + render_notes(answer, screen);
  add_part(out, render_gpus(answer, screen, picture));
  add_part(out, render_services(answer, screen));
  add_part(out,
           render_unfinished(answer, screen) + render_differences(answer, screen) + render_deviations(answer, screen));
  const auto problems = render_problems(member(answer, "problems"), screen, 2);
  if (!problems.empty()) add_part(out, "Problems in your files:\n" + problems);
  return out;
}

std::string render_mode_status(const json::value& answer, const Screen& screen) {
  std::string out =
      headline(answer, screen,
               truth(member(answer, "in_order")) || (text(member(answer, "mode")).empty() && is_in_order(answer)));
  out += render_notes(answer, screen);
  Table table({{"SERVICE"}, {"STATE"}, {"WANTED"}, {"", false, true}});
  const bool under_way = truth(member(member(answer, "switch"), "under_way"));
  for (const auto& service : elements(member(answer, "services")))
    table.add({{text(member(service, "id"))},
               state_cell(state_of(service, under_way), screen),
               {text(member(service, "wanted")), Ink::dim},
               {text(member(service, "detail")), Ink::dim}});
  add_part(out, table.render(screen));
  add_part(out,
           render_unfinished(answer, screen) + render_differences(answer, screen) + render_deviations(answer, screen));
  return out;
}

}  // namespace gpumod::cli
