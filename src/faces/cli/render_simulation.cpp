// A switch that was thought through: does it fit, the memory over its time, and what would fit instead.

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/fields.h"
#include "faces/cli/memory_bar.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

double amount(const json::value& bytes) {
  return number(bytes).value_or(0);
}

/// Only moments at which memory changes: who takes does so at its beginning, who frees at its end.
bool is_shown(const json::value& moment) {
  const auto edge = text(member(moment, "edge")), action = text(member(moment, "action"));
  if (edge == "now" || edge == "rises") return true;
  if (action == "start" || action == "load" || action == "wake") return edge == "begins";
  return action != "verify" && edge == "ends";
}

std::string label_of(const json::value& moment) {
  const auto edge = text(member(moment, "edge"));
  if (edge == "now") return "now";
  if (edge == "rises") return "what is starting already";
  return fmt::format("{} {}", text(member(moment, "action")), text(member(moment, "subject")));
}

const json::value& level_of(const json::value& moment, const json::value& gpu) {
  static const json::value nothing;
  for (const auto& level : elements(member(moment, "gpus")))
    if (number(member(level, "gpu")) == number(member(gpu, "gpu"))) return level;
  return nothing;
}

std::string verdict(const json::value& body, const Screen& screen) {
  const auto to = text(member(body, "to"));
  const auto who = to.empty() ? join(texts(member(body, "services")), ", ") : to;
  const auto& fits = member(body, "fits");
  std::string words = who.empty() ? std::string() : paint(screen, Ink::bold, who) + ": ";
  if (fits.is_null()) return words + paint(screen, Ink::yellow, "whether it fits is not known") + "\n";
  if (truth(fits))
    return words + paint(screen, Ink::green, "fits") +
           fmt::format(" ({} a GPU are kept free)\n", mebibytes(member(body, "margin")));
  words += paint(screen, Ink::red, "does not fit");
  if (amount(member(body, "missing")) > 0) words += fmt::format(": {} are missing", mebibytes(member(body, "missing")));
  return words + "\n";
}

std::string title_of(const json::value& gpu) {
  auto words = fmt::format("{} ({})", gpu_words(plain(member(gpu, "gpu"))), text(member(gpu, "name")));
  if (const auto total = mebibytes(member(gpu, "total")); !total.empty()) words += ": " + total;
  return words;
}

std::string summary(const json::value& gpu) {
  const auto now = mebibytes(member(gpu, "free_now"));
  if (now.empty()) return fmt::format("{}, says nothing of its memory\n", title_of(gpu));
  return fmt::format("{}, {} free now, {} afterwards, {} at the lowest\n", title_of(gpu), now,
                     mebibytes(member(gpu, "free_after")), mebibytes(member(member(gpu, "lowest"), "free")));
}

std::string moments_table(const json::value& body, const Screen& screen) {
  const auto& gpus = elements(member(body, "gpus"));
  std::vector<Column> columns{{"FREE AFTER", false, true}};
  for (const auto& gpu : gpus)
    columns.push_back({gpu_words(plain(member(gpu, "gpu"))), true});
  Table table(std::move(columns));
  const double margin = amount(member(body, "margin"));
  for (const auto& moment : elements(member(body, "timeline"))) {
    if (!is_shown(moment)) continue;
    std::vector<Cell> cells{{label_of(moment)}};
    for (const auto& gpu : gpus) {
      const auto& free = member(level_of(moment, gpu), "free");
      cells.push_back({mebibytes(free), amount(free) < margin ? Ink::red : Ink::plain});
    }
    table.add(std::move(cells));
  }
  return "\n" + table.render(screen, 2);
}

/// One GPU over the time: a bar a moment.
class Bars {
 public:
  Bars(const json::value& body, const json::value& gpu, const Screen& screen)
      : body_(body), gpu_(gpu), screen_(screen), total_(amount(member(gpu, "total"))), scale_(total_) {
    int longest = 0;
    for (const auto& moment : elements(member(body, "timeline"))) {
      if (!is_shown(moment)) continue;
      longest = std::max(longest, display_width(label_of(moment)));
      // What would not fit is drawn beyond the GPU's end.
      scale_ = std::max(scale_, total_ - amount(member(level_of(moment, gpu), "free")));
    }
    const int width = screen.width > 0 ? screen.width : 80;
    numbers_ = width >= 44;
    label_ = std::min(longest, std::max(6, width / 3));
    cells_ = std::clamp(width - label_ - 4 - (numbers_ ? 16 : 0), 5, 60);
  }

