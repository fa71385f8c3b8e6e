// A GPU's memory as a bar: whose it is, each holder's part in a fill of its own, so that it can be read without
// colours and without anything beyond ASCII.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <boost/json/value.hpp>

#include "faces/cli/style.h"

namespace gpumod::cli {

/// How many of `width` cells each amount gets: in proportion, together exactly `width` where there is any amount, and
/// at least one for everything that is there, as long as there are cells. Negative amounts count as none.
std::vector<int> share_cells(const std::vector<std::int64_t>& amounts, int width);

/// What stands in the bar, and in the legend below it.
struct BarPart {
  std::string fill;  ///< one cell
  Ink ink = Ink::plain;
  std::int64_t bytes = 0;  ///< what is drawn
  std::string amount;      ///< what is written: "512 MiB", "not available"
  std::string name;
  std::string note;
};

/// The parts of an account (`ledger` of a GPU, or one of its `slices`): services, orphans, others, what nobody explains,
/// the driver's, and what is free.
std::vector<BarPart> parts_of(const boost::json::value& account, const Screen& screen);

/// A part without words beside it.
BarPart bar_part(const Screen& screen, Glyph fill, Ink ink, std::int64_t bytes);
/// How the memory of the nth service is drawn, everybody else's, and what no process explains: without an amount and a
/// name yet.
BarPart service_part(std::size_t nth, const Screen& screen);
BarPart foreign_part(const Screen& screen);
BarPart unattributed_part(const Screen& screen);

std::string draw_bar(const std::vector<BarPart>& parts, const Screen& screen, int width);

/// {"index","name","ledger"} of a GPU as title, bar and legend, and the same of each slice.
std::string render_ledger(const boost::json::value& gpu, const Screen& screen);
/// The same on one line (and one a slice), for logs: "GPU 0: managed 512 MiB (chat), free 1000 MiB of 24564 MiB".
std::string ledger_lines(const boost::json::value& gpu);

}  // namespace gpumod::cli
