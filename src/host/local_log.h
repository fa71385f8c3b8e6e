// The log of a service under the local supervisor: what it wrote to its standard output and error, in two files of a
// bounded size. Each line on disk is `MICROSECONDS INVOCATION TEXT`, the time being when the shim read it. The text is
// cleaned on its way in (no escape sequences, valid UTF-8), so the file can be shown on any terminal as it is.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "model/unit.h"

namespace gpumod::local {

inline std::filesystem::path log_path(const std::filesystem::path& directory) {
  return directory / "log";
}
inline std::filesystem::path old_log_path(const std::filesystem::path& directory) {
  return directory / "log.1";
}

/// Longer lines are cut into several, so that a service that never ends a line cannot fill our memory.
constexpr std::size_t longest_log_line = 16 * 1024;
/// Each of the two files.
constexpr std::size_t log_file_limit = 4 << 20;

/// Writes; only the unit's shim does. A full disk loses lines: the service goes on.
class LogWriter {
 public:
  LogWriter(std::filesystem::path directory, std::string invocation, std::size_t file_limit = log_file_limit);
  /// Bytes as they came from the pipe. "\n", "\r\n" and "\r" (progress bars) end a line; empty lines after "\r" are
  /// none.
  void feed(std::string_view bytes, WallTime time);
  /// One line of our own; what the service had not ended yet goes first.
  void line(std::string_view text, WallTime time);
  /// Writes the line that the service never ended.
  void finish(WallTime time);

 private:
  void append(std::string_view raw, WallTime time);
  void flush();

  std::filesystem::path directory_;
  std::string invocation_;
  std::size_t file_limit_;
  Fd file_;
  std::size_t size_ = 0;
  std::string partial_;
  bool after_return_ = false;
  std::string pending_;
};

struct StoredLine {
  std::string invocation;
  LogLine line;
};

/// One line of the file, without its end. False when it is not of our making.
bool parse_log_line(std::string_view text, StoredLine& line);

/// The last `limit` lines of a run, oldest first; an empty invocation means that of the last line.
std::vector<LogLine> read_log_tail(const std::filesystem::path& directory, std::string invocation, std::size_t limit);

/// Reads what is added to a log after its construction, across rotation.
class LogFollower {
 public:
  explicit LogFollower(std::filesystem::path directory);
  std::vector<LogLine> read_new();

 private:
  void read_open_file(std::vector<LogLine>& lines);

  std::filesystem::path directory_;
  Fd file_;
  std::string partial_;
};

/// Removes terminal escape sequences, replaces other control characters and broken UTF-8.
std::string clean_log_text(std::string_view raw);

}  // namespace gpumod::local
