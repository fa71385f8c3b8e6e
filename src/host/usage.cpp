#include "host/usage.h"

#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"

namespace gpumod {

namespace {

std::uint64_t number_at(std::string_view text) {
  text = trim(text);
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

Duration from_ticks(std::uint64_t ticks) {
  static const long per_second = ::sysconf(_SC_CLK_TCK);
  return std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(static_cast<double>(ticks) / static_cast<double>(per_second)));
}

}  // namespace

std::optional<ProcessUsage> usage_of(pid_t pid) {
  const auto stat = read_pseudo_file(fmt::format("/proc/{}/stat", pid));
  if (!stat) return std::nullopt;
  // proc_pid_stat(5): behind the name, which may hold anything, stand numbers; the state is field 3.
  const auto name_end = stat->rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::vector<std::uint64_t> fields(3);
  std::string_view rest = std::string_view(*stat).substr(name_end + 1);
  while (!(rest = trim(rest)).empty()) {
    const auto end = rest.find(' ');
    fields.push_back(number_at(rest.substr(0, end)));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end);
  }
  if (fields.size() <= 22) return std::nullopt;
  ProcessUsage usage;
  usage.major_faults = fields[12] + fields[13];
  usage.cpu = from_ticks(fields[14] + fields[15] + fields[16] + fields[17]);
  usage.start_ticks = fields[22];

  const auto io = read_pseudo_file(fmt::format("/proc/{}/io", pid));
  if (!io) return usage;
  for (const auto line : split_lines(*io)) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const auto name = line.substr(0, colon);
    const auto value = number_at(line.substr(colon + 1));
    if (name == "rchar") usage.read_bytes = value;
    if (name == "read_bytes" || name == "write_bytes") usage.disk_bytes += value;
  }
  return usage;
}

}  // namespace gpumod
