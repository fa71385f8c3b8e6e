// Text helpers: nearest names for typing errors, splitting and joining, letters, validity of UTF-8.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gpumod {

/// The candidates within a small edit distance of `word`, nearest first, at most `limit`.
std::vector<std::string> nearest_names(std::string_view word, const std::vector<std::string>& candidates,
                                       std::size_t limit = 3);

/// "Did you mean 'code' or 'rag'?", or "Known: a, b, c." when nothing is near, or "" when there are no candidates.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

/// "1 problem", "2 problems".
std::string counted(std::size_t amount, std::string_view one);

std::string join(const std::vector<std::string>& parts, std::string_view separator);
/// The parts between separators, empty ones too.
std::vector<std::string_view> split_at(std::string_view text, char separator);
std::vector<std::string_view> split_lines(std::string_view text);
std::string_view trim(std::string_view text);
/// One word of a shell's command line, in quotes where it needs them.
std::string shell_word(std::string_view text);
/// Of ASCII letters alone.
std::string lower(std::string_view text);
bool is_valid_utf8(std::string_view text);

/// Replaces control characters and broken UTF-8, so that text from a log cannot drive a terminal.
std::string printable(std::string_view text);

}  // namespace gpumod
