#include "host/processes.h"

#include <algorithm>
#include <cerrno>
#include <set>

#include <poll.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/text.h"
#include "host/cgroup.h"
#include "host/proc_text.h"

namespace gpumod {

std::vector<std::string_view> fields_of(std::string_view text) {
  std::vector<std::string_view> fields;
  constexpr std::string_view blank = " \t\n";
  for (;;) {
    const auto first = text.find_first_not_of(blank);
    if (first == std::string_view::npos) return fields;
    text.remove_prefix(first);
    const auto end = text.find_first_of(blank);
    fields.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return fields;
    text.remove_prefix(end);
  }
}

namespace {

std::string user_name(uid_t uid) {
  char buffer[4096];
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(uid, &entry, buffer, sizeof buffer, &found) == 0 && found) return found->pw_name;
  return std::to_string(uid);
}

struct Stat {
  std::string command;
  char state = '?';
  pid_t parent = 0;
  std::uint64_t start_ticks = 0;
};

/// proc_pid_stat(5). The name stands in parentheses and may itself hold parentheses, blanks and newlines, so the last
/// ")" ends it: everything behind is numbers and one letter.
std::optional<Stat> parse_stat(std::string_view text) {
  const auto open = text.find('(');
  const auto close = text.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) return std::nullopt;
  const auto fields = fields_of(text.substr(close + 1));
  constexpr std::size_t first = 3;  // the manual counts from 1; field 3 is the first behind the name
  if (fields.size() <= 22 - first) return std::nullopt;
  const auto parent = number_in<pid_t>(fields[4 - first]);
  const auto ticks = number_in<std::uint64_t>(fields[22 - first]);
  if (!parent || !ticks) return std::nullopt;
  return Stat{std::string(text.substr(open + 1, close - open - 1)), fields[0][0], *parent, *ticks};
}

Result<Stat> read_stat(pid_t pid) {
  const auto text = read_pseudo_file(proc_path(pid, "stat"));
  // A process that ends between open and read answers ESRCH.
  if (!text) return fail(ErrorCode::not_found, fmt::format("process {} has ended", pid));
  auto parsed = parse_stat(*text);
  if (!parsed)
    return fail(ErrorCode::failed, fmt::format("/proc/{}/stat is not as proc_pid_stat(5) describes it", pid));
  return std::move(*parsed);
}

std::vector<pid_t> children_of(pid_t pid) {
  std::vector<pid_t> children;
  for_each_number(proc_path(pid, "task"), [&](pid_t thread) {
    const auto listed = read_pseudo_file(fmt::format("/proc/{}/task/{}/children", pid, thread));
    if (!listed) return;
    for (const auto field : fields_of(*listed))
      if (const auto child = number_in<pid_t>(field)) children.push_back(*child);
  });
  return children;
}

/// A kernel may be built without CONFIG_PROC_CHILDREN.
bool kernel_lists_children() {
  static const bool listed = [] {
    const auto own = ::getpid();
    return ::access(fmt::format("/proc/{}/task/{}/children", own, own).c_str(), R_OK) == 0;
  }();
  return listed;
}

std::vector<pid_t> descendants_by_parent(pid_t root) {
  std::multimap<pid_t, pid_t> children;
  for (const pid_t pid : all_pids())
    if (const auto stat = read_stat(pid)) children.emplace(stat->parent, pid);
  std::vector<pid_t> found;
  std::vector<pid_t> open{root};
  std::set<pid_t> seen{root};
  while (!open.empty()) {
    const auto [first, last] = children.equal_range(open.back());
    open.pop_back();
    for (auto child = first; child != last; ++child) {
      if (!seen.insert(child->second).second) continue;
      found.push_back(child->second);
      open.push_back(child->second);
    }
  }
  return found;
}

}  // namespace

Result<ProcessInfo> process_info(pid_t pid) {
  auto stat = TRY(read_stat(pid));
  ProcessInfo info;
  info.pid = pid;
  info.parent = stat.parent;
  info.start_ticks = stat.start_ticks;
  info.state = stat.state;
  info.command = std::move(stat.command);
  struct stat owner {};
  if (::stat(fmt::format("/proc/{}", pid).c_str(), &owner) == 0) info.user = user_name(owner.st_uid);
  info.control_group = control_group_of(pid);
  return info;
}

Result<Fd> open_pidfd(pid_t pid) {
  Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (fd) return fd;
  const int reason = errno;
  // EINVAL: not a process (any more), but a thread of one, or no pid at all.
  if (reason == ESRCH || reason == EINVAL) return fail(ErrorCode::not_found, fmt::format("process {} has ended", pid));
  if (reason == ENOSYS)
    return fail(ErrorCode::environment, "this kernel has no pidfds", "gpumod needs Linux 5.3 or newer.");
  return fail(system_error(fmt::format("open a pidfd for process {}", pid), reason));
}

Task<Result<bool>> wait_process_end(const Fd& pidfd, TimePoint deadline) {
  for (;;) {
    // Asked each time: a wake-up is a hint. The kernel signals a pidfd twice, at the end and when the parent has reaped
    // it, and the second can reach the event loop when it waits on another descriptor already.
    pollfd question{pidfd.get(), POLLIN, 0};
    if (::poll(&question, 1, 0) == 1) co_return true;
    const auto ready = co_await wait_ready(pidfd.get(), Readiness::readable, deadline);
    if (!ready) co_return fail(ready.error());
    if (!*ready) co_return false;
  }
}

std::optional<std::string> environment_of(pid_t pid, const std::string& variable) {
  const auto block = read_pseudo_file(proc_path(pid, "environ"), 16 << 20);
  if (!block) return std::nullopt;
  const std::string wanted = variable + "=";
  std::string_view left = *block;
  while (!left.empty()) {
    const auto end = left.find('\0');
    const auto entry = left.substr(0, end);
    if (entry.starts_with(wanted)) return std::string(entry.substr(wanted.size()));
    if (end == std::string_view::npos) break;
    left.remove_prefix(end + 1);
  }
  return std::nullopt;
}

std::vector<pid_t> all_pids() {
  std::vector<pid_t> pids;
  for_each_number("/proc", [&](pid_t pid) { pids.push_back(pid); });
  return pids;
}

std::vector<pid_t> descendants_of(pid_t root) {
  if (!kernel_lists_children()) return descendants_by_parent(root);
  std::vector<pid_t> found;
  std::set<pid_t> seen{root};
  std::vector<pid_t> open{root};
  while (!open.empty()) {
    const pid_t parent = open.back();
    open.pop_back();
    for (const pid_t child : children_of(parent)) {
      if (!seen.insert(child).second) continue;
      found.push_back(child);
      open.push_back(child);
    }
  }
  return found;
}

std::string control_group_of(pid_t pid) {
  const auto groups = read_pseudo_file(proc_path(pid, "cgroup"));
  return groups ? control_group_in(*groups) : std::string();
}

std::map<pid_t, std::string> units_of_pids(const std::vector<pid_t>& pids) {
  std::map<pid_t, std::string> units;
  for (const pid_t pid : pids) {
    if (auto unit = unit_of_cgroup(control_group_of(pid)); !unit.empty()) units.emplace(pid, std::move(unit));
  }
  return units;
}

Result<std::string> boot_id() {
  const auto text = read_pseudo_file("/proc/sys/kernel/random/boot_id");
  if (!text) return fail(ErrorCode::environment, text.error().message, "Is /proc mounted?");
  return std::string(trim(*text));
}

}  // namespace gpumod
