// One switch over its time. What people ask stands first, in sentences; then a bar for each step, the memory of each GPU
// below the same columns, and the causes of waits and failures.

#include <algorithm>
#include <cmath>
#include <map>
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

constexpr int usual_width = 80, fewest_cells = 16;
constexpr int rows_of_one_gpu = 6, rows_of_many = 4;
constexpr std::size_t most_waits = 6;

/// How a phase is drawn. `ink`: plain takes that of its service.
struct Fill {
  std::string_view phase, fancy, simple, meaning;
  Ink ink = Ink::plain;
};
constexpr Fill fills[] = {{"turn", "·", ".", "waits for its turn", Ink::dim},
                          {"memory", "░", ":", "waits for memory", Ink::yellow},
                          {"act", "▒", "a", "is started or stopped"},
                          {"ready", "█", "#", "gets ready"},
                          {"verify", "▓", "?", "is asked a question"},
                          {"release", "▞", "r", "gives memory back"},
                          {"fall", "▞", "r", "gives memory back"},
                          {"kill", "╳", "x", "is cleared away", Ink::red},
                          {"clear", "╳", "x", "is cleared away", Ink::red},
                          {"unknown", "-", "-", "ran, as far as is known", Ink::dim}};

const Fill& fill_of(std::string_view phase) {
  const auto* found =
      std::find_if(std::begin(fills), std::end(fills), [&](const auto& one) { return one.phase == phase; });
  return found == std::end(fills) ? *(std::end(fills) - 1) : *found;
}

std::string subject_of(const json::value& step) {
  const auto undo = truth(member(step, "undo")) ? "back: " : "";
  return fmt::format("{}{} {}", undo, text(member(step, "action")), text(member(step, "subject")));
}

double at(const json::value& value, std::string_view key) {
  return number(member(value, key)).value_or(0);
}

/// Parts after each other, and in a new line where the screen ends.
std::string flow(const std::vector<Cell>& parts, const Screen& screen, std::string_view between, int indent) {
  const int width = screen.width ? screen.width - 1 : 0;
  const std::string blank(static_cast<std::size_t>(indent), ' ');
  std::string out;
  int column = 0;
  for (const auto& part : parts) {
    const auto words = width ? fit(screen, part.words, width - indent) : part.words;
    const bool fits = !width || column + display_width(between) + display_width(words) <= width;
    if (column > 0) out += fits ? std::string(between) : "\n";
    if (column > 0 && fits) column += display_width(between);
    if (column == 0 || !fits) out += blank, column = indent;
    out += paint(screen, part.ink, words);
    column += display_width(words);
  }
  return out + "\n";
}

/// Neighbours of one colour are painted together.
class Line {
 public:
  void add(Ink ink, std::string_view cell) {
    if (runs_.empty() || runs_.back().first != ink) runs_.emplace_back(ink, "");
    runs_.back().second += cell;
  }
  void drop_blank_end() {
    while (!runs_.empty() && runs_.back().first == Ink::plain && runs_.back().second.ends_with(' ')) {
      runs_.back().second.pop_back();
      if (runs_.back().second.empty()) runs_.pop_back();
    }
  }
  std::string painted(const Screen& screen) const {
    std::string out;
    for (const auto& [ink, words] : runs_)
      out += paint(screen, ink, words);
    return out;
  }

 private:
  std::vector<std::pair<Ink, std::string>> runs_;
};

class Drawing {
 public:
  Drawing(const json::value& recording, const Screen& screen) : recording_(recording), screen_(screen) {
    length_ = std::max(0.001, at(recording, "seconds"));
    const int width = screen.width ? screen.width : usual_width;
    for (const auto& step : steps())
      label_ = std::max(label_, display_width(subject_of(step)));
    label_ = std::min(label_, std::max(10, width / 3));
    for (const auto& step : steps())
      figures_ = std::max(figures_, display_width(figures_of(step)));
    // The mark, blanks between the parts, and the last column, where some terminals wrap.
    if (width - label_ - figures_ - 6 < fewest_cells) figures_ = 0;
    cells_ = std::max(fewest_cells, width - label_ - figures_ - 6);
    for (const auto& point : elements(member(recording, "curve")))
      if (const auto* held = member(point, "held").if_object())
        for (const auto& [name, amount] : *held)
          (void)order_.try_emplace(printable(name), order_.size());
  }

  std::string draw() {
    std::string out;
    for (const auto& step : steps())
      out += row_of(step);
    if (!steps().empty()) out += axis() + legend_of_phases();
    const auto& gpus = elements(member(recording_, "gpus"));
    for (const auto& gpu : gpus)
      out += curve_of(gpu, gpus.size() > 1 ? rows_of_many : rows_of_one_gpu);
    if (!gpus.empty() && !order_.empty()) out += legend_of_holders();
    return out;
  }

