// The actor's proofs about memory: that there is room before a start, that it came back after a stop, that it fell
// after a sleep. NVML signals nothing and has no history: what is true is what several samples agree on.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/log.h"
#include "base/text.h"
#include "control/actor.h"
#include "host/processes.h"

namespace gpumod {

namespace {

/// This often NVML is asked. Two samples this far apart that agree count as settled.
constexpr Duration gpu_interval = 50ms;
/// A browser's ups and downs last moments; room that foreign processes have taken for longer will not come back.
constexpr Duration foreign_patience = 5s;
/// Drivers give memory back in pieces, with pauses: only after so long a pause was the last piece the last.
constexpr Duration quiet_time = 2s;
/// More than this above what nobody held before the switch is memory that is on its way back.
constexpr Bytes baseline_slack = Bytes::mib(64);
/// A server that is asleep and whose memory has not moved for so long has given what it gives.
constexpr Duration fall_patience = 10s;
/// Sums of figures that NVML gives one after the other waver by so much without anything happening.
constexpr Bytes wavering = Bytes::mib(1);

/// What one sample says of one GPU.
struct Reading {
  std::map<pid_t, Bytes> ours;
  Bytes unattributed;  ///< used, and held by no process that NVML lists; the driver's own share included
  bool every_holder_known = true;
};

Reading read(const GpuSample& gpu, const std::map<pid_t, std::string>& owners) {
  Reading reading;
  if (gpu.total && gpu.free) reading.unattributed = *gpu.total - *gpu.free;
  for (const auto& process : gpu.processes) {
    if (owners.contains(process.pid)) reading.ours[process.pid] += process.used.value_or(Bytes());
    if (process.used)
      reading.unattributed -= *process.used;
    else
      reading.every_holder_known = false;
  }
  return reading;
}

/// It will not come back by waiting, and nothing that was on it is held any more.
bool is_lost(const Error& error) {
  return error.details.is_object() && error.details.as_object().contains("gpu_lost");
}

}  // namespace

/// What nobody holds before anything of this switch has been done: the driver's own share, mostly.
void Actor::note_baseline(const Snapshot& snapshot) {
  if (!unattributed_before_.empty()) return;
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
  co_return std::move(**gpus);
}

/// Who belongs to which unit changes while services start and end: asked anew before anybody is called foreign.
Task<void> Actor::learn_owners() {
  std::set<std::string> names;
  for (const auto& [id, service] : catalog_.services)
    names.insert(service.unit_name());
  std::vector<std::string> wanted(names.begin(), names.end());
  const auto units = co_await machine_.units->survey(std::move(wanted), SurveyDepth::presence);
  if (!units) co_return;
  for (const auto& unit : *units)
    for (const auto pid : unit.pids)
      unit_of_pid_[pid] = unit.name;
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

/// Settled: our own processes hold the same as a moment ago, and no memory without a holder is coming back (a driver
/// that is still at work for a process that has ended: a vLLM that starts into that aborts while it profiles). Whether
/// some is on its way shows against what nobody held when the switch began; for how long it pauses, only waiting tells.
/// What foreign processes do counts only in what is free; where they took the room, that is said soon, and by whom.
Task<Event> Actor::check_memory(Command command) {
  Signal wake(*machine_.loop);
  waiting_[command.step] = &wake;
  const Registration forget([this, step = command.step] { waiting_.erase(step); });
  std::map<GpuIndex, Reading> before;
  std::map<GpuIndex, Bytes> least;
  TimePoint fell_at = now();
  std::optional<TimePoint> taken_since;
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
    std::string missing = gpus.empty() ? "the GPUs cannot be read" : "";
    std::optional<GpuIndex> short_of;
    bool ours_still = !before.empty(), as_before = command.attempt == 1, falls = false, taken = false;
    std::map<GpuIndex, Reading> readings;
    for (const auto& gpu : gpus) {
      if (std::find(command.gpus.begin(), command.gpus.end(), gpu.index) == command.gpus.end()) continue;
      const auto& reading = readings[gpu.index] = read(gpu, unit_of_pid_);
      if (const auto last = before.find(gpu.index); last != before.end()) {
        ours_still = ours_still && last->second.ours == reading.ours;
        falls = falls || reading.unattributed + wavering < last->second.unattributed;
      }
      const auto baseline = unattributed_before_.find(gpu.index);
      as_before = as_before && baseline != unattributed_before_.end() &&
                  reading.unattributed <= baseline->second + baseline_slack;
      const auto [lowest, first] = least.try_emplace(gpu.index, reading.unattributed);
      if (reading.unattributed + wavering < lowest->second) {
        lowest->second = reading.unattributed;
        fell_at = now();
      }
      const auto need = command.need.find(gpu.index);
      if (need == command.need.end() || !gpu.free || *gpu.free >= need->second) continue;
      short_of = gpu.index;
      missing =
          fmt::format("GPU {} has {} free, {} are needed", gpu.index, to_string(*gpu.free), to_string(need->second));
      // Even if all came back that nobody holds, it would not be enough: listed processes have it.
      taken = reading.every_holder_known && *gpu.free + reading.unattributed < need->second;
    }
    const bool all_is_back = as_before && !falls;
    if (missing.empty() && ours_still && (all_is_back || now() - fell_at > quiet_time))
      co_return event(command, Event::Kind::memory_ok);

    if (!taken || !ours_still) taken_since.reset();
    if (taken && ours_still && !taken_since) taken_since = now();
    const bool will_not_come = taken_since && now() - *taken_since > foreign_patience;
    if (will_not_come || now() >= command.deadline) {
      if (short_of) {
        co_await learn_owners();
        missing += "; its memory is held by " + who_holds(gpus, *short_of);
      }
      co_return event(command, Event::Kind::memory_short,
                      missing.empty() ? "the memory of our own services has not stopped moving" : missing);
    }
    before = std::move(readings);
    (void)co_await wake.wait(std::min(command.deadline, now() + gpu_interval));
  }
}

Task<Event> Actor::prove_release(Command command) {
  const std::string unit = command.unit;
  const std::vector<pid_t> pids = stopped_[unit];
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
  while (machine_.gpus) {
    const auto sampled = co_await sample(command.deadline);
    if (!sampled && is_lost(sampled.error()))
      co_return event(command, Event::Kind::released, "its processes have ended; " + sampled.error().message);
    const auto gpus = sampled.value_or(std::vector<GpuSample>());
    std::string listed = sampled ? "" : fmt::format("its release cannot be proven: {}", sampled.error().message);
    for (const auto& gpu : gpus)
      for (const auto& process : gpu.processes)
        if (std::find(pids.begin(), pids.end(), process.pid) != pids.end() && !process_info(process.pid))
          listed = fmt::format("NVML still lists pid {} of {} on GPU {}", process.pid, unit, gpu.index);
    if (listed.empty()) break;
    if (now() >= command.deadline) co_return event(command, Event::Kind::survived, listed);
    co_await wait_until(std::min(command.deadline, now() + gpu_interval));
  }
  co_return event(command, Event::Kind::released);
}

/// The unit lives on: its memory has fallen when NVML's figures for its processes say so, whatever the server says.
Task<Event> Actor::prove_fall(Command command) {
  std::optional<Bytes> least;
  TimePoint fell_at = now();
  for (;;) {
    const std::string unit = command.unit;
    const auto status = co_await machine_.units->status(unit);
    if (!status) co_return event(command, Event::Kind::survived, status.error().message);
    const auto gpus = co_await sample(command.deadline);
    std::string above = gpus ? "" : fmt::format("its release cannot be proven: {}", gpus.error().message);
    Bytes sum;
    for (const auto& gpu : gpus.value_or(std::vector<GpuSample>())) {
      const auto ceiling = command.ceiling.find(gpu.index);
      if (ceiling == command.ceiling.end()) continue;
      Bytes held;
      for (const auto& process : gpu.processes)
        if (std::find(status->pids.begin(), status->pids.end(), process.pid) != status->pids.end())
          held += process.used.value_or(Bytes());
      sum += held;
      if (held > ceiling->second)
        above = fmt::format("it still holds {} on GPU {}: at most {} were expected", to_string(held), gpu.index,
                            to_string(ceiling->second));
    }
    if (above.empty()) co_return event(command, Event::Kind::released);
    if (gpus && (!least || sum < *least)) {
      least = sum;
      fell_at = now();
    }
    if (now() >= command.deadline || now() - fell_at > fall_patience) {
      Event out = event(command, Event::Kind::survived, above);
      const Service* service = service_of(command);
      out.remedy = fmt::format("To have its memory, stop it: gpumod service stop {}.", service ? service->id : unit);
      co_return out;
    }
    co_await wait_until(std::min(command.deadline, now() + gpu_interval));
  }
}

}  // namespace gpumod
