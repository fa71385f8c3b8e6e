#include "faces/cli/progress.h"

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>
#include <unistd.h>

#include "base/units.h"
#include "faces/cli/fields.h"
#include "faces/cli/memory_bar.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

std::string subject_of(const json::object& step) {
  for (const char* key : {"subject", "service", "unit"})
    if (auto name = text(member(step, key)); !name.empty()) return name;
  return {};
}

std::int64_t index_of(const json::object& step) {
  return static_cast<std::int64_t>(number(member(step, "step")).value_or(-1));
}

/// Whole seconds that have passed: a clock, not a measurement.
std::string ticking(Duration passed) {
  const auto whole = std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::seconds>(passed).count());
  return whole < 100 ? fmt::format("{} s", whole) : fmt::format("{}:{:02} min", whole / 60, whole % 60);
}

/// Cells of a line that may hold colour codes.
int width_without_codes(std::string_view line) {
  std::string bare;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '\x1b') {
      bare += line[i];
      continue;
    }
    i = line.find('m', i);
    if (i == std::string_view::npos) break;
  }
  return display_width(bare);
}

void write_all(int descriptor, std::string_view words) {
  while (!words.empty()) {
    const ssize_t n = ::write(descriptor, words.data(), words.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // the terminal has gone; the switch does not depend on it
    words.remove_prefix(static_cast<std::size_t>(n));
  }
}

}  // namespace

ProgressView::Step& ProgressView::step_of(const json::object& event) {
  const auto index = index_of(event);
  for (auto& step : steps_)
    if (step.index == index) return step;
  auto& step = steps_.emplace_back();
  step.index = index;
  return step;
}

void ProgressView::on_event(const json::object& event, TimePoint now) {
  const auto kind = text(member(event, "event"));
  if (kind == "plan") {
    if (const auto id = number(member(event, "id"))) id_ = static_cast<std::int64_t>(*id);
    from_ = text(member(event, "from"));
    to_ = text(member(event, "to"));
    expected_end_.reset();
    if (const auto all = number(member(member(event, "plan"), "seconds")))
      expected_end_ = now + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(*all));
    steps_.clear();
    for (const auto& planned : elements(member(member(event, "plan"), "steps"))) {
      if (!planned.is_object()) continue;
      auto& step = step_of(planned.get_object());
      step.action = text(member(planned, "action"));
      step.subject = subject_of(planned.get_object());
      step.expected = number(member(planned, "seconds")).value_or(0);
    }
  }
  if (kind == "vram") {
    gpus_.clear();
    for (const auto& gpu : elements(member(event, "gpus")))
      gpus_.push_back({gpus_.empty() && elements(member(event, "gpus")).size() == 1
                           ? "VRAM"
                           : fmt::format("GPU {}", number(member(gpu, "index")).value_or(0)),
                       static_cast<std::int64_t>(number(member(gpu, "used")).value_or(0)),
                       static_cast<std::int64_t>(number(member(gpu, "total")).value_or(0))});
  }
  if (kind != "step") return;
  auto& step = step_of(event);
  step.action = text(member(event, "action"));
  step.subject = subject_of(event);
  step.result = text(member(event, "result"));
  step.stage = text(member(event, "stage"));
  step.note = text(member(event, "note"));
  step.took = seconds_text(member(event, "seconds"));
  step.attempts = static_cast<int>(number(member(event, "attempts")).value_or(0));
  step.undo = truth(member(event, "undo"));
  if (step.result == "running" && !step.began) step.began = now;
}

std::string ProgressView::action_of(const Step& step) {
  return (step.undo ? "back: " : "") + step.action;
}

std::string ProgressView::line_of(const Step& step, int action_width, int subject_width, const Screen& screen,
                                  TimePoint now, unsigned turn) const {
  Ink ink = Ink::dim;
  std::string mark(glyph(screen, Glyph::waiting)),
      doing = step.result == "skipped" || step.result == "cancelled" ? step.result : "waiting", elapsed = step.took;
  if (step.result == "running") {
    ink = Ink::cyan;
    mark = spinner(screen, turn);
    doing = step.stage.empty() ? "under way" : step.stage;
    if (step.expected >= 1)
      doing += fmt::format(" (usually {})", format_seconds(std::chrono::seconds(std::llround(step.expected))));
    if (step.attempts > 1) doing += fmt::format(" (attempt {})", step.attempts);
    if (step.began) elapsed = ticking(now - *step.began);
  } else if (step.result == "done") {
    ink = Ink::green;
    mark = glyph(screen, Glyph::done);
    doing = step.note;
  } else if (step.result == "failed") {
    ink = Ink::red;
    mark = glyph(screen, Glyph::failed);
    doing = step.note.empty() ? "failed" : step.note;
  } else if (step.result == "skipped" || step.result == "cancelled") {
    mark = glyph(screen, Glyph::skipped);
    if (!step.note.empty()) doing = step.note;
  }
  const auto subject = fit(screen, step.subject, subject_width);
  std::string line = fmt::format("{:<{}} {}{}  ", action_of(step), action_width, subject,
                                 std::string(static_cast<std::size_t>(subject_width - display_width(subject)), ' '));
  if (!elapsed.empty()) line += fmt::format("{:>6}  ", elapsed);
  line += doing;
  const int room =
      (screen.width ? screen.width : 80) - 3;  // the mark, a blank, and the last column, where some terminals wrap
  line = fit(screen, line, room);
  return paint(screen, ink, mark) + " " +
         (step.result == "pending" || step.result == "skipped" || step.result == "cancelled"
              ? paint(screen, Ink::dim, line)
              : line);
}