 private:
  const json::array& steps() const { return elements(member(recording_, "steps")); }

  std::string padded(std::string_view words, int width) const {
    const auto fitted = fit(screen_, words, width);
    return fitted + std::string(static_cast<std::size_t>(std::max(0, width - display_width(fitted))), ' ');
  }
  std::string blank() const { return std::string(static_cast<std::size_t>(label_ + 3), ' '); }

  std::string figures_of(const json::value& step) const {
    auto out = seconds_text(member(step, "seconds"));
    if (const auto usual = seconds_text(member(step, "predicted_seconds")); !usual.empty() && !out.empty())
      out += fmt::format(" (usually {})", usual);
    return out;
  }

  Ink ink_of(const std::string& subject) const {
    const auto known = order_.find(subject);
    return known == order_.end() ? Ink::plain : service_part(known->second, screen_).ink;
  }

  /// What lasts longest of what happens within a cell; "" for nothing.
  std::string phase_in(const json::value& step, double from, double until) const {
    std::string longest;
    double most = 0;
    const auto consider = [&](const json::value& span, const std::string& name) {
      const double shared = std::min(until, at(span, "until")) - std::max(from, at(span, "from"));
      if (shared > most) most = shared, longest = name;
    };
    for (const auto& phase : elements(member(step, "phases")))
      consider(phase, text(member(phase, "name")));
    if (!longest.empty()) return longest;
    for (const auto& wait : elements(member(recording_, "waits")))
      if (number(member(wait, "step")) == number(member(step, "step")) && text(member(wait, "for")) == "turn")
        consider(wait, "turn");
    const auto began = number(member(step, "began"));
    if (longest.empty() && began && elements(member(step, "phases")).empty()) {
      const auto ended = number(member(step, "ended")).value_or(length_);
      if (std::min(until, ended) > std::max(from, *began)) return "unknown";
    }
    return longest;
  }

  std::string row_of(const json::value& step) {
    const auto result = text(member(step, "result"));
    const auto mark = result == "done"                               ? Glyph::done
                      : result == "failed"                           ? Glyph::failed
                      : result == "skipped" || result == "cancelled" ? Glyph::skipped
                                                                     : Glyph::waiting;
    const auto ink = result == "done" ? Ink::green : result == "failed" ? Ink::red : Ink::dim;
    const auto own = ink_of(text(member(step, "subject")));
    Line bar;
    for (int cell = 0; cell < cells_; ++cell) {
      const auto phase = phase_in(step, length_ * cell / cells_, length_ * (cell + 1) / cells_);
      if (phase.empty()) {
        bar.add(Ink::plain, " ");
        continue;
      }
      const auto& fill = fill_of(phase);
      used_.insert(fill.meaning);
      bar.add(fill.ink == Ink::plain ? own : fill.ink, screen_.unicode ? fill.fancy : fill.simple);
    }
    return fmt::format("{} {} {} {}\n", paint(screen_, ink, glyph(screen_, mark)), padded(subject_of(step), label_),
                       bar.painted(screen_), figures_ ? paint(screen_, Ink::dim, figures_of(step)) : "");
  }

  std::string axis() const {
    const auto middle = format_at(length_ / 2), end = format_at(length_);
    std::string line = "0 s";
    const auto put = [&](const std::string& words, int column) {
      const auto gap = column - static_cast<int>(line.size());
      if (gap > 0) line += std::string(static_cast<std::size_t>(gap), ' ') + words;
    };
    put(middle, cells_ / 2);
    put(end, cells_ - static_cast<int>(end.size()));
    return blank() + paint(screen_, Ink::dim, line) + "\n";
  }
  static std::string format_at(double amount) { return seconds_text(json::value(amount)); }

  std::string legend_of_phases() const {
    std::vector<Cell> parts;
    for (const auto& fill : fills)
      if (used_.contains(fill.meaning) && (parts.empty() || !parts.back().words.ends_with(fill.meaning)))
        parts.push_back({fmt::format("{} {}", screen_.unicode ? fill.fancy : fill.simple, fill.meaning), Ink::dim});
    return parts.empty() ? "" : flow(parts, screen_, "   ", 2);
  }

