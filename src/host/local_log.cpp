#include "host/local_log.h"

#include <cerrno>
#include <charconv>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

namespace gpumod::local {

namespace fs = std::filesystem;

LogWriter::LogWriter(fs::path directory, std::string invocation, std::size_t file_limit)
    : directory_(std::move(directory)), invocation_(std::move(invocation)), file_limit_(file_limit) {}

void LogWriter::feed(std::string_view bytes, WallTime time) {
  for (const char c : bytes) {
    const bool follows_return = std::exchange(after_return_, c == '\r');
    if (c == '\n' || c == '\r') {
      if (!(follows_return && partial_.empty())) append(partial_, time);
      partial_.clear();
    } else {
      partial_ += c;
      if (partial_.size() >= longest_log_line) {
        append(partial_, time);
        partial_.clear();
        after_return_ = true;  // the line end that follows belongs to what was just written
      }
    }
  }
  flush();
}

void LogWriter::line(std::string_view text, WallTime time) {
  finish(time);
  append(text, time);
  flush();
}

void LogWriter::finish(WallTime time) {
  if (!partial_.empty()) append(partial_, time);
  partial_.clear();
  flush();
}

void LogWriter::append(std::string_view raw, WallTime time) {
  pending_ += fmt::format("{} {} {}\n", time.time_since_epoch().count(), invocation_, clean_log_text(raw));
  if (pending_.size() > 256 * 1024) flush();
}

void LogWriter::flush() {
  if (pending_.empty()) return;
  const std::string text = std::exchange(pending_, {});
  if (file_ && size_ > 0 && size_ + text.size() > file_limit_) {
    ::rename(log_path(directory_).c_str(), old_log_path(directory_).c_str());
    file_.reset();
  }
  if (!file_) {
    file_.reset(::open(log_path(directory_).c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    struct stat info {};
    size_ = file_ && ::fstat(file_.get(), &info) == 0 ? static_cast<std::size_t>(info.st_size) : 0;
  }
  // Lines go out in one write each time, so that a reader sees whole lines; a short write means a full disk.
  ssize_t written = 0;
  do {
    written = ::write(file_.get(), text.data(), text.size());
  } while (written < 0 && errno == EINTR);
  if (written > 0) size_ += static_cast<std::size_t>(written);
}

bool parse_log_line(std::string_view text, StoredLine& line) {
  std::int64_t microseconds = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), microseconds);
  if (problem != std::errc() || end == text.data() + text.size() || *end != ' ') return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
  const auto space = text.find(' ');
  if (space == std::string_view::npos || space == 0) return false;
  line.invocation = text.substr(0, space);
  line.line.time = WallTime(std::chrono::microseconds(microseconds));
  line.line.text = text.substr(space + 1);
  return true;
}

std::vector<LogLine> read_log_tail(const fs::path& directory, std::string invocation, std::size_t limit) {
  // The limit leaves room for one write beyond the file's own limit.
  constexpr std::size_t readable = log_file_limit * 2;
  const auto older = read_file(old_log_path(directory), readable);
  const auto newer = read_file(log_path(directory), readable);
  std::vector<LogLine> lines;
  StoredLine stored;
  for (const auto* file : {&newer, &older}) {
    if (!*file) continue;
    const auto all = split_lines(**file);
    for (auto text = all.rbegin(); text != all.rend() && lines.size() < limit; ++text) {
      if (!parse_log_line(*text, stored)) continue;
      if (invocation.empty()) invocation = stored.invocation;
      if (stored.invocation == invocation) lines.push_back(std::move(stored.line));
    }
  }
  return {std::make_move_iterator(lines.rbegin()), std::make_move_iterator(lines.rend())};
}

LogFollower::LogFollower(fs::path directory) : directory_(std::move(directory)) {
  file_.reset(::open(log_path(directory_).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (file_) ::lseek(file_.get(), 0, SEEK_END);
}

std::vector<LogLine> LogFollower::read_new() {
  std::vector<LogLine> lines;
  for (;;) {
    // Opened before the old one is read to its end: nothing is appended to a file that has been rotated away.
    Fd current(::open(log_path(directory_).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    read_open_file(lines);
    struct stat ours {};
    struct stat theirs {};
    if (!current || ::fstat(current.get(), &theirs) != 0) return lines;
    if (file_ && ::fstat(file_.get(), &ours) == 0 && ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev)
      return lines;
    file_ = std::move(current);
    partial_.clear();
  }
}

void LogFollower::read_open_file(std::vector<LogLine>& lines) {
  if (!file_) return;
  char buffer[64 * 1024];
  for (;;) {
    const ssize_t size = ::read(file_.get(), buffer, sizeof buffer);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    partial_.append(buffer, static_cast<std::size_t>(size));
  }
  std::size_t start = 0;
  StoredLine stored;
  for (auto end = partial_.find('\n'); end != std::string::npos; end = partial_.find('\n', start)) {
    if (parse_log_line(std::string_view(partial_).substr(start, end - start), stored)) {
      stored.line.invocation = stored.invocation;
      lines.push_back(std::move(stored.line));
    }
    start = end + 1;
  }
  partial_.erase(0, start);
}

std::string clean_log_text(std::string_view raw) {
  std::string plain;
  plain.reserve(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    // ECMA-48: CSI is ESC [, parameter and intermediate bytes 0x20-0x3F, one final byte 0x40-0x7E.
    if (raw[i] == '\x1b' && i + 1 < raw.size() && raw[i + 1] == '[') {
      std::size_t end = i + 2;
      while (end < raw.size() && raw[end] >= 0x20 && raw[end] <= 0x3F)
        ++end;
      if (end < raw.size() && raw[end] >= 0x40 && raw[end] <= 0x7E) {
        i = end;
        continue;
      }
    }
    plain += raw[i];
  }
  return printable(plain);
}

}  // namespace gpumod::local
