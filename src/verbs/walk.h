// Looking through folders without getting lost: bounded in depth, entries and time, each folder once however many links
// lead to it, and never over into a file system that could hang (a network) or that holds no files (the kernel's own).
//
// What kind of file system a path is on comes from the kernel's mount table, read beforehand: asking the path itself
// would already touch a server that may be gone.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "base/units.h"

namespace gpumod {

class MountTable {
 public:
  struct Mount {
    std::filesystem::path point;
    std::string type;     ///< "ext4", "nfs4" …
    bool remote() const;  ///< on the network, or mounted on first touch
    bool pseudo() const;  ///< made by the kernel, no files of people's
  };
  /// The text of /proc/self/mountinfo (proc(5)).
  static MountTable parse(std::string_view mountinfo);
  static MountTable of_this_machine();
  /// The mount that holds an absolute path, by its name alone; null when the table is empty.
  const Mount* holding(const std::filesystem::path& path) const;
  /// The mount where it lies in the end, links followed; a link on the network is not: nothing there is touched.
  const Mount* reached_by(const std::filesystem::path& path) const;

 private:
  std::vector<Mount> mounts_;
};

struct WalkRoot {
  std::filesystem::path folder;  ///< absolute
  bool told = false;             ///< people named it: then it may be on the network
  int depth = 4;                 ///< levels of sub-folders
};

struct WalkLimits {
  std::size_t entries = 50'000;
  std::size_t entries_per_folder = 10'000;
  Duration time = 5s;
};

struct WalkedFile {
  std::filesystem::path path;  ///< as it was reached, links included
  Bytes size;
  bool executable = false;
};

struct WalkOutcome {
  std::vector<std::filesystem::path> searched;  ///< the roots that were there
  std::vector<std::filesystem::path> avoided;   ///< folders on the network
  bool cut_short = false;                       ///< a limit ended it
};

/// Calls back for every regular file whose name is wanted, in no particular order. Hidden folders below a root are left
/// out. A root below another one is no problem. `home`: what lies on the same mount as the home directory is never
/// avoided, or nobody whose home is on a server would find anything.
WalkOutcome walk_folders(const std::vector<WalkRoot>& roots, const std::filesystem::path& home,
                         const MountTable& mounts, const WalkLimits& limits,
                         const std::function<bool(std::string_view name)>& wanted,
                         const std::function<void(WalkedFile)>& found);

}  // namespace gpumod