  /// Who holds how much of a GPU, in the order of the legend; everybody else's last.
  struct Stack {
    std::vector<std::pair<std::size_t, double>> parts;
    double others = 0, unheld = 0;
    double sum = 0;
  };
  Stack stack_of(const json::value& point) const {
    Stack stack;
    std::map<std::size_t, double> parts;
    if (const auto* held = member(point, "held").if_object())
      for (const auto& [name, amount] : *held)
        parts[order_.at(printable(name))] += number(amount).value_or(0);
    for (const auto& [nth, amount] : parts) {
      stack.parts.emplace_back(nth, amount);
      stack.sum += amount;
    }
    stack.unheld = std::max(0.0, at(point, "unheld"));
    stack.others = std::max(0.0, number(member(point, "used")).value_or(stack.sum) - stack.sum - stack.unheld);
    stack.sum += stack.others + stack.unheld;
    return stack;
  }

  /// For each cell the highest of its time; what was seen last holds on.
  std::vector<Stack> stacks_of(const json::value& gpu) const {
    std::vector<const json::value*> points;
    for (const auto& point : elements(member(recording_, "curve")))
      if (number(member(point, "gpu")) == number(member(gpu, "index"))) points.push_back(&point);
    std::vector<Stack> stacks;
    std::size_t next = 0;
    Stack last;
    for (int cell = 0; cell < cells_; ++cell) {
      Stack highest = last;
      const double until = cell + 1 == cells_ ? INFINITY : length_ * (cell + 1) / cells_;
      for (; next < points.size() && at(*points[next], "at") < until; ++next) {
        last = stack_of(*points[next]);
        if (last.sum >= highest.sum) highest = last;
      }
      stacks.push_back(std::move(highest));
    }
    return stacks;
  }

  std::string curve_of(const json::value& gpu, int rows) {
    const auto stacks = stacks_of(gpu);
    double scale = number(member(gpu, "total")).value_or(0);
    for (const auto& stack : stacks)
      scale = std::max(scale, stack.sum);
    if (scale <= 0) return {};
    std::vector<Line> lines(static_cast<std::size_t>(rows));
    for (const auto& stack : stacks) {
      auto cells = column_of(stack, scale, rows);
      for (int row = 0; row < rows; ++row)
        lines[static_cast<std::size_t>(row)].add(cells[static_cast<std::size_t>(row)].ink,
                                                 cells[static_cast<std::size_t>(row)].fill);
    }
    auto out = "\n" + title_of(gpu);
    const auto top = to_string(Bytes(static_cast<std::int64_t>(scale)));
    for (auto& line : lines)
      line.drop_blank_end();
    for (int row = 0; row < rows; ++row) {
      const auto label = row == 0 ? top : row + 1 == rows ? "0" : "";
      const auto room = std::max(0, label_ + 2 - display_width(label));
      const auto drawn = lines[static_cast<std::size_t>(row)].painted(screen_);
      out += std::string(static_cast<std::size_t>(room), ' ') + paint(screen_, Ink::dim, label) +
             (drawn.empty() ? "" : " ") + drawn + "\n";
    }
    return out;
  }

  /// From the top down.
  std::vector<BarPart> column_of(const Stack& stack, double scale, int rows) const {
    BarPart empty;
    empty.fill = " ";
    std::vector<BarPart> column(static_cast<std::size_t>(rows), empty);
    double below = 0;
    const auto pile = [&](const BarPart& part, double amount) {
      const auto from = static_cast<int>(std::lround(below / scale * rows));
      below += amount;
      const auto until = std::min(rows, static_cast<int>(std::lround(below / scale * rows)));
      for (int cell = from; cell < until; ++cell)
        column[static_cast<std::size_t>(rows - 1 - cell)] = part;
    };
    for (const auto& [nth, amount] : stack.parts)
      pile(service_part(nth, screen_), amount);
    pile(foreign_part(screen_), stack.others);
    pile(unattributed_part(screen_), stack.unheld);
    return column;
  }

  std::string title_of(const json::value& gpu) const {
    std::vector<Cell> parts{
        {fmt::format("GPU {}  {}", plain(member(gpu, "index")), text(member(gpu, "name"))), Ink::bold}};
    const auto add = [&](const char* what, const char* key) {
      if (const auto amount = mebibytes(member(gpu, key)); !amount.empty())
        parts.push_back({fmt::format("{} {}", what, amount)});
    };
    add("peak", "peak");
    add("expected", "predicted_peak");
    add("of", "total");
    return flow(parts, screen_, "  ", 0);
  }

  std::string legend_of_holders() const {
    std::vector<Cell> parts(order_.size());
    for (const auto& [name, nth] : order_) {
      const auto part = service_part(nth, screen_);
      parts[nth] = {fmt::format("{} {}", part.fill, name), part.ink};
    }
    const auto others = foreign_part(screen_);
    parts.push_back({others.fill + " others", others.ink});
    const auto unheld = unattributed_part(screen_);
    parts.push_back({unheld.fill + " nobody's (any more)", unheld.ink});
    return flow(parts, screen_, "   ", 2);
  }

