// The machine below the services: unit manager, cgroups, limits, memory, folders.

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "control/additions.h"
#include "fit/claim.h"
#include "fit/vllm_flags.h"
#include "host/journal.h"
#include "verbs/doctor/judge.h"

namespace gpumod {

namespace {

/// A command to copy: settings of a unit of the system's, beside its file.
std::string drop_in(std::string_view unit, std::string_view name, std::string_view setting, std::string_view then) {
  return fmt::format(
      "sudo mkdir -p /etc/systemd/system/{0}.d && printf '[Service]\\n{2}\\n' | sudo tee "
      "/etc/systemd/system/{0}.d/{1}.conf && sudo systemctl daemon-reload{3}",
      unit, name, setting, then);
}

constexpr auto log_in_again = "; then log out of all sessions, and in again.";

std::string kernel_setting(std::string_view setting) {
  return fmt::format("sudo sysctl {0} (and for the next boot: echo '{0}' | sudo tee -a /etc/sysctl.d/90-gpumod.conf)",
                     setting);
}

}  // namespace

Check judge_manager(const DoctorFacts& facts) {
  Check check{"units.manager", "Unit manager", "Unit manager", "It starts, watches and stops every service."};
  if (facts.local)
    check.ok("gpumod's own supervisor (unit_manager: local)");
  else if (!facts.manager)
    check.fail(facts.manager.error().message, facts.manager.error().hint);
  else
    check.ok(fmt::format("systemd {}", facts.manager->version));
  return check;
}

Check judge_linger(const DoctorFacts& facts) {
  Check check{"units.linger", "Unit manager", "Lingering",
              "Without it all services end with your last session, an ssh connection that drops included."};
  if (facts.local) {
    check.skip("the local supervisor needs no login");
  } else if (facts.lingers) {
    check.ok("on");
  } else {
    check.warn(fmt::format("off for {}", facts.user), "gpumod doctor --fix, or: loginctl enable-linger");
    check.fixes.push_back({Fix::Kind::enable_linger, facts.user, 0});
  }
  return check;
}

Check judge_journal(const DoctorFacts& facts) {
  Check check{"units.journal", "Unit manager", "Logs",
              "Why a start failed is mostly read from the last words of the server."};
  if (facts.local)
    check.skip("the local supervisor keeps the logs itself");
  else if (facts.journal_hidden)
    check.note(
        fmt::format("{} may not read the system's journal, where the last words of a server that ends at once may lie",
                    facts.user),
        see_system_journal);
  else
    check.ok("all that services write can be read");
  return check;
}

Check judge_adopted(const DoctorFacts& facts) {
  Check check{"units.adopted", "Unit manager", "Your own units", "A service with unit: runs only if that unit exists."};
  if (!facts.catalog || !facts.seen) {
    check.skip(!facts.catalog ? facts.catalog.error().message : facts.seen.error().message);
    return check;
  }
  std::size_t there = 0;
  for (const auto& [id, service] : facts.catalog->services) {
    if (service.unit.empty()) continue;
    const auto unit = facts.seen->snapshot.units.find(service.unit);
    if (unit != facts.seen->snapshot.units.end() && unit->second.exists)
      ++there;
    else
      check.fail(fmt::format("'{}' has unit: {}, and there is no such unit", id, service.unit),
                 fmt::format("Install it (systemctl --user list-unit-files shows what is there), or correct {}.",
                             to_string(service.source)));
  }
  if (check.findings.empty()) check.ok(there == 0 ? "none is adopted" : fmt::format("{} adopted", there));
  return check;
}

Check judge_cgroups(const DoctorFacts& facts) {
  Check check{"units.cgroups", "Unit manager", "Control groups",
              "That a service is gone is proven by its cgroup; limits on memory, CPU and disk need the controllers."};
  if (facts.local || !facts.manager) {
    check.skip(facts.local ? "the local supervisor uses none" : "the unit manager does not answer");
    return check;
  }
  if (!facts.manager->own_hierarchy) {
    check.warn("the user manager has no cgroup2 hierarchy",
               "Boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line.");
    return check;
  }
  std::vector<std::string> missing;
  for (const char* needed : {"memory", "cpu", "io"})
    if (!facts.manager->controllers.contains(needed)) missing.push_back(needed);
  if (missing.empty()) {
    check.ok("version 2, with memory, cpu and io");
    return check;
  }
  const auto text = fmt::format("not delegated to this user: {}", join(missing, ", "));
  const auto mend = drop_in("user@.service", "delegate", "Delegate=cpu cpuset io memory pids", log_in_again);
  if (missing.front() == "memory")
    check.warn(text, mend);
  else
    check.note(text, mend);
  return check;
}

namespace {

std::string words_of(std::uint64_t limit, bool memory) {
  if (limit == UINT64_MAX) return "unlimited";
  return memory ? to_string(Bytes(static_cast<std::int64_t>(limit))) : fmt::format("{}", limit);
}

}  // namespace

Check judge_limits(const DoctorFacts& facts) {
  constexpr std::uint64_t few_files = 4096;
  Check check{"units.limits", "Unit manager", "Limits",
              "Servers open a file for each client and shard; --mlock needs as much memlock as the model is large."};
  if (!facts.manager) {
    check.skip("the unit manager does not answer");
    return check;
  }
  const auto& [files, locked] = std::pair(facts.manager->nofile, facts.manager->memlock);
  const auto set = [&](std::string_view limit) {
    return facts.local ? std::string("Raise it in /etc/security/limits.conf, and log in again.")
                       : drop_in("user@.service", "limits", limit, log_in_again);
  };
  if (files.hard < few_files)
    check.warn(fmt::format("a service may open only {} files", files.hard), set("LimitNOFILE=1024:524288"));
  if (facts.catalog && locked.soft != UINT64_MAX)
    for (const auto& [id, service] : facts.catalog->services)
      if (service.unit.empty() && has_option(additions_of(*facts.catalog, service).words, {"--mlock"}))
        check.warn(fmt::format("'{}' has --mlock, and may lock only {}", id, words_of(locked.soft, true)),
                   set("LimitMEMLOCK=infinity"));
  if (check.findings.empty())
    check.ok(fmt::format("{} files, {} of locked memory", words_of(files.hard, false), words_of(locked.hard, true)));
  return check;
}

namespace {

/// What makes a host with large models stand still: nothing to page out to, or no address space to give away.
void judge_settings(const MemoryFacts& memory, Check& check) {
  constexpr Bytes large = Bytes::gib(16);
  constexpr std::int64_t least_free_kib = 32 * 1024;
  const auto vm = [&](const char* name, std::int64_t otherwise) {
    const auto found = memory.vm.find(name);
    return found == memory.vm.end() ? otherwise : found->second;
  };
  if (memory.swap == Bytes())
    check.warn(
        "there is no swap, not even in compressed memory (zram): under pressure the kernel drops and reads again what "
        "runs",
        "sudo apt install zram-tools (Debian; Fedora has zram from the start)");
  if (vm("overcommit_memory", 0) == 2)
    check.warn("vm.overcommit_memory is 2: CUDA reserves far more addresses than it uses, and starts fail",
               kernel_setting("vm.overcommit_memory=0"));
  if (vm("swappiness", 60) > 100 && !memory.swap_is_zram)
    check.warn(fmt::format("vm.swappiness is {}, and the swap is a disk", vm("swappiness", 60)),
               kernel_setting("vm.swappiness=60"));
  if (memory.swap > Bytes() && vm("swappiness", 60) == 0)
    check.note("vm.swappiness is 0: the swap is hardly used before memory is gone", kernel_setting("vm.swappiness=10"));
  if (memory.total >= large && vm("min_free_kbytes", least_free_kib) < least_free_kib)
    check.note(fmt::format("vm.min_free_kbytes is {}: with this much memory, little is kept for a sudden need",
                           vm("min_free_kbytes", 0)),
               kernel_setting("vm.min_free_kbytes=67584"));
}

}  // namespace

Check judge_pressure(const DoctorFacts& facts) {
  Check check{"memory.pressure", "Memory", "Host memory",
              "A host that runs out of memory freezes long before the kernel ends somebody."};
  if (!facts.memory) {
    check.skip(facts.memory.error().message);
    return check;
  }
  const MemoryFacts& memory = *facts.memory;
  const double stalled = memory.stalled.value_or(0);
  constexpr auto who =
      "`ps aux --sort=-rss | head` shows who has it; gpumod service stop ID, or sleep, gives some back.";
  if (stalled >= 40)
    check.fail(fmt::format("right now, processes wait for memory {:.0f} % of the time", stalled), who);
  else if (stalled >= 10)
    check.warn(fmt::format("right now, processes wait for memory {:.0f} % of the time", stalled), who);
  if (memory.total > Bytes() && memory.available.count() * 20 < memory.total.count())
    check.warn(fmt::format("only {} of {} are available", to_string(memory.available), to_string(memory.total)), who);
  judge_settings(memory, check);
  if (check.findings.empty() && memory.total == Bytes())
    check.skip("the kernel does not say how much there is");
  else if (check.findings.empty())
    check.ok(fmt::format("{} of {} available, {} swap{}", to_string(memory.available), to_string(memory.total),
                         to_string(memory.swap), memory.swap_is_zram ? " (zram)" : ""));
  return check;
}

Check judge_guards(const DoctorFacts& facts) {
  constexpr int protected_score = -500;
  Check check{"memory.guards", "Memory", "Out of memory",
              "When memory runs out, a model's server should go, not your desktop or the way in over ssh."};
  if (!facts.memory) {
    check.skip(facts.memory.error().message);
    return check;
  }
  const auto& scores = facts.memory->least_oom_score;
  if (const auto sshd = scores.find("sshd"); sshd != scores.end() && sshd->second > protected_score)
    check.warn("sshd is not protected: it may be ended first",
               drop_in("ssh.service", "oom", "OOMScoreAdjust=-1000", " && sudo systemctl restart ssh"));
  const int of_services = facts.manager && !facts.local ? facts.manager->oom_score_adjust.value_or(0) : 0;
  for (const auto& [name, score] : scores)
    if (is_desktop(name) && score >= of_services && score > protected_score)
      check.note(fmt::format("{} is as likely to be ended as a service (oom_score_adj {}, services {})", name, score,
                             of_services),
                 "In ~/.config/systemd/user.conf: [Manager] DefaultOOMScoreAdjust=500; then log in again.");
  if (facts.memory->guards.empty())
    check.warn("nobody ends the largest process in time: neither earlyoom nor systemd-oomd runs",
               "Debian: sudo apt install earlyoom; or: sudo systemctl enable --now systemd-oomd");
  if (check.findings.empty()) {
    const std::vector<std::string> guards(facts.memory->guards.begin(), facts.memory->guards.end());
    check.ok(fmt::format("{} watches{}", join(guards, " and "), scores.contains("sshd") ? ", sshd is protected" : ""));
  }
  return check;
}

namespace {

/// The host memory that this service would take while it sleeps: its weights, else what it claims of the GPU.
std::optional<Bytes> asleep(const DoctorFacts& facts, const Service& service) {
  for (const auto& model : facts.models)
    if (model.size > Bytes() &&
        std::find(model.services.begin(), model.services.end(), service.id) != model.services.end())
      return model.size;
  return service.vram;
}

}  // namespace

Check judge_sleep_memory(const DoctorFacts& facts) {
  Check check{"memory.sleep", "Memory", "Sleep level 1",
              "A service asleep on level 1 keeps its weights in host memory, where nothing can page them out."};
  if (!facts.catalog || !facts.memory || facts.memory->total == Bytes()) {
    check.skip(facts.catalog ? "the host's memory is not known" : facts.catalog.error().message);
    return check;
  }
  const Bytes total = facts.memory->total;
  const Bytes kept = std::max(Bytes::gib(2), Bytes(total.count() / 10));  // for everything else
  bool any = false;
  for (const auto& [id, mode] : facts.catalog->modes) {
    Bytes sum;
    std::vector<std::string> who;
    for (const auto& member : mode.services) {
      const auto service = facts.catalog->services.find(member);
      if (service == facts.catalog->services.end() || service->second.sleep != SleepAbility::level1) continue;
      any = true;
      who.push_back(member);
      const auto amount = asleep(facts, service->second);
      if (amount)
        sum += *amount;
      else
        check.note(fmt::format("'{}': how much it would keep is not known", member),
                   fmt::format("Declare vram: in {}.", to_string(service->second.source)));
    }
    if (sum > total - kept)
      check.warn(fmt::format("mode {}: {} asleep together keep {}, and the host has {}", id, join(who, " and "),
                             to_string(sum), to_string(total)),
                 "Let some of them sleep on level 2 (sleep: l2) or not at all.");
  }
  if (check.findings.empty()) check.ok(any ? "what may sleep together fits" : "no mode has a service that sleeps so");
  return check;
}

Check judge_shared_memory(const DoctorFacts& facts) {
  constexpr Bytes least = Bytes::gib(1);
  Check check{"memory.shared", "Memory", "Shared memory", "The parts of a vLLM on several GPUs talk through /dev/shm."};
  if (!facts.catalog || facts.shared_memory == Bytes()) {
    check.skip(facts.catalog ? "there is no /dev/shm" : facts.catalog.error().message);
    return check;
  }
  for (const auto& [id, service] : facts.catalog->services) {
    const auto started = as_started(service, additions_of(*facts.catalog, service).words);
    if (started.vllm() && gpus_wanted(*started.vllm()) > 1 && facts.shared_memory < least)
      check.warn(fmt::format("'{}' uses several GPUs, and /dev/shm has only {}", id, to_string(facts.shared_memory)),
                 "sudo mount -o remount,size=8G /dev/shm; in a container: --shm-size=8g");
  }
  if (check.findings.empty()) check.ok(fmt::format("{}", to_string(facts.shared_memory)));
  return check;
}

namespace {

void judge_mode(const FolderFacts& folder, Check& check) {
  const auto path = folder.path.string();
  const auto restricted = [&](unsigned mode) {
    check.fixes.push_back({Fix::Kind::restrict_mode, path, mode});
    return fmt::format("gpumod doctor --fix, or: chmod {:o} {}", mode, path);
  };
  if (folder.purpose == "runtime" && (folder.mode & 0022) != 0)
    check.fail(fmt::format("others may write to the runtime folder {}: gpumod refuses to use it", path),
               restricted(0700));
  else if (folder.purpose == "state" && (folder.mode & 0077) != 0)
    check.warn(fmt::format("others may look into the state folder {}", path), restricted(0700));
  else if (folder.purpose == "configuration" && (folder.mode & 0022) != 0)
    check.warn(fmt::format("others may write to {}, and so say which programs run as you", path),
               restricted(folder.mode & 0755));
}

void judge_room(const FolderFacts& folder, Check& check) {
  constexpr Bytes nothing = Bytes::mib(64), little = Bytes::gib(1);
  const auto where = folder.disk.existing.string();
  constexpr auto mend = "Make room: `df -h` shows the disks, `du -xh --max-depth=2 ~ | sort -h` who fills them.";
  if (folder.disk.read_only)
    return check.fail(fmt::format("the disk of {} is read-only", where),
                      "See `sudo dmesg`: disks become so after errors.");
  if (folder.disk.no_inodes) return check.fail(fmt::format("the disk of {} takes no more files", where), mend);
  if (folder.disk.free < nothing)
    check.fail(
        fmt::format("the disk of {} is full ({} left): no switch can be journaled", where, to_string(folder.disk.free)),
        mend);
  else if (folder.disk.free < little)
    check.warn(fmt::format("{} are left on the disk of {}", to_string(folder.disk.free), where), mend);
}

void judge_folder(const FolderFacts& folder, Check& check) {
  const auto path = folder.path.string();
  if (!folder.problem.empty())
    return check.fail(folder.problem, "See `mount`, and whether the server of a network drive is there.");
  if (folder.there && !folder.is_folder) return check.fail(fmt::format("{} is no folder", path), "Move it away.");
  if (folder.there && !folder.ours)
    return check.fail(fmt::format("{} belongs to somebody else", path), fmt::format("sudo chown -R $USER {}", path));
  if (!folder.there && !folder.can_be_made)
    return check.fail(
        fmt::format("{} is not there, and cannot be made", path),
        fmt::format("See who owns {}: `ls -ld {}`.", folder.disk.existing.string(), folder.disk.existing.string()));
  if (!folder.there && folder.purpose == "configuration") {
    check.note(fmt::format("{} is not there yet", path), "gpumod init writes a first configuration.");
    check.fixes.push_back({Fix::Kind::make_folder, path, 0700});
  }
  if (folder.there) judge_mode(folder, check);
  if (folder.purpose != "configuration") judge_room(folder, check);
}

}  // namespace

Check judge_folders(const DoctorFacts& facts) {
  Check check{"disk.folders", "Disk", "Folders", "Every step of a switch is written down before it is done."};
  for (const auto& folder : facts.folders)
    judge_folder(folder, check);
  if (check.findings.empty() && facts.folders.empty()) check.skip("they could not be looked at");
  for (const auto& folder : facts.folders)
    if (check.findings.empty() && folder.purpose == "state")
      check.ok(fmt::format("{} free for the state", to_string(folder.disk.free)));
  return check;
}

}  // namespace gpumod
