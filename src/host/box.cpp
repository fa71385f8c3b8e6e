#include "host/box.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <pwd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "host/proc_text.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

/// The first line without its end; "" when it cannot be read.
std::string line_of(const fs::path& file) {
  const auto text = read_pseudo_file(file.string());
  return text ? std::string(trim(text->substr(0, text->find('\n')))) : std::string();
}

template <typename Number>
std::optional<Number> number_of(const fs::path& file) {
  return number_in<Number>(line_of(file));
}

template <typename Visit>
void for_each_entry(const fs::path& folder, Visit visit) {
  std::error_code problem;
  for (fs::directory_iterator each(folder, problem), end; !problem && each != end; each.increment(problem))
    visit(each->path());
}

/// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 …": the first word that is digits and dots.
std::string version_in(std::string_view text) {
  for (const auto word : fields_of(text))
    if (word.find('.') != std::string_view::npos && word.find_first_not_of("0123456789.") == std::string_view::npos)
      return std::string(word);
  return {};
}

void find_cards(const fs::path& root, DriverFacts& facts) {
  for_each_entry(root / "sys/bus/pci/devices", [&](const fs::path& device) {
    // Display controllers alone (class 03): the same cards carry an audio device, too.
    if (line_of(device / "vendor") != "0x10de" || !line_of(device / "class").starts_with("0x03")) return;
    ++facts.cards;
    std::error_code unbound;
    const auto driver = fs::read_symlink(device / "driver", unbound).filename().string();
    if (!unbound && driver != "nvidia") facts.other_driver = driver;
  });
}

/// Only descriptors of the own user's processes can be seen, unless root looks.
bool has_gpu_open(const fs::path& process) {
  bool found = false;
  for_each_entry(process / "fd", [&](const fs::path& descriptor) {
    std::error_code closed;
    if (fs::read_symlink(descriptor, closed).string().starts_with("/dev/nvidia")) found = true;
  });
  return found;
}

/// In an uninterruptible wait ("D" behind the name in proc_pid_stat(5)).
bool waits_in_kernel(const fs::path& process) {
  const auto stat = line_of(process / "stat");
  const auto close = stat.rfind(')');
  return close != std::string::npos && std::string_view(stat).substr(close).starts_with(") D");
}

void find_stuck(const fs::path& root, DriverFacts& facts) {
  for_each_number((root / "proc").string(), [&](pid_t pid) {
    const auto process = root / "proc" / std::to_string(pid);
    if (waits_in_kernel(process) && has_gpu_open(process))
      facts.stuck.push_back(fmt::format("{} (pid {})", printable(line_of(process / "comm")), pid));
  });
}

}  // namespace

DriverFacts driver_facts(const fs::path& root) {
  DriverFacts facts;
  find_cards(root, facts);
  find_stuck(root, facts);
  std::error_code problem;
  facts.module_loaded = fs::exists(root / "sys/module/nvidia", problem);
  facts.module_version = line_of(root / "sys/module/nvidia/version");
  if (facts.module_version.empty()) facts.module_version = version_in(line_of(root / "proc/driver/nvidia/version"));
  const auto parameters = read_pseudo_file((root / "proc/driver/nvidia/params").string()).value_or("");
  for (const auto line : split_lines(parameters))
    if (const auto words = fields_of(line); words.size() == 2 && words[0] == "PreserveVideoMemoryAllocations:")
      facts.keeps_memory = words[1] != "0";
  for_each_entry(root / "dev", [&](const fs::path& node) {
    const auto name = node.filename().string();
    const bool needed = name == "nvidiactl" || name == "nvidia-uvm" ||
                        (name.starts_with("nvidia") && number_in<int>(name.substr(6)).has_value());
    if (needed && ::faccessat(AT_FDCWD, node.c_str(), R_OK | W_OK, AT_EACCESS) != 0)
      facts.closed_nodes.push_back("/dev/" + name);
  });
  std::sort(facts.closed_nodes.begin(), facts.closed_nodes.end());
  return facts;
}

