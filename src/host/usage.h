// What a process has consumed so far, as /proc shows it: for telling one that is slow from one that does nothing.
#pragma once

#include <cstdint>
#include <optional>

#include <sys/types.h>

#include "base/time.h"

namespace gpumod {

struct ProcessUsage {
  std::uint64_t start_ticks = 0;  ///< with the pid it names one process for ever
  Duration cpu{};                 ///< its own, and that of children it has waited for
  std::uint64_t major_faults = 0;
  /// Read from and written to disks, and read from files whatever holds them (proc_pid_io(5)). The kernel shows these
  /// of one's own processes only; 0 where it does not.
  std::uint64_t disk_bytes = 0;
  std::uint64_t read_bytes = 0;
};

/// Nothing when it has ended.
std::optional<ProcessUsage> usage_of(pid_t pid);

}  // namespace gpumod
