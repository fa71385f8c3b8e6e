#include "faces/cli/ask.h"

#include <cctype>
#include <cstdio>
#include <string>

#include <fmt/format.h>
#include <unistd.h>

#include "base/text.h"

namespace gpumod::cli {

namespace {

/// Nothing at the end of the input.
bool read_line(std::string& line) {
  line.clear();
  for (int c = std::fgetc(stdin); c != '\n'; c = std::fgetc(stdin)) {
    if (c == EOF) return !line.empty();
    line += static_cast<char>(c);
  }
  return true;
}

}  // namespace

bool can_ask() {
  return ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
}

bool ask(std::string_view question, bool otherwise) {
  std::string line;
  for (;;) {
    fmt::print("{} {} ", question, otherwise ? "[Y/n]" : "[y/N]");
    std::fflush(stdout);
    if (!read_line(line)) {
      fmt::print("\n");
      return otherwise;
    }
    std::string answer;
    for (const char c : trim(line))
      answer += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (answer.empty()) return otherwise;
    if (answer == "y" || answer == "yes") return true;
    if (answer == "n" || answer == "no") return false;
  }
}

}  // namespace gpumod::cli
