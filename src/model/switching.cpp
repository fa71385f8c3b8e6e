#include "model/switching.h"

#include <algorithm>

namespace gpumod {

std::string_view to_string(Action action) {
  switch (action) {
    case Action::start: return "start";
    case Action::stop: return "stop";
    case Action::load: return "load";
    case Action::unload: return "unload";
    case Action::sleep: return "sleep";
    case Action::wake: return "wake";
    case Action::verify: return "verify";
  }
  return "unknown";
}

bool frees(Action action) {
  return action == Action::stop || action == Action::unload || action == Action::sleep;
}
bool allocates(Action action) {
  return action == Action::start || action == Action::load || action == Action::wake;
}

bool Plan::only_verifies() const {
  return std::all_of(steps.begin(), steps.end(), [](const Step& step) { return step.action == Action::verify; });
}

std::string_view to_string(SwitchResult result) {
  switch (result) {
    case SwitchResult::committed: return "committed";
    case SwitchResult::rolled_back: return "rolled_back";
    case SwitchResult::failed: return "failed";
    case SwitchResult::refused: return "refused";
    case SwitchResult::unchanged: return "unchanged";
    case SwitchResult::cancelled: return "cancelled";
    case SwitchResult::running: return "running";
  }
  return "unknown";
}

bool Command::mutates() const {
  switch (kind) {
    case Kind::start_unit:
    case Kind::stop_unit:
    case Kind::kill_unit:
    case Kind::load_model:
    case Kind::unload_model:
    case Kind::sleep_service:
    case Kind::wake_service:
    case Kind::record_failure: return true;
    default: return false;
  }
}

std::string_view to_string(Command::Kind kind) {
  switch (kind) {
    case Command::Kind::observe: return "observe";
    case Command::Kind::preflight: return "preflight";
    case Command::Kind::check_memory: return "check_memory";
    case Command::Kind::start_unit: return "start_unit";
    case Command::Kind::stop_unit: return "stop_unit";
    case Command::Kind::kill_unit: return "kill_unit";
    case Command::Kind::prove_release: return "prove_release";
    case Command::Kind::prove_fall: return "prove_fall";
    case Command::Kind::load_model: return "load_model";
    case Command::Kind::unload_model: return "unload_model";
    case Command::Kind::sleep_service: return "sleep_service";
    case Command::Kind::wake_service: return "wake_service";
    case Command::Kind::await_ready: return "await_ready";
    case Command::Kind::await_residency: return "await_residency";
    case Command::Kind::verify: return "verify";
    case Command::Kind::abandon: return "abandon";
    case Command::Kind::record_failure: return "record_failure";
    case Command::Kind::finish: return "finish";
  }
  return "unknown";
}

std::string_view to_string(Event::Kind kind) {
  switch (kind) {
    case Event::Kind::observed: return "observed";
    case Event::Kind::preflight_ok: return "preflight_ok";
    case Event::Kind::preflight_failed: return "preflight_failed";
    case Event::Kind::memory_ok: return "memory_ok";
    case Event::Kind::memory_short: return "memory_short";
    case Event::Kind::job_done: return "job_done";
    case Event::Kind::job_failed: return "job_failed";
    case Event::Kind::released: return "released";
    case Event::Kind::survived: return "survived";
    case Event::Kind::ready: return "ready";
    case Event::Kind::not_ready: return "not_ready";
    case Event::Kind::verified: return "verified";
    case Event::Kind::not_verified: return "not_verified";
    case Event::Kind::not_journaled: return "not_journaled";
    case Event::Kind::cancel_requested: return "cancel_requested";
  }
  return "unknown";
}

std::optional<Bytes> held_by_unit(const Snapshot& snapshot, const std::string& unit, const GpuSample& gpu) {
  Bytes held;
  for (const auto& process : gpu.processes) {
    const auto owner = snapshot.unit_of_pid.find(process.pid);
    if (owner == snapshot.unit_of_pid.end() || owner->second != unit) continue;
    if (!process.used) return std::nullopt;
    held += *process.used;
  }
  return held;
}

std::vector<GpuIndex> gpus_used_by(const Snapshot& snapshot, const std::string& unit) {
  std::vector<GpuIndex> used;
  for (const auto& gpu : snapshot.gpus) {
    const bool listed = std::any_of(gpu.processes.begin(), gpu.processes.end(), [&](const GpuProcess& process) {
      const auto owner = snapshot.unit_of_pid.find(process.pid);
      return owner != snapshot.unit_of_pid.end() && owner->second == unit;
    });
    if (listed) used.push_back(gpu.index);
  }
  return used;
}

bool names(const GpuSelector& selector, const GpuSample& gpu) {
  return std::any_of(selector.devices.begin(), selector.devices.end(), [&](const std::string& device) {
    return device == gpu.uuid || device == std::to_string(gpu.index) ||
           std::any_of(gpu.slices.begin(), gpu.slices.end(),
                       [&](const GpuSlice& slice) { return gpu.is_instance() && slice.uuid == device; });
  });
}

std::vector<GpuIndex> gpus_open_to(const Snapshot& snapshot, const Service& service) {
  std::vector<GpuIndex> open;
  for (const auto& gpu : snapshot.gpus)
    if (service.vram != Bytes(0) && (service.gpu.any() ? is_for_anybody(gpu, snapshot.gpus) : names(service.gpu, gpu)))
      open.push_back(gpu.index);
  return open;
}

}  // namespace gpumod
