#include "faces/cli/demo.h"

#include <algorithm>
#include <cstdio>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include "base/text.h"
#include "faces/cli/fields.h"
#include "faces/cli/progress.h"
#include "faces/cli/render.h"
#include "faces/cli/signals.h"
#include "faces/cli/table.h"
#include "verbs/context.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

std::string transition(const json::value& row, const Screen& screen) {
  return fmt::format("{} {} {}", text(member(row, "from")), glyph(screen, Glyph::arrow), text(member(row, "to")));
}

std::string result_words(const json::value& row) {
  const auto result = text(member(row, "result"));
  if (truth(member(row, "passed"))) return "PASS";
  return result == "rolled_back" ? "ROLLED BACK" : result == "cancelled" ? "CANCELLED" : "FAIL";
}

std::string render_faults(const json::array& faults, const Screen& screen) {
  std::string out = "Faults that the demo can play, with gpumod demo --fault NAME:\n";
  for (const auto& fault : faults) {
    out += "\n" + paint(screen, Ink::bold, text(member(fault, "name"))) + "\n";
    out += paragraph(text(member(fault, "what")), screen, 2);
    out +=
        paragraph(text(member(fault, "outcome")), screen, 4, "  " + std::string(glyph(screen, Glyph::arrow)), Ink::dim);
  }
  return out;
}

/// One row of the table, and its notes below it.
std::string render_rows(const json::array& rows, const Screen& screen) {
  Table table({{"TRANSITION"}, {"TIME", true}, {"RESULT"}, {"VRAM", true}});
  for (const auto& row : rows) {
    const bool passed = truth(member(row, "passed"));
    table.add({{transition(row, screen), Ink::bold},
               {seconds_text(member(row, "seconds"))},
               {result_words(row), passed ? Ink::green : Ink::red},
               {mebibytes(member(row, "vram"))}});
  }
  std::vector<std::vector<std::string>> notes;
  for (const auto& row : rows) {
    auto words = text(member(row, "notes"));
    notes.push_back(words.empty() ? std::vector<std::string>() : std::vector{std::move(words)});
  }
  return with_notes(table.render(screen), notes, screen);
}

class DemoWatcher {
 public:
  explicit DemoWatcher(const Output& output)
      : output_(output), screen_(output.out), area_(STDOUT_FILENO), live_(!output.json && screen_.live) {}

  void on_event(const json::object& event) {
    if (output_.json) return;
    const auto kind = text(member(event, "event"));
    if (kind == "demo") return introduce(event);
    if (kind == "row") {
      view_ = ProgressView(transition(event, screen_));
      view_.set_hint("Ctrl-C ends the demo");
      if (!vram_.empty()) view_.on_event(vram_, now());
      if (!live_) print(transition(event, screen_) + "\n");
    } else if (kind == "row_done") {
      done_.push_back(event);
      if (!live_)
        print(fmt::format("{}: {} in {}\n", transition(event, screen_), result_words(event),
                          seconds_text(member(event, "seconds"))));
    } else if (kind == "notice") {
      if (!live_) print(text(member(event, "text")) + "\n");
    } else if (kind != "tick") {
      if (kind == "vram") vram_ = event;
      view_.on_event(event, now());
      if (const auto line = live_ ? std::nullopt : view_.appended(event, screen_)) print("  " + *line + "\n");
    }
    draw();
  }

  void ending() {
    view_.set_hint("ending the demo: everything it started is stopped");
    draw();
  }
  void clear() { area_.clear(); }
  bool live() const { return live_; }

 private:
  void introduce(const json::object& event) {
    print(paint(output_.out, Ink::bold, "gpumod on a simulated RTX 4090") +
          fmt::format(", engines {} times faster than real, in {}\n", plain(member(event, "speed")),
                      text(member(event, "directory"))));
    const auto& fault = member(event, "fault");
    if (!fault.is_null())
      print(paragraph(text(member(fault, "what")), output_.out, 2, paint(output_.out, Ink::yellow, "!")));
    print("\n");
  }

