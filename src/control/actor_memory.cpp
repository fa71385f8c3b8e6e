// The actor's proofs about memory: that there is room before a start, that it came back after a stop, that it fell
// after a sleep. It samples; what the samples prove is decided in switching/memory_watch.
#include <algorithm>

#include <fmt/format.h>

#include "base/log.h"
#include "base/text.h"
#include "control/actor.h"
#include "control/observe.h"
#include "host/containers.h"
#include "host/processes.h"
#include "switching/memory_watch.h"

namespace gpumod {

namespace {

/// This often NVML is asked.
constexpr Duration gpu_interval = 50ms;

MemoryReading read(const GpuSample& gpu, const std::map<pid_t, std::string>& owners) {
  MemoryReading reading;
  reading.gpu = gpu.index;
  reading.free = gpu.free;
  if (gpu.total && gpu.free) reading.unattributed = *gpu.total - *gpu.free;
  for (const auto& process : gpu.processes) {
    if (owners.contains(process.pid)) reading.ours.emplace_back(process.pid, process.used.value_or(Bytes()));
    if (process.used)
      reading.unattributed -= *process.used;
    else
      reading.every_holder_known = false;
  }
  std::sort(reading.ours.begin(), reading.ours.end());
  return reading;
}

/// It will not come back by waiting, and nothing that was on it is held any more.
bool is_lost(const Error& error) {
  return error.details.is_object() && error.details.as_object().contains("gpu_lost");
}

/// What a unit that has ended still has on the GPUs, in words; "" when nothing is left. `pids` gets those of its
/// containers: also what they held may come back late.
std::string still_listed(const std::vector<GpuSample>& gpus, const std::string& unit, std::set<pid_t>& pids,
                         const std::set<std::string>& containers) {
  std::string listed;
  for (const auto& gpu : gpus)
    for (const auto& process : gpu.processes) {
      const auto info = process_info(process.pid);
      if (!info && pids.contains(process.pid))
        listed = fmt::format("NVML still lists pid {} of {} on {}", process.pid, unit, gpu_in_words(gpu.index));
      if (!info || !containers.contains(container_of_cgroup(info->control_group))) continue;
      pids.insert(process.pid);
      listed = fmt::format("the container of {} has outlived it: pid {} ({}) still holds {} of {}", unit, process.pid,
                           info->command, process.used ? to_string(*process.used) : "memory", gpu_in_words(gpu.index));
    }
  return listed;
}

}  // namespace

/// What nobody holds before anything of this switch has been done: the driver's own share, mostly. A later look would
/// take for it what is on its way back.
void Actor::note_baseline(const Snapshot& snapshot) {
  if (std::exchange(looked_, true)) return;
  for (const auto& gpu : snapshot.gpus)
    unattributed_before_[gpu.index] = read(gpu, snapshot.unit_of_pid).unattributed;
}

void Actor::note_gpus(const std::vector<GpuSample>& gpus) {
  if (gpus.empty()) return;
  Bytes used;
  for (const auto& gpu : gpus)
    if (gpu.total && gpu.free) used += *gpu.total - *gpu.free;
  used_now_ = used;
  used_peak_ = std::max(used_peak_.value_or(used), used);
  if (on_gpus_) on_gpus_(gpus);
}

/// Errors: the GPUs could not be read, now or within `deadline` (a driver may hang).
Task<Result<std::vector<GpuSample>>> Actor::sample(TimePoint deadline) {
  if (!machine_.gpus) co_return std::vector<GpuSample>();
  auto gpus = co_await within(*machine_.loop, deadline, machine_.gpus->sample());
  if (!gpus) co_return fail(ErrorCode::environment, "the NVIDIA driver does not answer");
  if (!*gpus) {
    // Asked every few milliseconds, it would say the same every time.
    if (std::exchange(gpu_complaint_, gpus->error().message) != gpus->error().message)
      log_warning("GPUs could not be read: {}", gpus->error().message);
    co_return fail(gpus->error());
  }
  note_gpus(**gpus);
  co_return placeable(std::move(**gpus));
}

/// Who belongs to which unit changes while services start and end: asked anew before anybody is called foreign.
Task<void> Actor::learn_owners(std::vector<GpuSample> gpus) {
  const auto owners = co_await units_of_processes(machine_, catalog_, std::move(gpus));
  if (!owners) co_return;
  for (const auto& [pid, unit] : *owners)
    unit_of_pid_[pid] = unit;
}

std::string Actor::who_holds(const std::vector<GpuSample>& gpus, GpuIndex index) const {
  std::vector<std::string> holders;
  for (const auto& gpu : gpus) {
    if (gpu.index != index) continue;
    for (const auto& process : gpu.processes) {
      const auto ours = unit_of_pid_.find(process.pid);
      const auto info = process_info(process.pid);
      holders.push_back(fmt::format("pid {} ({}{}): {}", process.pid, info ? info->command : "ended",
                                    ours != unit_of_pid_.end() ? ", " + ours->second
                                    : info                     ? fmt::format(", user {}, not ours", info->user)
                                                               : "",
                                    process.used ? to_string(*process.used) : "unknown"));
    }
  }
  return holders.empty() ? "nobody that NVML lists" : join(holders, "; ");
}

Task<Event> Actor::check_memory(Command command) {
  Signal wake(*machine_.loop);
  waiting_[command.step] = &wake;
  const Registration forget([this, step = command.step] { waiting_.erase(step); });
  // What an earlier attempt left is no more than what the baseline holds: it is waited for instead.
  RoomWatch watch(command.need, command.attempt == 1 ? unattributed_before_ : std::map<GpuIndex, Bytes>(), now(),
                  command.deadline);
  std::string awaited;  // first of all: what follows is mostly a consequence of that
  for (;;) {
    if (abandoned(command)) {
      Event out = event(command, Event::Kind::not_ready);
      out.abandoned = true;
      co_return out;
    }
    const auto sampled = co_await sample(command.deadline);
    if (!sampled && is_lost(sampled.error()))
      co_return event(command, Event::Kind::memory_short, sampled.error().message);
    const auto gpus = sampled.value_or(std::vector<GpuSample>());
    std::vector<MemoryReading> readings;
    for (const auto& gpu : gpus)
      if (std::find(command.gpus.begin(), command.gpus.end(), gpu.index) != command.gpus.end())
        readings.push_back(read(gpu, unit_of_pid_));
    auto answer = watch.on(std::move(readings), now());
    if (answer.verdict == RoomWatch::Verdict::room)
      co_return event(command, Event::Kind::memory_ok, std::move(awaited));
    if (awaited.empty()) awaited = std::move(answer.awaited);
    if (answer.verdict == RoomWatch::Verdict::none) {
      if (answer.short_of) {
        std::vector<GpuSample> shown = gpus;
        co_await learn_owners(std::move(shown));
        answer.missing += "; its memory is held by " + who_holds(gpus, *answer.short_of);
      }
      co_return event(command, Event::Kind::memory_short, std::move(answer.missing));
    }
    (void)co_await wake.wait(std::min(command.deadline, now() + gpu_interval));
  }
}

Task<Event> Actor::prove_release(Command command) {
  const std::string unit = command.unit;
  const std::vector<pid_t> pids = stopped_[unit];
  const std::set<std::string> containers = containers_[unit];
  const auto alive = co_await machine_.units->wait_gone(unit, pids, command.deadline);
  if (!alive) co_return event(command, Event::Kind::survived, alive.error().message);
  if (!alive->empty()) {
    std::vector<std::string> names;
    for (const auto pid : *alive) {
      const auto info = process_info(pid);
      names.push_back(info ? fmt::format("pid {} ({})", pid, info->command) : fmt::format("pid {}", pid));
    }
    co_return event(command, Event::Kind::survived, fmt::format("{} of {} will not end", join(names, ", "), unit));
  }
  // The processes are gone; the driver may still be at work for them.
  std::set<pid_t> ended(pids.begin(), pids.end());
  std::string listed;  // by the last sample that came: one that the deadline cuts off says nothing
  while (machine_.gpus) {
    const auto sampled = co_await sample(command.deadline);
    if (!sampled && is_lost(sampled.error()))
      co_return event(command, Event::Kind::released, "its processes have ended; " + sampled.error().message);
    if (sampled)
      listed = still_listed(*sampled, unit, ended, containers);
    else if (listed.empty())
      listed = fmt::format("its release cannot be proven: {}", sampled.error().message);
    if (listed.empty()) break;
    if (now() >= command.deadline) co_return event(command, Event::Kind::survived, listed);
    co_await wait_until(std::min(command.deadline, now() + gpu_interval));
  }
  co_return event(command, Event::Kind::released);
}

Task<Event> Actor::prove_fall(Command command) {
  FallWatch watch(command.ceiling, now(), command.deadline);
  for (;;) {
    const std::string unit = command.unit;
    const auto status = co_await machine_.units->status(unit);
    if (!status) co_return event(command, Event::Kind::survived, status.error().message);
    if (status->gone() || status->restarting())
      co_return event(command, Event::Kind::not_ready, fmt::format("{} has ended instead", unit));
    const auto gpus = co_await sample(command.deadline);
    Result<std::map<GpuIndex, Bytes>> held;
    if (!gpus) held = fail(gpus.error());
    for (const auto& gpu : gpus.value_or(std::vector<GpuSample>()))
      for (const auto& process : gpu.processes)
        if (std::find(status->pids.begin(), status->pids.end(), process.pid) != status->pids.end())
          (*held)[gpu.index] += process.used.value_or(Bytes());
    auto answer = watch.on(held, now());
    if (answer.verdict == FallWatch::Verdict::fallen) {
      Event out = event(command, Event::Kind::released);
      out.main_pid = status->main_pid;
      co_return out;
    }
    if (answer.verdict == FallWatch::Verdict::stays) {
      Event out = event(command, Event::Kind::survived, std::move(answer.above));
      const Service* service = service_of(command);
      out.remedy = fmt::format("To have its memory, stop it: gpumod service stop {}.", service ? service->id : unit);
      co_return out;
    }
    co_await wait_until(std::min(command.deadline, now() + gpu_interval));
  }
}

}  // namespace gpumod
