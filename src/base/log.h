// The log of the processes that nobody watches: the worker, the shim. A face talks to people through its own output.
#pragma once

#include <filesystem>
#include <string>

#include <fmt/format.h>

#include "base/result.h"

namespace gpumod {

enum class LogLevel { debug, info, warning, error };

/// Lines go to standard error until a file is opened. Thread-safe. Secrets never reach it: see Secret in model/.
Result<void> log_to_file(const std::filesystem::path& path);
void set_log_level(LogLevel level);
void log_line(LogLevel level, const std::string& text);

template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace gpumod
