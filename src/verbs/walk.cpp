#include "verbs/walk.h"

#include <algorithm>
#include <array>
#include <deque>
#include <set>

#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

template <std::size_t N>
bool is_one_of(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Blanks and backslashes of a mount point are written \040 and so on.
std::string unescaped(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto octal = [&](std::size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (!line.empty()) {
    const auto end = std::min(line.find(' '), line.size());
    if (end > 0) words.push_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  return words;
}

bool holds(const fs::path& folder, const fs::path& path) {
  const auto [end, ignored] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end();
}

}  // namespace

bool MountTable::Mount::remote() const {
  static constexpr std::array<std::string_view, 15> types{"nfs",    "nfs4",  "cifs",      "smb3",  "smbfs",
                                                          "ceph",   "afs",   "9p",        "ncpfs", "lustre",
                                                          "beegfs", "davfs", "glusterfs", "gpfs",  "autofs"};
  // FUSE is sshfs, rclone and their like; fuseblk is a local disk.
  return is_one_of(types, type) || type == "fuse" || (type.starts_with("fuse.") && type != "fuse.mergerfs");
}

bool MountTable::Mount::pseudo() const {
  static constexpr std::array<std::string_view, 18> types{
      "proc",   "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs",  "tracefs",     "securityfs",
      "pstore", "bpf",   "configfs", "mqueue", "nsfs",   "fusectl", "efivarfs", "binfmt_misc", "rpc_pipefs"};
  return is_one_of(types, type);
}

MountTable MountTable::parse(std::string_view mountinfo) {
  MountTable table;
  for (const auto line : split_lines(mountinfo)) {
    const auto words = words_of(line);
    const auto separator = std::find(words.begin(), words.end(), "-");
    if (words.size() < 7 || separator == words.end() || std::next(separator) == words.end()) continue;
    table.mounts_.push_back({unescaped(words[4]), std::string(*std::next(separator))});
  }
  return table;
}

MountTable MountTable::of_this_machine() {
  const auto text = read_pseudo_file("/proc/self/mountinfo", 4 << 20);
  return text ? parse(*text) : MountTable();
}

const MountTable::Mount* MountTable::holding(const fs::path& path) const {
  const auto normal = path.lexically_normal();
  const Mount* best = nullptr;
  std::size_t length = 0;
  for (const auto& mount : mounts_) {
    if (!holds(mount.point, normal)) continue;
    // A later mount on the same point covers the earlier one.
    const auto size = mount.point.native().size();
    if (!best || size >= length) best = &mount, length = size;
  }
  return best;
}

const MountTable::Mount* MountTable::reached_by(const fs::path& path) const {
  constexpr int most_links = 40;  // as the kernel has it
  auto rest = path.lexically_normal();
  for (int links = 0; links < most_links; ++links) {
    fs::path reached, next;
    for (auto part = rest.begin(); part != rest.end(); ++part) {
      if (!next.empty()) {
        next /= *part;
        continue;
      }
      reached /= *part;
      const auto* mount = holding(reached);
      if (mount && mount->remote()) return mount;
      std::error_code none;
      const auto target = fs::read_symlink(reached, none);
      if (!none) next = reached.parent_path() / target;
    }
    if (next.empty()) break;
    rest = next.lexically_normal();
  }
  return holding(rest);
}

namespace {

class Walk {
 public:
  Walk(const fs::path& home, const MountTable& mounts, const WalkLimits& limits,
       const std::function<bool(std::string_view)>& wanted, const std::function<void(WalkedFile)>& found)
      : mounts_(mounts),
        home_mount_(mounts.holding(home)),
        limits_(limits),
        wanted_(wanted),
        found_(found),
        deadline_(now() + limits.time) {}

  WalkOutcome run(const std::vector<WalkRoot>& roots) {
    for (const auto& root : roots) {
      const auto* mount = mounts_.holding(root.folder);
      if (may_enter(root.folder, root.told ? mount : home_mount_) && enter(root.folder, root.depth, mount))
        outcome_.searched.push_back(root.folder);
    }
    // Level by level over all roots: when a limit ends it, what lies near the top has been seen everywhere.
    while (!waiting_.empty() && !outcome_.cut_short) {
      const auto folder = std::move(waiting_.front());
      waiting_.pop_front();
      list(folder);
    }
    return std::move(outcome_);
  }

 private:
  struct Folder {
    fs::path path;
    int depth = 0;
    const MountTable::Mount* mount = nullptr;
  };

  bool may_enter(const fs::path& path, const MountTable::Mount* from) {
    const auto* mount = mounts_.holding(path);
    if (!mount || mount == from || mount == home_mount_ || (!mount->remote() && !mount->pseudo())) return true;
    if (mount->pseudo()) return false;
    if (std::find(outcome_.avoided.begin(), outcome_.avoided.end(), path) == outcome_.avoided.end())
      outcome_.avoided.push_back(path);
    return false;
  }

  bool enter(const fs::path& path, int depth, const MountTable::Mount* mount) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) return false;
    if (seen_.emplace(info.st_dev, info.st_ino).second) waiting_.push_back({path, depth, mount});
    return true;
  }

  /// False when a limit is reached.
  bool count() {
    if (++entries_ > limits_.entries || now() > deadline_) outcome_.cut_short = true;
    return !outcome_.cut_short;
  }

  void list(const Folder& folder) {
    std::error_code problem;
    std::size_t here = 0;
    for (fs::directory_iterator each(folder.path, problem), end; !problem && each != end; each.increment(problem)) {
      if (!count()) return;
      if (++here > limits_.entries_per_folder) return;
      visit(folder, *each);
    }
  }

  void visit(const Folder& folder, const fs::directory_entry& entry) {
    const auto name = entry.path().filename().string();
    std::error_code problem;
    const auto type = entry.symlink_status(problem).type();  // the directory itself tells: nothing is touched yet
    if (problem) return;
    if (type == fs::file_type::symlink) {
      const auto target = fs::read_symlink(entry.path(), problem);
      if (problem || !may_enter(target.is_absolute() ? target : folder.path / target, folder.mount)) return;
    }
    if (wanted_(name) && (type == fs::file_type::regular || type == fs::file_type::symlink)) file(entry.path());
    const bool perhaps_folder = type == fs::file_type::directory || type == fs::file_type::symlink;
    if (!perhaps_folder || folder.depth <= 0 || uninteresting(name) || !may_enter(entry.path(), folder.mount)) return;
    enter(entry.path(), folder.depth - 1, mounts_.holding(entry.path()));
  }

  static bool uninteresting(std::string_view name) {
    static constexpr std::array<std::string_view, 4> names{"node_modules", "__pycache__", "site-packages", "blobs"};
    return name.starts_with(".") || is_one_of(names, name);
  }

  void file(const fs::path& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return;
    if (!seen_.emplace(info.st_dev, info.st_ino).second) return;
    found_({path, Bytes(info.st_size), ::access(path.c_str(), X_OK) == 0});
  }

  const MountTable& mounts_;
  const MountTable::Mount* home_mount_;
  const WalkLimits& limits_;
  const std::function<bool(std::string_view)>& wanted_;
  const std::function<void(WalkedFile)>& found_;
  const TimePoint deadline_;
  WalkOutcome outcome_;
  std::deque<Folder> waiting_;
  std::set<std::pair<dev_t, ino_t>> seen_;
  std::size_t entries_ = 0;
};

}  // namespace

WalkOutcome walk_folders(const std::vector<WalkRoot>& roots, const fs::path& home, const MountTable& mounts,
                         const WalkLimits& limits, const std::function<bool(std::string_view)>& wanted,
                         const std::function<void(WalkedFile)>& found) {
  return Walk(home, mounts, limits, wanted, found).run(roots);
}

}  // namespace gpumod
