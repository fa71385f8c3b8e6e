// Following a worker. The first Ctrl-C asks it to take the switch back, the second leaves it running and lets go of the
// terminal. Whatever else ends this process (SIGTERM, a closed terminal) ends only this process: the worker goes on.

#include <boost/json.hpp>
#include <fmt/format.h>
#include <signal.h>

#include "faces/cli/fields.h"
#include "faces/cli/progress.h"
#include "faces/cli/render.h"
#include "faces/cli/run.h"
#include "faces/cli/signals.h"
#include "verbs/worker.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

/// What a person sees of it.
class Watcher {
 public:
  Watcher(std::string title, const Output& output)
      : output_(output),
        screen_(output.out),
        view_(std::move(title)),
        area_(STDOUT_FILENO),
        live_(!output.json && screen_.live) {}

  void on_event(const json::object& event) {
    const auto kind = text(member(event, "event"));
    if (kind == "transition") begin_transition(event);
    view_.on_event(event, now());
    if (output_.json) return;
    if (kind == "transition_done") {
      end_transition(event);
    } else if (kind == "notice") {
      area_.clear();
      complain(fmt::format("{} {}\n", paint(output_.err, Ink::yellow, "note:"), text(member(event, "text"))));
    } else if (!live_) {
      if (const auto line = view_.appended(event, screen_)) print(*line + "\n");
    }
  }

  void taking_back() {
    view_.set_hint("taking it back; Ctrl-C again leaves it running");
    if (!live_) complain("taking it back … (Ctrl-C again to leave it running)\n");
  }

  void tick() {
    if (!live_) return;
    if (Signals::take_suspension()) area_.forget();
    screen_.measure(STDOUT_FILENO);
    area_.draw(view_.lines(screen_, now(), turn_++), screen_);
  }

  void clear() { area_.clear(); }
  bool live() const { return live_; }
  std::optional<std::int64_t> switch_id() const { return view_.switch_id(); }
  json::value from() const { return view_.from().empty() ? json::value(nullptr) : json::value(view_.from()); }

 private:
  /// One switch of several: its steps are shown afresh.
  void begin_transition(const json::object& event) {
    const auto from = text(member(event, "from"));
    view_ = ProgressView(fmt::format("{} {} {}", from.empty() ? "(no mode)" : from, glyph(screen_, Glyph::arrow),
                                     text(member(event, "to"))));
    view_.set_hint("Ctrl-C ends the run, and restores what ran before");
  }
  void end_transition(const json::object& event) {
    area_.clear();
    print(fmt::format("{} {} {}: {} in {}\n", text(member(event, "from")), glyph(screen_, Glyph::arrow),
                      text(member(event, "to")), text(member(event, "result")),
                      seconds_text(member(event, "seconds"))));
  }

  const Output& output_;
  Screen screen_;
  ProgressView view_;
  LiveArea area_;
  bool live_;
  unsigned turn_ = 0;
};

int detached(const Invocation& invocation, const Watcher& watcher, const Output& output) {
  if (output.json) {
    const auto to = text_of(invocation.request, "mode");
    print_json(json::object{
        {"switch", json::object{{"id", watcher.switch_id() ? json::value(*watcher.switch_id()) : json::value(nullptr)},
                                {"from", watcher.from()},
                                {"to", to.empty() ? json::value(nullptr) : json::value(to)},
                                {"result", "running"}}}});
  } else {
    complain(fmt::format(
        "'{}' goes on without this terminal: it was asked to take back what it did. gpumod status shows how it goes, "
        "and gpumod mode cancel waits until it is done.\n",
        about(invocation)));
  }
  return 0;
}

}  // namespace

int follow(const Paths& paths, const Invocation& invocation, const Output& output) {
  Watcher watcher(about(invocation), output);
  Result<std::optional<json::value>> answer;
  {
    const Signals signals(watcher.live());
    const auto worker = start_worker(paths, invocation.verb->name, invocation.request);
    if (!worker) return conclude(worker.error(), output);
    bool taken_back = false;
    answer = follow_worker(
        *worker, [&](const json::object& event) { watcher.on_event(event); },
        [&] {
          if (Signals::interrupts() > 0 && !taken_back) {
            taken_back = true;
            cancel_worker(*worker);
            watcher.taking_back();
          }
          watcher.tick();
          return Signals::interrupts() > 1 || Signals::ended_by() != 0;
        });
    watcher.clear();
  }
  if (const int ended_by = Signals::ended_by()) {
    // By our own default handling, so that whoever sent it sees what it expects.
    ::raise(ended_by);
    return 128 + ended_by;
  }
  if (!answer) {
    if (output.json || watcher.live() || member(answer.error().details, "switch").is_null())
      return conclude(answer.error(), output, subject(invocation));
    // A refused switch did nothing that could be shown.
    const bool refused = text(member(member(answer.error().details, "switch"), "result")) == "refused";
    if (!refused) print(render_switch(answer.error().details, output.out, Steps::hidden, subject(invocation)));
    Error rest = answer.error();
    rest.details = nullptr;
    return conclude(rest, output);
  }
  if (!*answer) return detached(invocation, watcher, output);
  if (output.json) {
    print_json(**answer);
    return 0;
  }
  print(member(**answer, "switch").is_null()
            ? render(invocation.verb->name, **answer, output.out)
            : render_switch(**answer, output.out, watcher.live() ? Steps::shown : Steps::hidden, subject(invocation)));
  return 0;
}

}  // namespace gpumod::cli
