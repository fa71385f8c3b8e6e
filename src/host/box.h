// What of the machine itself decides whether services can run on it: driver, memory, disks, limits, who is protected
// when memory runs out. Read from /proc, /sys and /dev below `root`, which a test plants; nothing is changed, and a file
// that is not there leaves its fact unset.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/units.h"

namespace gpumod {

/// The NVIDIA driver as the kernel shows it, without asking the driver: a hung one would keep whoever asks.
struct DriverFacts {
  int cards = 0;                     ///< NVIDIA display controllers on the PCI bus
  std::string other_driver;          ///< what is bound to one of them instead: "nouveau", "vfio-pci"; "" if nothing
  bool module_loaded = false;        ///< nvidia.ko
  std::string module_version;        ///< of the loaded module
  std::optional<bool> keeps_memory;  ///< over a suspend of the host; unset: the module does not say
  std::vector<std::string> stuck;    ///< "python3 (pid 42)": waits in the kernel with a GPU open, and cannot be killed
  std::vector<std::string> closed_nodes;  ///< /dev/nvidia… that this user may not open for reading and writing
};
DriverFacts driver_facts(const std::filesystem::path& root);

/// A library that is loaded to see whether it is there; nothing in it is called.
struct LibraryFacts {
  bool there = false;
  std::string version;  ///< what its file's name says behind ".so.": "580.65.06"; "" when it says none
  bool has_symbol = false;
};
LibraryFacts library_facts(const std::string& file, const char* symbol);

struct MemoryFacts {
  Bytes total, available, swap;
  bool swap_is_zram = false;                   ///< some of it is
  std::map<std::string, std::int64_t> vm;      ///< /proc/sys/vm: swappiness, overcommit_memory, min_free_kbytes
  std::optional<double> stalled;               ///< percent of the last ten seconds in which some task waited for memory
  std::optional<int> ptrace_scope;             ///< kernel.yama.ptrace_scope
  std::set<std::string> guards;                ///< who ends processes before the kernel has to: earlyoom, systemd-oomd
  std::map<std::string, int> least_oom_score;  ///< of sshd and of desktops: the least oom_score_adj of each name
  /// The range from which outgoing connections get their ports; 0 when unknown.
  std::uint16_t first_own_port = 0, last_own_port = 0;
};
MemoryFacts memory_facts(const std::filesystem::path& root);
/// True for the names in least_oom_score that are a desktop's.
bool is_desktop(const std::string& command);

struct DiskFacts {
  std::filesystem::path existing;  ///< the path, or the nearest folder above it that exists
  bool exists = false;             ///< the path itself
  Bytes free;                      ///< for this user
  bool no_inodes = false;          ///< room, but not for one more file
  bool read_only = false;
  std::optional<bool> rotational;  ///< unset: cannot be told (network, btrfs, overlay)
};
/// May block for as long as a network drive does.
DiskFacts disk_facts(const std::filesystem::path& path, const std::filesystem::path& root);

/// Whether systemd keeps this user's manager without a login.
bool lingers(const std::string& user, const std::filesystem::path& root);

struct Limit {
  std::uint64_t soft = 0, hard = 0;  ///< UINT64_MAX: none
};
/// Of this process: what a service of the local supervisor inherits.
Limit own_limit(int resource);

/// "memory", "cpu", … of a cgroup.controllers text.
std::set<std::string> controllers_in(std::string_view text);

/// The name of the user that this process runs as; its number where it has none.
std::string own_user();

}  // namespace gpumod
