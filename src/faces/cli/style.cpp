#include "faces/cli/style.h"

#include <array>
#include <charconv>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/paths.h"
#include "base/text.h"

namespace gpumod::cli {

namespace {

int columns_variable() {
  const auto wanted = environment_variable("COLUMNS");
  int columns = 0;
  std::from_chars(wanted.data(), wanted.data() + wanted.size(), columns);
  return columns > 0 ? columns : 0;
}

/// Only a locale that says otherwise keeps us to ASCII: in containers and over ssh it is often not set at all.
bool utf8_wanted() {
  std::string locale;
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"})
    if (locale = environment_variable(name); !locale.empty()) break;
  locale = lower(locale);
  return locale.empty() || locale.find("utf-8") != std::string::npos || locale.find("utf8") != std::string::npos;
}

std::string_view code_of(Ink ink) {
  switch (ink) {
    case Ink::plain: return "";
    case Ink::bold: return "1";
    case Ink::dim: return "2";
    case Ink::red: return "31";
    case Ink::green: return "32";
    case Ink::yellow: return "33";
    case Ink::cyan: return "36";
    case Ink::blue: return "34";
    case Ink::magenta: return "35";
  }
  return "";
}

}  // namespace

Screen Screen::of(int descriptor, bool plain_wanted) {
  Screen screen;
  screen.terminal = ::isatty(descriptor) == 1;
  const auto term = environment_variable("TERM");
  screen.live = screen.terminal && !term.empty() && term != "dumb";
  screen.colour = screen.live && !plain_wanted && environment_variable("NO_COLOR").empty();
  screen.unicode = utf8_wanted();
  screen.measure(descriptor);
  return screen;
}

void Screen::measure(int descriptor) {
  winsize size{};
  if (terminal && ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    width = size.ws_col;
    height = size.ws_row > 0 ? size.ws_row : 24;
    return;
  }
  width = columns_variable();
  if (width == 0 && terminal) width = 80;
}

std::string paint(const Screen& screen, Ink ink, std::string_view words) {
  if (!screen.colour || ink == Ink::plain || words.empty()) return std::string(words);
  return fmt::format("\x1b[{}m{}\x1b[0m", code_of(ink), words);
}

std::string_view glyph(const Screen& screen, Glyph which) {
  const bool fancy = screen.unicode;
  switch (which) {
    case Glyph::done: return fancy ? "✔" : "+";
    case Glyph::failed: return fancy ? "✘" : "x";
    case Glyph::waiting: return fancy ? "·" : ".";
    case Glyph::skipped: return "-";
    case Glyph::arrow: return fancy ? "→" : "->";
    case Glyph::ellipsis: return fancy ? "…" : "~";
    case Glyph::full: return fancy ? "█" : "#";
    case Glyph::shade: return fancy ? "▒" : "%";
    case Glyph::empty: return fancy ? "░" : ".";
    case Glyph::on: return fancy ? "●" : "*";
    case Glyph::off: return fancy ? "○" : "-";
    case Glyph::half: return fancy ? "◐" : "~";
    case Glyph::dash: return fancy ? "—" : "-";
    case Glyph::dot: return fancy ? "·" : ",";
  }
  return "";
}

std::string_view spinner(const Screen& screen, unsigned turn) {
  static constexpr std::array<std::string_view, 10> fancy{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
  static constexpr std::array<std::string_view, 4> simple{"|", "/", "-", "\\"};
  return screen.unicode ? fancy[turn % fancy.size()] : simple[turn % simple.size()];
}

}  // namespace gpumod::cli
