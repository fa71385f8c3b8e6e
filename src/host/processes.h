// Processes, cgroups and sockets as /proc and /sys show them. Nothing here changes anything.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/async.h"
#include "base/fd.h"
#include "base/result.h"

namespace gpumod {

struct ProcessInfo {
  pid_t pid = 0;
  pid_t parent = 0;
  std::uint64_t start_ticks = 0;  ///< with the pid it names one process for ever (field 22 of /proc/PID/stat)
  char state = '?';  ///< 'R', 'S', 'D', 'T', 'Z' (a zombie: it has ended, its parent has not asked yet) …
  std::string user;
  std::string command;        ///< its name (comm); never its arguments: they may hold secrets
  std::string control_group;  ///< path in the cgroup2 hierarchy, "" when unreadable

  /// False for a zombie: it holds no memory, no file and no socket any more.
  bool alive() const { return state != 'Z' && state != 'X'; }
};

/// Errors: not_found when it has ended.
Result<ProcessInfo> process_info(pid_t pid);

/// Opens a pidfd: readable when the process has ended. Errors: not_found when it has ended already (that of a zombie
/// opens, and is readable at once); environment on a kernel without pidfds (before 5.3).
Result<Fd> open_pidfd(pid_t pid);
/// True when it ended, false when the deadline came first.
Task<Result<bool>> wait_process_end(const Fd& pidfd, TimePoint deadline);

/// Where cgroup2 is mounted ("/sys/fs/cgroup", or ".../unified" on hybrid hosts). Asked, never assumed.
Result<std::filesystem::path> cgroup_root();
/// Every process in the cgroup and below it. A cgroup that does not exist has none.
std::vector<pid_t> cgroup_pids(const std::string& control_group);
struct CgroupMembers {
  std::uint64_t id = 0;  ///< the kernel's number of the cgroup; 0: it does not exist
  std::vector<pid_t> pids;
};
/// The same for many: where cgroup2 is mounted is asked once.
std::vector<CgroupMembers> cgroup_members(const std::vector<std::string>& control_groups);
/// Waits for `populated 0` in cgroup.events; a cgroup that does not exist is empty. False: the deadline came first.
/// Errors: failed for "" and "/" (the root never empties); environment when no cgroup2 hierarchy shows that path.
Task<Result<bool>> wait_cgroup_empty(std::string control_group, TimePoint deadline);
/// The innermost "NAME.service" of a cgroup path, "" if there is none.
std::string unit_of_cgroup(const std::string& control_group);
/// The cgroup2 path of a process, "" when it has ended or cannot be read.
std::string control_group_of(pid_t pid);
/// The unit of each process, by its cgroup; a process that has ended or belongs to no unit is left out.
std::map<pid_t, std::string> units_of_pids(const std::vector<pid_t>& pids);

/// The process's environment value, if we may read it.
std::optional<std::string> environment_of(pid_t pid, const std::string& variable);
/// Every descendant of `root`, itself excluded.
std::vector<pid_t> descendants_of(pid_t root);
std::vector<pid_t> all_pids();

/// Who listens on a TCP port (IPv4 and IPv6, any address).
struct Listener {
  std::uint16_t port = 0;
  std::uint32_t uid = 0;               ///< owner of the socket: visible for every process
  std::vector<pid_t> pids;             ///< who holds it; empty when the kernel does not let us see (another user's)
  std::uint64_t control_group_id = 0;  ///< one of those that were `known`: a process in it made the socket
};
/// What the caller knows of who may listen, so that not everybody has to be looked at.
struct LikelyHolders {
  std::set<std::uint64_t> known;  ///< cgroups: whose socket was made in one of these is answered with that alone
  std::vector<pid_t> pids;        ///< their descriptors are looked through before all others are
};
std::vector<Listener> listeners_on(const std::vector<std::uint16_t>& ports, const LikelyHolders& likely = {});

/// An IP address in numbers that no socket here can be bound to: it is another machine's. False for names and for "".
bool is_foreign_address(const std::string& address);

/// The kernel's boot id: another one means the machine was rebooted.
Result<std::string> boot_id();

}  // namespace gpumod
