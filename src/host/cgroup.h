// Paths of the cgroup2 hierarchy: from what /proc/PID/cgroup calls a cgroup to the directory that shows it.
//
// Three things make this more than a concatenation. The hierarchy may be mounted anywhere (/sys/fs/cgroup, or
// /sys/fs/cgroup/unified beside version 1). A mount may show only a subtree: then its `root` field is a prefix of every
// path it can show. And both /proc/PID/cgroup and that field are relative to the reader's cgroup namespace, so a path
// outside of it starts with "/.." and has no directory here.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gpumod {

struct CgroupMount {
  std::filesystem::path mount_point;
  std::string root;  ///< the cgroup that the mount point shows: "/" nearly always
};

/// The cgroup2 mounts of a mountinfo text (proc_pid_mountinfo(5)), best first: whole hierarchies, the newest first,
/// then subtrees.
std::vector<CgroupMount> cgroup_mounts_in(std::string_view mountinfo);

/// The directory under this mount, none when the mount does not show that cgroup.
std::optional<std::filesystem::path> directory_under(const CgroupMount& mount, const std::string& control_group);

/// The cgroup2 path in a /proc/PID/cgroup text, "" if there is none.
std::string control_group_in(std::string_view cgroup_file);

/// The cgroup of the unit that a path is in, itself or below it: "/app.slice/x.service" of "/app.slice/x.service/1".
/// "" when it is in none of that unit.
std::string group_of_unit(const std::string& control_group, const std::string& unit);

/// The directory of a cgroup on this machine, whether it exists or not. Errors: environment.
Result<std::filesystem::path> cgroup_directory(const std::string& control_group);

}  // namespace gpumod