  std::string draw() const {
    if (total_ <= 0) return "\n" + summary(gpu_);
    std::string out = "\n" + title_of(gpu_) + "\n";
    for (const auto& moment : elements(member(body_, "timeline"))) {
      if (!is_shown(moment)) continue;
      auto label = fit(screen_, label_of(moment), label_);
      label += std::string(static_cast<std::size_t>(std::max(0, label_ - display_width(label))), ' ');
      const auto& level = level_of(moment, gpu_);
      out += fmt::format("  {} {}", label, bar(level));
      if (numbers_) {
        const bool low = amount(member(level, "free")) < amount(member(body_, "margin"));
        out += " " + paint(screen_, low ? Ink::red : Ink::dim, mebibytes(member(level, "free")) + " free");
      }
      out += "\n";
    }
    return out;
  }

 private:
  /// What lies beyond the GPU's end would not fit.
  std::string bar(const json::value& level) const {
    double ours = 0;
    for (const auto& holding : elements(member(level, "held")))
      if (!member(holding, "name").is_null()) ours += amount(member(holding, "bytes"));
    const double free = amount(member(level, "free")), used = total_ - free;
    const double inside = std::min(used, total_), mine = std::min(ours, inside);
    const auto part = [&](Glyph fill, Ink ink, double bytes) {
      return bar_part(screen_, fill, ink, static_cast<std::int64_t>(bytes));
    };
    std::vector<BarPart> parts{part(Glyph::full, Ink::cyan, mine), part(Glyph::shade, Ink::plain, inside - mine),
                               part(Glyph::empty, Ink::dim, free), part(Glyph::full, Ink::red, -free),
                               part(Glyph::empty, Ink::plain, scale_ - std::max(total_, used))};
    parts[3].fill = "!";
    parts[4].fill = " ";
    return draw_bar(parts, screen_, cells_);
  }

  const json::value& body_;
  const json::value& gpu_;
  const Screen& screen_;
  double total_;
  double scale_;
  int label_ = 0;
  int cells_ = 0;
  bool numbers_ = true;
};

std::string bars(const json::value& body, const Screen& screen) {
  std::string out;
  for (const auto& gpu : elements(member(body, "gpus")))
    out += Bars(body, gpu, screen).draw();
  out += "\n" + paragraph(fmt::format("{} ours, {} others', {} free, ! more than there is", glyph(screen, Glyph::full),
                                      glyph(screen, Glyph::shade), glyph(screen, Glyph::empty)),
                          screen, 2);
  return out;
}

std::string claims(const json::value& body, const Screen& screen) {
  Table table({{"", false, true}, {"", true}, {"", false, false, true}});
  for (const auto& claim : elements(member(body, "claims"))) {
    const auto source = text(member(claim, "source"));
    const auto words = source == "declared"      ? "as its file declares"
                       : source == "estimated"   ? "estimated from its model's file"
                       : source == "measured"    ? "measured"
                       : source == "utilization" ? "its share of the GPU"
                                                 : "not known";
    table.add({{text(member(claim, "service"))}, {mebibytes(member(claim, "bytes"))}, {words, Ink::dim}});
  }
  return table.empty() ? "" : "\nCounted with:\n" + table.render(screen, 2, false);
}

std::string alternatives(const json::value& body, const Screen& screen) {
  const auto& offers = elements(member(body, "alternatives"));
  if (offers.empty()) return {};
  std::string out = "\nWhat would fit, by what you would lose:\n";
  int count = 0;
  for (const auto& offer : offers) {
    std::vector<std::string> lines, losses, edits;
    for (const auto& change : elements(member(offer, "changes"))) {
      lines.push_back(text(member(change, "text")));
      if (const auto loses = text(member(change, "loses"));
          std::find(losses.begin(), losses.end(), loses) == losses.end())
        losses.push_back(loses);
      if (const auto edit = text(member(change, "edit")); !edit.empty())
        edits.push_back(fmt::format("in the file of {}: {}", text(member(change, "service")), edit));
    }
    out += paragraph(join(lines, ", and "), screen, 5, fmt::format("{:>3}.", ++count), Ink::dim);
    out += paragraph(fmt::format("you lose {}", join(losses, ", and ")), screen, 5);
    for (const auto& edit : edits)
      out += paragraph(edit, screen, 5);
  }
  return out;
}

}  // namespace

std::string render_simulation(const json::value& answer, const Screen& screen) {
  const auto& body = member(answer, "simulation");
  auto out = verdict(body, screen);
  for (const auto& gpu : elements(member(body, "gpus")))
    out += paragraph(summary(gpu), screen, 0);
  out += truth(member(body, "visual")) ? bars(body, screen) : moments_table(body, screen);
  out += claims(body, screen) + alternatives(body, screen);
  const auto notes = texts(member(body, "notes"));
  if (!notes.empty()) out += "\n";
  for (const auto& note : notes)
    out += paragraph(note, screen, 6, "note:", Ink::yellow);
  return out;
}

}  // namespace gpumod::cli
