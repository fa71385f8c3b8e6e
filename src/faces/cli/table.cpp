#include "faces/cli/table.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <locale.h>
#include <wchar.h>

#include "base/text.h"

namespace gpumod::cli {

namespace {

constexpr int gap = 2;
constexpr int least_width = 6, readable_width = 24;

struct Character {
  std::size_t bytes = 1;
  int width = 1;
};

/// wcwidth() answers for the current locale only; ours is UTF-8 whatever the user's is.
int width_of(wchar_t code) {
  static const locale_t utf8 = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  if (!utf8) return 1;
  const locale_t before = ::uselocale(utf8);
  const int width = ::wcwidth(code);
  ::uselocale(before);
  return std::max(0, width);
}

Character character_at(std::string_view words, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(words[i]); };
  const unsigned lead = byte(at);
  if (lead < 0x80) return {};
  const std::size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (at + bytes > words.size()) return {words.size() - at, 1};
  unsigned code = lead & (0x7Fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i)
    code = code << 6 | (byte(at + i) & 0x3Fu);
  return {bytes, width_of(static_cast<wchar_t>(code))};
}

/// Cells of a line whose columns are so wide.
int taken(const std::vector<int>& width, int indent) {
  const auto shown = std::count_if(width.begin(), width.end(), [](int w) { return w > 0; });
  return std::accumulate(width.begin(), width.end(), indent + gap * static_cast<int>(std::max<long>(0, shown - 1)));
}

}  // namespace

int display_width(std::string_view words) {
  int width = 0;
  for (std::size_t i = 0; i < words.size();) {
    const auto character = character_at(words, i);
    width += character.width;
    i += character.bytes;
  }
  return width;
}

std::string fit(const Screen& screen, std::string_view words, int width) {
  if (display_width(words) <= width) return std::string(words);
  if (width <= 0) return {};
  int used = 0;
  std::size_t end = 0;
  while (end < words.size()) {
    const auto character = character_at(words, end);
    if (used + character.width > width - 1) break;  // one cell is the ellipsis's
    used += character.width;
    end += character.bytes;
  }
  return std::string(words.substr(0, end)) + std::string(glyph(screen, Glyph::ellipsis));
}

std::vector<std::string> wrapped(std::string_view words, int width) {
  std::vector<std::string> lines;
  std::string line;
  while (!words.empty()) {
    const auto word = words.substr(0, words.find(' '));
    words.remove_prefix(std::min(words.size(), word.size() + 1));
    if (width > 0 && !line.empty() && display_width(line) + 1 + display_width(word) > width)
      lines.push_back(std::exchange(line, {}));
    if (!line.empty()) line += ' ';
    line += word;
  }
  if (!line.empty()) lines.push_back(std::move(line));
  return lines;
}

void Table::add(std::vector<Cell> cells) {
  cells.resize(columns_.size());
  for (auto& cell : cells)
    cell.words = printable(cell.words);
  rows_.push_back(std::move(cells));
}

std::vector<int> Table::natural_widths(bool titled) const {
  std::vector<int> width(columns_.size(), 0);
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    for (const auto& row : rows_)
      width[i] = std::max(width[i], display_width(row[i].words));
    if (titled && width[i] > 0) width[i] = std::max(width[i], display_width(columns_[i].title));
  }
  return width;
}

void Table::shrink(std::vector<int>& width, int& excess, bool willing, int least) const {
  while (excess > 0) {
    int widest = -1;
    for (std::size_t i = 0; i < width.size(); ++i) {
      if (columns_[i].shrinks != willing || width[i] <= least) continue;
      if (widest < 0 || width[i] > width[static_cast<std::size_t>(widest)]) widest = static_cast<int>(i);
    }
    if (widest < 0) return;
    --width[static_cast<std::size_t>(widest)];
    --excess;
  }
}

void Table::leave_out(std::vector<int>& width, int& excess) const {
  while (excess > 0) {
    std::size_t first = width.size();
    for (std::size_t i = 0; i < width.size(); ++i)
      if (width[i] > 0 && columns_[i].goes > 0 && (first == width.size() || columns_[i].goes > columns_[first].goes))
        first = i;
    if (first == width.size()) return;
    excess -= width[first] + gap;
    width[first] = 0;
  }
}