  const json::value& recording_;
  const Screen& screen_;
  double length_ = 0;
  int label_ = 8, figures_ = 0, cells_ = 0;
  std::map<std::string, std::size_t> order_;  // of holders
  std::set<std::string_view> used_;           // meanings
};

std::string title(const json::value& recording, const Screen& screen) {
  const auto result = text(member(recording, "result"));
  const auto from = text(member(recording, "from")), to = text(member(recording, "to"));
  auto what = text(member(recording, "what"));
  if (text(member(recording, "kind")) == "mode switch" && !from.empty() && from != to)
    what = fmt::format("{} {} {}", from, glyph(screen, Glyph::arrow), to);
  const auto took = seconds_text(member(recording, "seconds"));
  const auto when = result == "interrupted" ? ", last heard of after"
                    : result == "running"   ? " since"
                    : result == "committed" ? " in"
                                            : " after";
  return flow({{fmt::format("switch {}", plain(member(recording, "id"))), Ink::dim},
               {what, Ink::bold},
               {fmt::format("{}{} {}", outcome_words(result), when, took), outcome_ink(result)},
               {"begun " + local_time(member(recording, "began"), screen), Ink::dim}},
              screen, "  ", 0);
}

std::string failure(const json::value& recording, const Screen& screen) {
  const auto& failure = member(recording, "failure");
  if (failure.is_null()) return {};
  return paragraph(text(member(failure, "cause")), screen, 5, "why:", Ink::red) +
         paragraph(text(member(failure, "remedy")), screen, 5, "do:", Ink::dim);
}

std::string waits(const json::value& recording, const Screen& screen) {
  std::vector<const json::value*> longest;
  const double least = std::max(0.1, at(recording, "seconds") / 50);
  for (const auto& wait : elements(member(recording, "waits")))
    if (at(wait, "until") - at(wait, "from") >= least) longest.push_back(&wait);
  std::stable_sort(longest.begin(), longest.end(), [](const auto* a, const auto* b) {
    return at(*a, "until") - at(*a, "from") > at(*b, "until") - at(*b, "from");
  });
  if (longest.size() > most_waits) longest.resize(most_waits);
  Table table({{"", true}, {""}, {"", false, false, true}});
  for (const auto* wait : longest) {
    std::string who;
    for (const auto& step : elements(member(recording, "steps")))
      if (number(member(step, "step")) == number(member(*wait, "step"))) who = subject_of(step);
    const auto kind = text(member(*wait, "for"));
    auto cause = text(member(*wait, "cause"));
    if (kind == "memory") cause = cause.empty() ? "for memory: a second look" : "for memory: " + cause;
    if (kind == "turn") cause = "for its turn, until " + cause + " was done";
    if (kind == "release") cause = "for " + cause;
    const auto took = at(*wait, "until") - at(*wait, "from");
    table.add({{seconds_text(json::value(took))}, {who}, {cause, Ink::dim}});
  }
  return table.empty() ? "" : "\n" + paint(screen, Ink::bold, "Waits") + "\n" + table.render(screen, 2, false);
}

std::string troubles(const json::value& recording, const Screen& screen) {
  std::string out;
  for (const auto& step : elements(member(recording, "steps")))
    for (const auto& trouble : elements(member(step, "troubles"))) {
      out += "\n" + flow({{subject_of(step), Ink::bold},
                          {fmt::format("attempt {}, after {}", plain(member(trouble, "attempt")),
                                       seconds_text(member(trouble, "at")))}},
                         screen, "  ", 0);
      out += paragraph(text(member(trouble, "cause")), screen, 7, "  why:", Ink::dim);
      out += paragraph(text(member(trouble, "remedy")), screen, 7, "  do:", Ink::dim);
      bool first = true;
      for (const auto& line : texts(member(trouble, "log")))
        out += paragraph(line, screen, 7, std::exchange(first, false) ? "  log:" : "", Ink::dim);
    }
  return out;
}

}  // namespace

std::string render_recording(const json::value& answer, const Screen& screen) {
  const auto& recording = member(answer, "recording");
  auto out = title(recording, screen);
  for (const auto& sentence : texts(member(answer, "summary")))
    out += paragraph(sentence, screen, 2, glyph(screen, Glyph::dot), Ink::dim);
  out += failure(recording, screen);
  out += paragraph(text(member(answer, "note")), screen, 6, "note:", Ink::yellow);
  out += "\n" + Drawing(recording, screen).draw();
  out += waits(recording, screen) + troubles(recording, screen);
  if (const auto file = text(member(answer, "trace")); !file.empty())
    out += "\n" + paragraph(fmt::format("Written to {}; ui.perfetto.dev opens it.", file), screen, 0);
  return out;
}

}  // namespace gpumod::cli
