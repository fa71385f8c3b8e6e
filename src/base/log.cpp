// One write(2) a line, appended: lines of several processes and threads never mix, and a line is on its way to the disk
// before what it announces happens. A logging library lost: all of it that was used is these few lines, and it was a
// tenth of what every command pays before main().
#include "base/log.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <ctime>

#include <fcntl.h>
#include <unistd.h>

#include "base/time.h"

namespace gpumod {

namespace {

std::atomic<int> log_descriptor{STDERR_FILENO};  // once opened it stays open as long as the process
std::atomic<LogLevel> lowest_logged{LogLevel::warning};

char letter_of(LogLevel level) {
  constexpr std::array letters{'D', 'I', 'W', 'E'};
  return letters[static_cast<std::size_t>(level)];
}

/// In local time, as people compare it with their watch.
std::string stamped(LogLevel level, std::string_view text) {
  const auto since_epoch = wall_now().time_since_epoch();
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(since_epoch);
  const auto rest = std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch - whole);
  const std::time_t seconds = whole.count();
  std::tm local{};
  ::localtime_r(&seconds, &local);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03} {} {}\n", local.tm_year + 1900, local.tm_mon + 1,
                     local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec, rest.count(), letter_of(level), text);
}

}  // namespace

Result<void> log_to_file(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return fail(system_error(fmt::format("open the log {}", path.string()), errno));
  log_descriptor = file;
  lowest_logged = LogLevel::info;
  return {};
}

void set_log_level(LogLevel level) {
  lowest_logged = level;
}

void log_line(LogLevel level, const std::string& text) {
  if (level < lowest_logged.load()) return;
  const auto line = stamped(level, text);
  std::string_view left = line;
  while (!left.empty()) {
    const ssize_t written = ::write(log_descriptor, left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // there is nowhere to say that a log cannot be written
    left.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace gpumod
