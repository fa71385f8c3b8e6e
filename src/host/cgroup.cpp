#include "host/cgroup.h"

#include <algorithm>
#include <cerrno>
#include <charconv>

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/text.h"
#include "host/processes.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

/// mountinfo writes blanks and backslashes as three octal digits.
std::string unescape(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    const char* digits = text.data() + i + 1;
    if (text[i] == '\\' && i + 3 < text.size() && std::from_chars(digits, digits + 3, value, 8).ptr == digits + 3) {
      plain += static_cast<char>(value);
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

/// Paths above our cgroup namespace's root are written with ".."; they have no name that we could open.
bool leaves_namespace(std::string_view path) {
  return path.ends_with("/..") || path.find("/../") != path.npos;
}

std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> found;
  while (!line.empty()) {
    const auto end = line.find(' ');
    if (end != 0) found.push_back(line.substr(0, end));
    if (end == std::string_view::npos) break;
    line.remove_prefix(end + 1);
  }
  return found;
}

/// Another file system may have been mounted over it since.
bool shows_cgroup2(const fs::path& mount_point) {
  struct statfs info {};
  return ::statfs(mount_point.c_str(), &info) == 0 && info.f_type == CGROUP2_SUPER_MAGIC;
}

Result<std::vector<CgroupMount>> live_mounts() {
  auto mounts = cgroup_mounts_in(TRY(read_pseudo_file("/proc/self/mountinfo", 16 << 20)));
  std::erase_if(mounts, [](const CgroupMount& mount) { return !shows_cgroup2(mount.mount_point); });
  if (mounts.empty())
    return fail(ErrorCode::environment, "no cgroup2 hierarchy is mounted on this machine",
                "Mount one (mount -t cgroup2 none /sys/fs/cgroup), or use the local supervisor.");
  return mounts;
}

/// Returns the cgroup's number, which is its directory's inode.
std::uint64_t collect_pids(const std::string& directory, std::vector<pid_t>& pids) {
  const auto listed = read_pseudo_file(directory + "/cgroup.procs");
  // A threaded cgroup answers EOPNOTSUPP here; its threads' process is listed by the threaded domain above it.
  if (listed) {
    for (const auto line : split_lines(*listed)) {
      pid_t pid = 0;
      // 0 stands for a process that this pid namespace cannot name.
      if (std::from_chars(line.data(), line.data() + line.size(), pid).ec == std::errc() && pid > 0)
        pids.push_back(pid);
    }
  }
  struct stat info {};
  if (::stat(directory.c_str(), &info) != 0) return 0;
  // A leaf has no other links than its own two: its many files need not be looked through for cgroups below it.
  if (info.st_nlink == 2) return info.st_ino;
  std::error_code problem;
  for (fs::directory_iterator entry(directory, problem), end; !problem && entry != end; entry.increment(problem)) {
    std::error_code gone;
    if (entry->is_directory(gone) && !entry->is_symlink(gone)) collect_pids(entry->path(), pids);
  }
  return info.st_ino;
}

CgroupMembers members_of(const std::vector<CgroupMount>& mounts, const std::string& control_group) {
  CgroupMembers members;
  auto& pids = members.pids;
  if (control_group.empty()) return members;
  for (const auto& mount : mounts) {
    const auto directory = directory_under(mount, control_group);
    if (!directory) continue;
    members.id = collect_pids(*directory, pids);
    break;
  }
  std::sort(pids.begin(), pids.end());
  pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
  return members;
}

enum class Population { empty, populated };

Result<Population> read_population(int events) {
  char buffer[256];
  const ssize_t size = ::pread(events, buffer, sizeof buffer, 0);
  if (size < 0 && errno == ENODEV) return Population::empty;  // removed while we held it open
  if (size < 0) return fail(system_error("read cgroup.events", errno));
  for (const auto line : split_lines(std::string_view(buffer, static_cast<std::size_t>(size))))
    if (line == "populated 0") return Population::empty;
  return Population::populated;
}

}  // namespace

std::vector<CgroupMount> cgroup_mounts_in(std::string_view mountinfo) {
  std::vector<CgroupMount> mounts;
  for (const auto line : split_lines(mountinfo)) {
    if (line.find(" - cgroup2 ") == std::string_view::npos) continue;
    // 36 35 98:0 /root /mount/point options [optional fields] - type source options
    const auto separator = line.find(" - ");
    if (separator == std::string_view::npos) continue;
    const auto before = words(line.substr(0, separator));
    const auto after = words(line.substr(separator + 3));
    if (before.size() < 6 || after.empty() || after[0] != "cgroup2") continue;
    mounts.insert(mounts.begin(), CgroupMount{unescape(before[4]), unescape(before[3])});
  }
  std::stable_partition(mounts.begin(), mounts.end(), [](const CgroupMount& mount) { return mount.root == "/"; });
  return mounts;
}