  void draw() {
    if (!live_) return;
    if (Signals::take_suspension()) area_.forget();
    screen_.measure(STDOUT_FILENO);
    std::vector<std::string> lines;
    for (const auto& row : done_) {
      const bool passed = truth(member(row, "passed"));
      auto words = fmt::format("{}  {}", transition(row, screen_), seconds_text(member(row, "seconds")));
      lines.push_back(
          paint(screen_, passed ? Ink::green : Ink::red, glyph(screen_, passed ? Glyph::done : Glyph::failed)) + " " +
          fit(screen_, words, screen_.width - 3));
    }
    Screen rest = screen_;
    rest.height -= static_cast<int>(lines.size());
    for (auto& line : view_.lines(rest, now(), turn_++))
      lines.push_back(std::move(line));
    area_.draw(lines, screen_);
  }

  const Output& output_;
  Screen screen_;
  ProgressView view_{"demo"};
  LiveArea area_;
  bool live_;
  unsigned turn_ = 0;
  json::object vram_;
  std::vector<json::object> done_;
};

}  // namespace

std::string render_demo(const json::value& answer, const Screen& screen) {
  if (const auto& faults = elements(member(answer, "faults")); !faults.empty()) return render_faults(faults, screen);
  std::string out = render_rows(elements(member(answer, "transitions")), screen) + "\n";
  const auto& orphans = elements(member(answer, "orphans"));
  if (orphans.empty())
    out += paragraph(
        fmt::format("nothing that was started still runs; {} of VRAM in use", mebibytes(member(answer, "final_vram"))),
        screen, 12, "no orphans:", Ink::green);
  for (const auto& orphan : orphans)
    out += paragraph(fmt::format("pid {} ({}) still holds {}", plain(member(orphan, "pid")),
                                 text(member(orphan, "command")), mebibytes(member(orphan, "vram"))),
                     screen, 8, "orphan:", Ink::red);
  for (const auto& file : texts(member(answer, "reports")))
    out += file + "\n";
  const auto kept = text(member(answer, "directory"));
  if (!kept.empty()) out += fmt::format("Files and logs are in {}\n", kept);
  if (!truth(member(answer, "passed"))) return out;
  Table next({{""}, {"", false, true, true}});
  if (member(answer, "fault").is_null())
    next.add({{"gpumod demo --fault list", Ink::cyan}, {"what can go wrong here, and what is done about it"}});
  else
    next.add({{"gpumod demo --fault list", Ink::cyan}, {"the other faults"}});
  if (kept.empty()) next.add({{"gpumod demo --keep", Ink::cyan}, {"and look at the files it was made of"}});
  next.add({{"gpumod init", Ink::cyan}, {"on your own machine: find engines and models, write a configuration"}});
  return out + "\nNext:\n" + next.render(screen, 2, false);
}

int run_demo(const Paths& paths, const Invocation& invocation, const Output& output) {
  ::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of print(), not the end of us: there is much to clean up
  DemoWatcher watcher(output);
  Result<json::value> answer;
  {
    const Signals signals(watcher.live());
    Loop loop;
    Context* running = nullptr;
    bool stopping = false;
    Context context(loop, paths, [&](const json::object& event) {
      // Whoever read our output has left: nobody would see the rest, and nothing of it may stay behind.
      const bool unheard = std::ferror(stdout) != 0;
      const bool stop = Signals::interrupts() > 0 || Signals::ended_by() != 0 || unheard;
      if (stop && !std::exchange(stopping, true)) {
        running->cancel();
        watcher.ending();
      }
      watcher.on_event(event);
    });
    running = &context;
    answer = loop.run_until_done(invocation.verb->handler(context, invocation.request));
    watcher.clear();
  }
  if (const int ended_by = Signals::ended_by()) {
    ::raise(ended_by);
    return 128 + ended_by;
  }
  if (answer) {
    output.json ? print_json(*answer) : print(render_demo(*answer, output.out));
    return 0;
  }
  // A demo in which not every row passed has a table all the same.
  Error error = answer.error();
  const auto& report = member(error.details, "demo");
  if (report.is_null()) return conclude(error, output);
  const json::value shown = report;
  error.details = nullptr;
  if (output.json) {
    auto document = shown.as_object();
    document["error"] = error_document(error).at("error");
    print_json(document);
    return exit_code(error);
  }
  print(render_demo(shown, output.out) + "\n");
  return conclude(error, output);
}

}  // namespace gpumod::cli
