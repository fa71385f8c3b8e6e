// What we write to, and how far it can be decorated: columns, colour, characters beyond ASCII.
#pragma once

#include <string>
#include <string_view>

namespace gpumod::cli {

enum class Ink { plain, bold, dim, red, green, yellow, cyan, blue, magenta };

struct Screen {
  bool terminal = false;  ///< somebody may be looking
  bool live = false;      ///< lines can be redrawn in place
  bool colour = false;
  bool unicode = true;
  int width = 0;  ///< columns; 0: as wide as needed
  int height = 24;

  /// `plain_wanted`: --no-color. Honours NO_COLOR, TERM, COLUMNS and the locale's character set.
  static Screen of(int descriptor, bool plain_wanted);
  /// Asks the terminal for its size again.
  void measure(int descriptor);
};

/// `words` must be printable already.
std::string paint(const Screen& screen, Ink ink, std::string_view words);

/// Characters that have a plain stand-in.
enum class Glyph { done, failed, waiting, skipped, arrow, ellipsis, full, shade, empty, on, off, half, dash, dot };
std::string_view glyph(const Screen& screen, Glyph which);
/// The spinner's character for the nth redraw.
std::string_view spinner(const Screen& screen, unsigned turn);

}  // namespace gpumod::cli
