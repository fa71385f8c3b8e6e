#include "sim/vllm_log.h"

#include <ctime>

#include <unistd.h>

namespace gpumod::sim {

namespace {

constexpr std::string_view packages = "/opt/vllm/lib/python3.12/site-packages/";

std::string stamp() {
  const std::time_t seconds = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&seconds, &local);
  char text[32];
  std::strftime(text, sizeof text, "%m-%d %H:%M:%S", &local);
  return text;
}

/// One write a line: two processes share the pipe, and lines must not mix. A reader that has gone is no reason to end.
void write_line(std::string line) {
  line += '\n';
  std::string_view rest = line;
  while (!rest.empty()) {
    const auto written = ::write(STDOUT_FILENO, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

std::vector<std::string> traceback(std::string_view exception, const std::vector<Frame>& frames) {
  std::vector<std::string> lines = {"Traceback (most recent call last):"};
  for (const auto& frame : frames)
    lines.push_back(fmt::format("  File \"{}{}\", line {}, in {}", packages, frame.file, frame.line, frame.function));
  while (!exception.empty()) {
    const auto end = exception.find('\n');
    lines.emplace_back(exception.substr(0, end));
    exception.remove_prefix(end == std::string_view::npos ? exception.size() : end + 1);
  }
  return lines;
}

}  // namespace

VllmLog::VllmLog(std::string_view process) : prefix_(fmt::format("({} pid={}) ", process, ::getpid())) {}

void VllmLog::leveled(std::string_view level, std::string_view place, std::string_view text) const {
  write_line(fmt::format("{}{} {} [{}] {}", prefix_, level, stamp(), place, text));
}

void VllmLog::failure(std::string_view place, std::string_view headline, std::string_view exception,
                      const std::vector<Frame>& frames) const {
  error(place, headline);
  for (const auto& line : traceback(exception, frames))
    error(place, line);
}

void VllmLog::uncaught(std::string_view exception, const std::vector<Frame>& frames) const {
  for (const auto& line : traceback(exception, frames))
    plain(line);
}

void VllmLog::plain(std::string_view text) const {
  write_line(fmt::format("{}{}", prefix_, text));
}

void VllmLog::bare(std::string_view text) const {
  write_line(std::string(text));
}

}  // namespace gpumod::sim