std::vector<int> Table::widths(const Screen& screen, int indent, bool titled) const {
  auto width = natural_widths(titled);
  if (screen.width == 0) return width;
  auto shrunk = width;
  int excess = taken(width, indent) - screen.width;
  shrink(shrunk, excess, true, readable_width);
  leave_out(shrunk, excess);
  // What has gone may have left more room than was lacking.
  for (std::size_t i = 0; i < width.size(); ++i)
    if (shrunk[i] == 0) width[i] = 0;
  excess = taken(width, indent) - screen.width;
  shrink(width, excess, true, least_width);
  shrink(width, excess, false, least_width);
  // On a screen narrower than that, the last columns are not shown at all.
  for (std::size_t i = width.size(); i-- > 1 && excess > 0;) {
    if (width[i] == 0) continue;
    excess -= width[i] + gap;
    width[i] = 0;
  }
  return width;
}

/// Where little room is left beside the other columns, the sentences stand below them, without their title.
std::string Table::render_wrapped(const Screen& screen, int indent, bool titled) const {
  constexpr int least_room = 24, deeper = 4;
  auto width = natural_widths(titled);
  const int sentences = std::exchange(width.back(), 0);
  int before = taken(width, indent) + (sentences > 0 ? gap : 0);
  const bool beside = screen.width == 0 || screen.width - before >= std::min(least_room, sentences);
  if (!beside) {
    int excess = taken(width, indent) - screen.width;
    leave_out(width, excess);
  }
  const int start = beside ? before : indent + deeper;
  const int room = screen.width == 0 ? 0 : std::max(1, screen.width - start);
  std::string out;
  const auto add = [&](const auto& cell_of) {
    std::string line(static_cast<std::size_t>(indent), ' ');
    int owed = 0;  // blanks are written only when something follows: no line ends in them
    for (std::size_t i = 0; i + 1 < width.size(); ++i) {
      if (width[i] == 0) continue;
      const Cell cell = cell_of(i);
      const int blank = width[i] - display_width(cell.words);
      if (columns_[i].right) owed += blank;
      if (!cell.words.empty()) {
        line.append(static_cast<std::size_t>(owed), ' ') += paint(screen, cell.ink, cell.words);
        owed = 0;
      }
      owed += gap + (columns_[i].right ? 0 : blank);
    }
    const Cell last = cell_of(width.size() - 1);
    const auto pieces = wrapped(last.words, room);
    for (std::size_t n = 0; n < pieces.size(); ++n) {
      if (n == 0 && beside)
        line.append(static_cast<std::size_t>(owed), ' ');
      else
        line.append("\n").append(static_cast<std::size_t>(start), ' ');
      line += paint(screen, last.ink, pieces[n]);
    }
    out += line + "\n";
  };
  if (titled)
    add([&](std::size_t i) {
      const bool shown = i + 1 < width.size() || (beside && sentences > 0);
      return Cell{shown ? columns_[i].title : std::string(), Ink::dim};
    });
  for (const auto& row : rows_)
    add([&](std::size_t i) { return row[i]; });
  return out;
}

std::string Table::render(const Screen& screen, int indent, bool titled) const {
  if (rows_.empty()) return {};
  if (columns_.back().wraps) return render_wrapped(screen, indent, titled);
  const auto width = widths(screen, indent, titled);
  std::string out;
  const auto line = [&](const auto& cell_of) {
    std::string text(static_cast<std::size_t>(indent), ' ');
    int owed = 0;  // blanks are written only when something follows: no line ends in them
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (width[i] == 0) continue;
      const Cell cell = cell_of(i);
      const auto words = fit(screen, cell.words, width[i]);
      const int blank = width[i] - display_width(words);
      if (columns_[i].right) owed += blank;
      if (!words.empty()) {
        text.append(static_cast<std::size_t>(owed), ' ');
        text += paint(screen, cell.ink, words);
        owed = 0;
      }
      owed += gap + (columns_[i].right ? 0 : blank);
    }
    out += text + "\n";
  };
  if (titled) line([&](std::size_t i) { return Cell{columns_[i].title, Ink::dim}; });
  for (const auto& row : rows_)
    line([&](std::size_t i) { return row[i]; });
  return out;
}

}  // namespace gpumod::cli
