// Tables for people: columns as wide as what they hold, never wider than the screen; what does not fit is cut with an
// ellipsis, or goes on in the next line where a last column holds sentences. Widths are terminal cells, not bytes: CJK and emoji take two, combining marks none.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "faces/cli/style.h"

namespace gpumod::cli {

/// Cells that `words` (valid UTF-8, no control characters) takes on a terminal.
int display_width(std::string_view words);
/// Cut to at most `width` cells, with an ellipsis if anything was cut. Width 0 and below: nothing is left.
std::string fit(const Screen& screen, std::string_view words, int width);

/// Lines of at most `width` cells, broken at blanks where there are any. Width 0: one line.
std::vector<std::string> wrapped(std::string_view words, int width);

struct Column {
  std::string title;
  bool right = false;    ///< numbers
  bool shrinks = false;  ///< gives way first when the screen is narrow
  bool wraps = false;    ///< sentences, in the last column: nothing of the table is cut, they go on below
  /// Left out where the screen is narrow: the highest first, once what shrinks has come down to a width that can still
  /// be read. 0: stays, for names and results.
  int goes = 0;
};

struct Cell {
  std::string words;
  Ink ink = Ink::plain;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void add(std::vector<Cell> cells);
  bool empty() const { return rows_.empty(); }
  /// Lines that end in '\n'. Columns in which no row says anything are left out. `titled`: with a line of titles.
  std::string render(const Screen& screen, int indent = 0, bool titled = true) const;

 private:
  /// What each column would like to have; 0 where no row says anything.
  std::vector<int> natural_widths(bool titled) const;
  std::vector<int> widths(const Screen& screen, int indent, bool titled) const;
  void shrink(std::vector<int>& width, int& excess, bool willing, int least) const;
  void leave_out(std::vector<int>& width, int& excess) const;
  std::string render_wrapped(const Screen& screen, int indent, bool titled) const;

  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace gpumod::cli