LibraryFacts library_facts(const std::string& file, const char* symbol) {
  LibraryFacts facts;
  void* handle = ::dlopen(file.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (!handle) return facts;
  facts.there = true;
  facts.has_symbol = symbol && ::dlsym(handle, symbol) != nullptr;
  const link_map* map = nullptr;
  std::error_code problem;
  if (::dlinfo(handle, RTLD_DI_LINKMAP, static_cast<void*>(&map)) == 0 && map) {
    const auto name = fs::canonical(map->l_name, problem).filename().string();
    if (const auto at = name.find(".so."); !problem && at != std::string::npos) facts.version = name.substr(at + 4);
  }
  ::dlclose(handle);
  return facts;
}

namespace {

constexpr std::array<std::string_view, 4> guard_names{"earlyoom", "systemd-oomd", "nohang", "oomd"};
constexpr std::array<std::string_view, 11> desktop_names{"gnome-shell", "plasmashell", "kwin_wayland", "kwin_x11",
                                                         "Xorg",        "Xwayland",    "sway",         "Hyprland",
                                                         "weston",      "xfwm4",       "labwc"};

/// Lines like "MemTotal:       65843920 kB".
void read_meminfo(const fs::path& root, MemoryFacts& facts) {
  const auto text = read_pseudo_file((root / "proc/meminfo").string()).value_or("");
  for (const auto line : split_lines(text)) {
    const auto words = fields_of(line);
    const auto kib = words.size() > 1 ? number_in<std::int64_t>(words[1]) : std::nullopt;
    if (!kib) continue;
    if (words[0] == "MemTotal:") facts.total = Bytes(*kib * 1024);
    if (words[0] == "MemAvailable:") facts.available = Bytes(*kib * 1024);
    if (words[0] == "SwapTotal:") facts.swap = Bytes(*kib * 1024);
  }
}

/// "some avg10=0.12 avg60=…"
std::optional<double> stalled_in(std::string_view pressure) {
  constexpr std::string_view key = "avg10=";
  const auto at = pressure.find(key);
  if (!pressure.starts_with("some ") || at == std::string_view::npos) return std::nullopt;
  return std::strtod(std::string(pressure.substr(at + key.size())).c_str(), nullptr);
}

void look_at_processes(const fs::path& root, MemoryFacts& facts) {
  for_each_number((root / "proc").string(), [&](pid_t pid) {
    const auto folder = root / "proc" / std::to_string(pid);
    const auto name = line_of(folder / "comm");
    if (std::find(guard_names.begin(), guard_names.end(), name) != guard_names.end()) facts.guards.insert(name);
    if (name != "sshd" && !is_desktop(name)) return;
    const auto score = number_of<int>(folder / "oom_score_adj");
    if (!score) return;
    const auto [place, added] = facts.least_oom_score.emplace(name, *score);
    if (!added) place->second = std::min(place->second, *score);
  });
}

}  // namespace

bool is_desktop(const std::string& command) {
  return std::find(desktop_names.begin(), desktop_names.end(), command) != desktop_names.end();
}

MemoryFacts memory_facts(const fs::path& root) {
  MemoryFacts facts;
  read_meminfo(root, facts);
  facts.swap_is_zram = read_pseudo_file((root / "proc/swaps").string()).value_or("").find("/zram") != std::string::npos;
  for (const char* name : {"swappiness", "overcommit_memory", "min_free_kbytes"})
    if (const auto value = number_of<std::int64_t>(root / "proc/sys/vm" / name)) facts.vm[name] = *value;
  facts.stalled = stalled_in(line_of(root / "proc/pressure/memory"));
  facts.ptrace_scope = number_of<int>(root / "proc/sys/kernel/yama/ptrace_scope");
  const auto range = line_of(root / "proc/sys/net/ipv4/ip_local_port_range");
  if (const auto words = fields_of(range); words.size() == 2) {
    facts.first_own_port = number_in<std::uint16_t>(words[0]).value_or(0);
    facts.last_own_port = number_in<std::uint16_t>(words[1]).value_or(0);
  }
  look_at_processes(root, facts);
  return facts;
}

namespace {

/// A partition has no queue of its own: its disk's is one folder above.
std::optional<bool> rotational(dev_t device, const fs::path& root) {
  const auto link = root / "sys/dev/block" / fmt::format("{}:{}", major(device), minor(device));
  std::error_code problem;
  const auto folder = fs::canonical(link, problem);
  if (problem) return std::nullopt;
  for (const auto& each : {folder, folder.parent_path()})
    if (const auto value = number_of<int>(each / "queue/rotational")) return *value != 0;
  return std::nullopt;
}

}  // namespace

DiskFacts disk_facts(const fs::path& path, const fs::path& root) {
  DiskFacts facts;
  facts.existing = path;
  struct stat info {};
  while (::stat(facts.existing.c_str(), &info) != 0 && facts.existing.has_relative_path())
    facts.existing = facts.existing.parent_path();
  facts.exists = facts.existing == path;
  struct statvfs room {};
  if (::statvfs(facts.existing.c_str(), &room) == 0) {
    facts.free = Bytes(static_cast<std::int64_t>(room.f_bavail) * static_cast<std::int64_t>(room.f_frsize));
    facts.no_inodes = room.f_files > 0 && room.f_favail == 0;
    facts.read_only = (room.f_flag & ST_RDONLY) != 0;
  }
  facts.rotational = rotational(info.st_dev, root);
  return facts;
}

bool lingers(const std::string& user, const fs::path& root) {
  std::error_code problem;
  return fs::exists(root / "var/lib/systemd/linger" / user, problem);
}

Limit own_limit(int resource) {
  rlimit limit{};
  if (::getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0) return {UINT64_MAX, UINT64_MAX};
  return {limit.rlim_cur, limit.rlim_max};
}

std::set<std::string> controllers_in(std::string_view text) {
  std::set<std::string> names;
  for (const auto word : fields_of(trim(text)))
    names.emplace(word);
  return names;
}

std::string own_user() {
  const passwd* entry = ::getpwuid(::geteuid());
  return entry ? entry->pw_name : std::to_string(::geteuid());
}

}  // namespace gpumod