std::optional<fs::path> directory_under(const CgroupMount& mount, const std::string& control_group) {
  // In text: this is asked for every unit, and paths take themselves apart each time.
  if (!control_group.starts_with('/') || leaves_namespace(control_group) || leaves_namespace(mount.root))
    return std::nullopt;
  std::string_view below = control_group;
  if (mount.root != "/") {
    if (!below.starts_with(mount.root)) return std::nullopt;
    below.remove_prefix(mount.root.size());
    if (!below.empty() && below.front() != '/') return std::nullopt;
  }
  return below.empty() || below == "/" ? mount.mount_point : fs::path(mount.mount_point.native() + std::string(below));
}

std::string control_group_in(std::string_view cgroup_file) {
  for (auto line : split_lines(cgroup_file)) {
    if (!line.starts_with("0::")) continue;
    line.remove_prefix(3);
    constexpr std::string_view removed = " (deleted)";
    if (line.ends_with(removed)) line.remove_suffix(removed.size());
    return std::string(line);
  }
  return {};
}

Result<fs::path> cgroup_directory(const std::string& control_group) {
  const auto mounts = TRY(live_mounts());
  for (const auto& mount : mounts)
    if (auto directory = directory_under(mount, control_group)) return *directory;
  return fail(ErrorCode::environment, fmt::format("the cgroup {} is outside of what {} shows", control_group,
                                                  mounts.front().mount_point.string()));
}

Result<fs::path> cgroup_root() {
  return TRY(live_mounts()).front().mount_point;
}

std::vector<pid_t> cgroup_pids(const std::string& control_group) {
  const auto mounts =
      control_group.empty() ? std::vector<CgroupMount>() : live_mounts().value_or(std::vector<CgroupMount>());
  return members_of(mounts, control_group).pids;
}

std::vector<CgroupMembers> cgroup_members(const std::vector<std::string>& control_groups) {
  const auto mounts = live_mounts().value_or(std::vector<CgroupMount>());
  std::vector<CgroupMembers> members;
  for (const auto& group : control_groups)
    members.push_back(members_of(mounts, group));
  return members;
}

Task<Result<bool>> wait_cgroup_empty(std::string control_group, TimePoint deadline) {
  if (control_group.empty() || control_group == "/")
    co_return fail(ErrorCode::failed, "asked to wait until the root cgroup is empty, which it never is");
  auto directory = cgroup_directory(control_group);
  if (!directory) co_return fail(directory.error());
  const fs::path path = *directory / "cgroup.events";
  const Fd events(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!events) {
    const int reason = errno;
    if (reason == ENOENT || reason == ENODEV) co_return true;
    co_return fail(system_error(fmt::format("open {}", path.string()), reason));
  }
  for (;;) {
    // No event is lost between this read and the wait: the kernel remembers per open file which change was last read,
    // and reports POLLPRI at once when there has been another.
    const auto population = read_population(events.get());
    if (!population) co_return fail(population.error());
    if (*population == Population::empty) co_return true;
    const auto changed = co_await wait_ready(events.get(), Readiness::priority, deadline);
    if (!changed) co_return fail(changed.error());
    if (!*changed) co_return false;
  }
}

std::string group_of_unit(const std::string& control_group, const std::string& unit) {
  const auto name = "/" + unit;
  for (auto at = control_group.find(name); at != std::string::npos; at = control_group.find(name, at + 1)) {
    const auto end = at + name.size();
    if (end == control_group.size() || control_group[end] == '/') return control_group.substr(0, end);
  }
  return {};
}

std::string unit_of_cgroup(const std::string& control_group) {
  std::string_view left = control_group;
  while (!left.empty()) {
    const auto slash = left.rfind('/');
    const auto name = slash == std::string_view::npos ? left : left.substr(slash + 1);
    constexpr std::string_view suffix = ".service";
    if (name.ends_with(suffix) && name.size() > suffix.size()) return std::string(name);
    if (slash == std::string_view::npos) break;
    left = left.substr(0, slash);
  }
  return {};
}

}  // namespace gpumod
