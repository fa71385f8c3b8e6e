// The driver, the GPUs, and who holds their memory.

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/text.h"
#include "verbs/doctor/judge.h"

namespace gpumod {

namespace {

constexpr auto look_at_log = "See `sudo dmesg | grep -e NVRM -e Xid`";

/// Some service claims, or may claim, memory of a GPU.
bool gpu_is_wanted(const DoctorFacts& facts) {
  return facts.catalog && std::any_of(facts.catalog->services.begin(), facts.catalog->services.end(),
                                      [](const auto& entry) { return entry.second.vram != Bytes(); });
}

void judge_answer(const DriverAnswer& answer, const DriverFacts& driver, Check& check) {
  for (const auto& gpu : answer.missing)
    check.fail(fmt::format("GPU {} does not work: {}", gpu.index, gpu.problem),
               fmt::format("{}; it needs `sudo nvidia-smi --gpu-reset -i {}` or a reboot.", look_at_log, gpu.index));
  if (answer.cards.empty() && answer.missing.empty())
    check.fail("the driver runs, but sees no GPU",
               fmt::format("{}, and whether the card is seated and has power.", look_at_log));
  if (!driver.closed_nodes.empty())
    check.fail(
        fmt::format("this user may not open {}: no CUDA program of theirs starts", join(driver.closed_nodes, ", ")),
        "See `ls -l /dev/nvidia*`, and add the user to the group that may: sudo usermod -aG video $USER");
  if (!answer.cards.empty())
    check.ok(fmt::format("{}, {}", answer.version.empty() ? "it answers" : answer.version,
                         counted(answer.cards.size(), "GPU")));
}

/// Why it does not answer, as far as that can be seen without it: the cause first, not what it leads to.
void judge_refusal(const DoctorFacts& facts, const DriverFacts& driver, Check& check) {
  const Error& refusal = facts.answer.error();
  const auto& library = facts.nvml.version;
  if (!driver.other_driver.empty() && !driver.module_loaded)
    return check.fail(fmt::format("the NVIDIA card is driven by {}", driver.other_driver),
                      "Install the NVIDIA driver, which keeps nouveau away, and reboot.");
  if (!library.empty() && library.find('.') != std::string::npos && !driver.module_version.empty() &&
      library != driver.module_version)
    return check.fail(
        fmt::format("the driver was updated while its kernel module stayed: the library is {}, the loaded "
                    "module {}",
                    library, driver.module_version),
        "Reboot the machine.");
  if (facts.nvml.there && driver.cards > 0 && !driver.module_loaded)
    return check.fail(
        "the nvidia kernel module is not loaded",
        "sudo modprobe nvidia. If that fails after an update of the kernel, `dkms status` says whether the "
        "module was built for it; with Secure Boot it must be signed.");
  if (!driver.closed_nodes.empty())
    return check.fail(fmt::format("this user may not open {}", join(driver.closed_nodes, ", ")),
                      "See `ls -l /dev/nvidia*`, and add the user to the group that may: sudo usermod -aG video $USER");
  if (driver.cards > 0 || driver.module_loaded || facts.nvml.there || gpu_is_wanted(facts))
    return check.fail(refusal.message, refusal.hint);
  check.note("there is no NVIDIA GPU here: services that use none run");
}

}  // namespace

Check judge_driver(const DoctorFacts& facts) {
  Check check{"gpu.driver", "GPU", "Driver", "Without it no service with VRAM starts, and no memory can be counted."};
  const DriverFacts driver = facts.driver.value_or(DriverFacts());
  if (facts.driver_silent)
    check.fail(
        driver.stuck.empty() ? facts.answer.error().message
                             : fmt::format("{}; in it hang {}", facts.answer.error().message, join(driver.stuck, ", ")),
        fmt::format("A GPU or a process hangs in the driver. {}; if `nvidia-smi` hangs too, only a reboot helps.",
                    look_at_log));
  else if (facts.answer)
    judge_answer(*facts.answer, driver, check);
  else
    judge_refusal(facts, driver, check);
  return check;
}

Check judge_persistence(const DoctorFacts& facts) {
  Check check{"gpu.persistence", "GPU", "Persistence mode",
              "Without it the driver lets go of an idle GPU, and each start waits some seconds for it."};
  if (!facts.answer || facts.answer->cards.empty()) {
    check.skip("the driver does not answer");
    return check;
  }
  for (const auto& card : facts.answer->cards)
    if (card.persistence == false)
      check.warn(fmt::format("GPU {} ({}): off", card.index, card.name),
                 "sudo systemctl enable --now nvidia-persistenced (or until the next boot: sudo nvidia-smi -pm 1)");
  if (check.findings.empty()) check.ok("on");
  return check;
}

Check judge_gpu_memory(const DoctorFacts& facts) {
  constexpr Bytes worth_a_word = Bytes::gib(1);
  Check check{"gpu.memory", "GPU", "VRAM", "What others hold, or nobody explains, no service gets."};
  if (!facts.seen || facts.seen->ledgers.empty()) {
    check.skip(!facts.seen                        ? facts.seen.error().message
               : facts.seen->snapshot.gpu_problem ? facts.seen->snapshot.gpu_problem->message
                                                  : "no GPU can be seen");
    return check;
  }
  for (const auto& gpu : facts.seen->ledgers) {
    const auto& account = gpu.account;
    if (account.free && account.total)
      check.ok(
          fmt::format("GPU {}: {} of {} are free", gpu.index, to_string(*account.free), to_string(*account.total)));
    if (account.foreign >= worth_a_word) {
      std::vector<std::string> who;
      for (const auto& holding : account.holdings)
        if (holding.kind == Holding::Kind::foreign && !holding.processes.empty() && who.size() < 3)
          who.push_back(fmt::format("{} (pid {}, {}) {}", holding.name, holding.processes.front().pid,
                                    holding.user.empty() ? "user unknown" : holding.user, to_string(holding.used)));
      check.note(fmt::format("GPU {}: processes that are not gpumod's hold {}: {}", gpu.index,
                             to_string(account.foreign), join(who, ", ")),
                 "gpumod never ends them; `gpumod gpu processes` lists them all.");
    }
    if (account.unattributed && *account.unattributed >= worth_a_word)
      check.warn(fmt::format("GPU {}: {} are in use, and no process explains them", gpu.index,
                             to_string(*account.unattributed)),
                 "They may be on their way back: look again in a minute. If they stay, `sudo fuser -v /dev/nvidia*` "
                 "shows who has the GPU open.");
  }
  if (check.findings.empty()) check.skip("the driver does not tell of this GPU's memory");
  return check;
}

Check judge_checkpoint(const DoctorFacts& facts) {
  constexpr int least_driver = 570;  // the first with cuCheckpointProcess…
  Check check{"gpu.checkpoint", "GPU", "CUDA checkpoint",
              "With it a process can be suspended: its VRAM goes to host memory, and it lives on."};
  if (!facts.answer || facts.answer->cards.empty()) {
    check.skip("the driver does not answer");
    return check;
  }
  const auto& version = facts.answer->version;
  int major = 0;
  std::from_chars(version.data(), version.data() + version.size(), major);
  if (major < least_driver)
    check.note(fmt::format("driver {} cannot", version), fmt::format("Drivers from {} on can.", least_driver));
  else if (!facts.cuda.there)
    check.note("libcuda.so.1 is not installed", "Install the compute part of the driver (Debian: libcuda1).");
  else if (!facts.cuda.has_symbol)
    check.note("this libcuda.so.1 has no checkpoint functions", "Its version should be that of the driver.");
  else if (facts.memory && facts.memory->ptrace_scope.value_or(0) >= 2)
    check.note(fmt::format("kernel.yama.ptrace_scope is {}: only root may do it", *facts.memory->ptrace_scope),
               "sudo sysctl kernel.yama.ptrace_scope=1");
  else
    check.ok("driver and libcuda can");
  return check;
}

Check judge_suspend(const DoctorFacts& facts) {
  Check check{"gpu.suspend", "GPU", "Suspend",
              "VRAM that is lost while the host sleeps leaves servers that live and answer wrongly, or on the CPU."};
  if (!facts.driver || !facts.driver->keeps_memory) {
    check.skip("the driver's module does not say");
    return check;
  }
  const bool desktop =
      facts.memory && std::any_of(facts.memory->least_oom_score.begin(), facts.memory->least_oom_score.end(),
                                  [](const auto& entry) { return is_desktop(entry.first); });
  if (*facts.driver->keeps_memory)
    check.ok("VRAM is kept");
  else if (!desktop)
    check.ok("VRAM would be lost, and nobody suspends a machine without a desktop");
  else
    check.note("VRAM is lost when this machine is suspended",
               "gpumod mode switch to an empty mode before, or keep it: echo 'options nvidia "
               "NVreg_PreserveVideoMemoryAllocations=1' | sudo tee /etc/modprobe.d/nvidia-suspend.conf, then reboot.");
  return check;
}

}  // namespace gpumod