std::vector<std::string> ProgressView::vram_bars(const Screen& screen) const {
  std::vector<std::string> out;
  const int width = screen.width ? screen.width : 80;
  for (const auto& gpu : gpus_) {
    if (gpu.total <= 0) continue;
    const auto figures = fmt::format(" {} of {}", to_string(Bytes(gpu.used)), to_string(Bytes(gpu.total)));
    const int room = std::min(40, width - 6 - display_width(gpu.name + figures));
    if (room < 8) continue;
    const auto bar = draw_bar({bar_part(screen, Glyph::full, Ink::cyan, gpu.used),
                               bar_part(screen, Glyph::empty, Ink::dim, gpu.total - gpu.used)},
                              screen, room);
    out.push_back("  " + gpu.name + " " + bar + paint(screen, Ink::dim, figures));
  }
  return out;
}

std::vector<std::string> ProgressView::lines(const Screen& screen, TimePoint now, unsigned turn) const {
  const int width = screen.width ? screen.width : 80;
  std::string title = title_;
  if (!from_.empty() && !to_.empty() && from_ != to_)
    title = fmt::format("{} {} {}", from_, glyph(screen, Glyph::arrow), to_);
  if (steps_.empty()) title = fmt::format("{} {}: looking at what is there", spinner(screen, turn), title);
  // Whoever takes longer than before has no time left that could be told.
  if (expected_end_ && *expected_end_ - now >= 1s)
    title +=
        fmt::format(", about {} left", format_seconds(std::chrono::ceil<std::chrono::seconds>(*expected_end_ - now)));
  std::vector<std::string> out;
  const auto hint = hint_.empty() ? "" : fmt::format("  ({})", hint_);
  if (display_width(title + hint) < width)
    out.push_back(paint(screen, Ink::bold, title) + paint(screen, Ink::dim, hint));
  else
    out.push_back(paint(screen, Ink::bold, fit(screen, title, width - 1)));

  int subject_width = 8, action_width = 6;
  for (const auto& step : steps_) {
    subject_width = std::max(subject_width, display_width(step.subject));
    action_width = std::max(action_width, display_width(action_of(step)));
  }
  subject_width = std::min(subject_width, std::max(8, width / 3));

  // What cannot all be shown loses first what waits, then what is done.
  const auto bars = vram_bars(screen);
  const std::size_t room = static_cast<std::size_t>(std::max(2, screen.height - 3 - static_cast<int>(bars.size())));
  std::vector<const Step*> shown;
  for (const auto& step : steps_)
    shown.push_back(&step);
  std::size_t hidden = 0;
  for (const char* dispensable : {"pending", "skipped", "done"}) {
    for (std::size_t i = shown.size(); i-- > 0 && shown.size() > room;) {
      if (shown[i]->result != dispensable) continue;
      shown.erase(shown.begin() + static_cast<long>(i));
      ++hidden;
    }
  }
  if (shown.size() > room) {
    hidden += shown.size() - room;
    shown.resize(room);
  }
  for (const auto* step : shown)
    out.push_back(line_of(*step, action_width, subject_width, screen, now, turn));
  if (hidden > 0) out.push_back(paint(screen, Ink::dim, fit(screen, fmt::format("  and {} more", hidden), width - 1)));
  if (static_cast<int>(out.size() + bars.size()) < screen.height) out.insert(out.end(), bars.begin(), bars.end());
  return out;
}

std::optional<std::string> ProgressView::appended(const json::object& event, const Screen& screen) const {
  const auto kind = text(member(event, "event"));
  if (kind == "plan") {
    const auto from = text(member(event, "from")), to = text(member(event, "to"));
    const auto count = elements(member(member(event, "plan"), "steps")).size();
    const auto who = !from.empty() && !to.empty() && from != to
                         ? fmt::format("{} {} {}", from, glyph(screen, Glyph::arrow), to)
                         : title_;
    const auto& expected = member(member(event, "plan"), "seconds");
    const bool worth_saying = number(expected).value_or(0) >= 0.1;
    return fmt::format("{}: {} step{}{}", who, count, count == 1 ? "" : "s",
                       worth_saying ? ", about " + seconds_text(expected) : "");
  }
  if (kind != "step") return std::nullopt;
  const auto result = text(member(event, "result")), stage = text(member(event, "stage")),
             note = text(member(event, "note"));
  std::string line = fmt::format("{}{} {}: ", truth(member(event, "undo")) ? "back: " : "",
                                 text(member(event, "action")), subject_of(event));
  if (result == "pending") return std::nullopt;
  if (result == "running") return line + (stage.empty() ? "under way" : stage);
  line += result;
  if (const auto took = seconds_text(member(event, "seconds")); !took.empty() && result != "skipped")
    line += " in " + took;
  if (!note.empty()) line += ": " + note;
  return line;
}

std::string LiveArea::back_to_top(int width) const {
  int rows = 0;
  for (const int drawn : drawn_)
    rows += width > 0 && drawn > width ? (drawn + width - 1) / width : 1;
  return rows > 0 ? fmt::format("\x1b[{}F", rows) : std::string();
}

void LiveArea::draw(const std::vector<std::string>& lines, const Screen& screen) {
  std::string out = "\x1b[?25l" + back_to_top(screen.width);
  width_ = screen.width;
  drawn_.clear();
  for (const auto& line : lines) {
    out += "\x1b[2K" + line + "\n";
    drawn_.push_back(width_without_codes(line));
  }
  out += "\x1b[J";  // rows that are no longer needed, and the ^C that the terminal echoed
  write_all(descriptor_, out);
}

void LiveArea::forget() {
  drawn_.clear();
}

void LiveArea::clear() {
  if (drawn_.empty()) return;
  write_all(descriptor_, back_to_top(width_) + "\x1b[J\x1b[?25h");
  drawn_.clear();
}

}  // namespace gpumod::cli
