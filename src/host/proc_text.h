// Reading the texts of /proc: numbers, fields, directories of numbers.
#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <dirent.h>
#include <fmt/format.h>
#include <sys/types.h>

namespace gpumod {

template <typename Number>
std::optional<Number> number_in(std::string_view text, int base = 10) {
  Number value{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string_view> fields_of(std::string_view text);

inline std::string proc_path(pid_t pid, std::string_view file) {
  return fmt::format("/proc/{}/{}", pid, file);
}

/// Calls `visit` with each entry that is a number, and the descriptor of the directory.
template <typename Visit>
void for_each_number(const std::string& directory, Visit visit) {
  DIR* stream = ::opendir(directory.c_str());
  if (!stream) return;
  while (const dirent* entry = ::readdir(stream))
    if (const auto number = number_in<pid_t>(entry->d_name)) visit(*number);
  ::closedir(stream);
}

}  // namespace gpumod
