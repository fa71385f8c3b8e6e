#include "sim/nvml/library.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <sstream>
#include <thread>

#include <unistd.h>

namespace gpumod::sim::nvml {

Library& library() {
  static Library only;
  return only;
}

Return Library::initialise(bool all_must_work) {
  const std::lock_guard lock(mutex_);
  if (users_ > 0 && owner_ == ::getpid()) {
    ++users_;
    return success;
  }
  if (!link_.open()) return driver_not_loaded;
  World world;
  if (!link_.look(world)) return driver_not_loaded;
  const bool one_is_bad = std::any_of(world.gpus.begin(), world.gpus.end(), [](const Gpu& gpu) { return gpu.lost; });
  if (all_must_work && one_is_bad) {
    link_.close();
    return gpu_is_lost;
  }
  users_ = 1;
  owner_ = ::getpid();
  lost_ = false;
  return success;
}

Return Library::shut_down() {
  const std::lock_guard lock(mutex_);
  if (users_ == 0) return uninitialized;
  if (--users_ > 0) return success;
  link_.close();
  event_sets_.clear();
  return success;
}

/// Needs the mutex. Takes as long as the fault `slow` says, as a busy driver does: with everybody else waiting.
Return Library::look(World& world) {
  if (users_ == 0 || owner_ != ::getpid()) return uninitialized;
  if (lost_ || !link_.look(world)) {
    lost_ = true;
    return gpu_is_lost;
  }
  // A driver that takes its time over each question is what is simulated here.
  if (world.has("slow")) std::this_thread::sleep_for(std::chrono::nanoseconds(world.number("slow", 0)));
  return success;
}

bool Library::index_of(const void* device, unsigned& index) const {
  const auto* found = static_cast<const Device*>(device);
  const std::less<> before;
  if (before(found, devices_.data()) || !before(found, devices_.data() + devices_.size())) return false;
  index = static_cast<unsigned>(found - devices_.data());
  return true;
}

Return Library::create_events(void** set) {
  const std::lock_guard lock(mutex_);
  if (users_ == 0) return uninitialized;
  if (!set) return invalid_argument;
  const auto made = std::make_shared<EventSet>();
  if (lost_ || !made->link.open()) return gpu_is_lost;
  event_sets_[made.get()] = made;
  *set = made.get();
  return success;
}

Return Library::register_events(const void* device, std::uint64_t types, void* set) {
  return with_gpu(device, [&](const World&, const Gpu&, unsigned index) {
    const auto found = event_sets_.find(set);
    if (found == event_sets_.end()) return invalid_argument;
    if (types & ~supported_events) return not_supported;
    std::string answer;
    if (!link_.ask("position", answer)) return gpu_is_lost;
    std::istringstream words(answer);
    std::string ok;
    EventSet::Interest interest{types, 0};
    words >> ok >> interest.since;
    const auto known = found->second->devices.find(index);
    if (known == found->second->devices.end())
      found->second->devices[index] = interest;
    else
      known->second.types |= types;
    return success;
  });
}

Return Library::free_events(void* set) {
  const std::lock_guard lock(mutex_);
  if (users_ == 0) return uninitialized;
  return event_sets_.erase(set) > 0 ? success : invalid_argument;
}

Return Library::wait_for_event(void* set, EventData& data, unsigned timeout_ms) {
  std::shared_ptr<EventSet> events;
  {
    const std::lock_guard lock(mutex_);
    if (users_ == 0) return uninitialized;
    const auto found = event_sets_.find(set);
    if (found == event_sets_.end()) return invalid_argument;
    events = found->second;
  }
  const std::lock_guard only(events->one_waiter);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    std::ostringstream request;
    request << "next " << events->seen << ' ' << std::max<long long>(left, 0);
    std::string answer;
    if (!events->link.ask(request.str(), answer)) return gpu_is_lost;
    std::istringstream words(answer);
    std::string ok;
    std::uint64_t number = 0;
    unsigned index = 0;
    words >> ok >> number >> index >> data.type >> data.data;
    if (ok != "ok") {
      // The broker knows no longer wait than a day; "for ever" is some of those.
      if (std::chrono::steady_clock::now() >= deadline) return timeout;
      continue;
    }
    events->seen = number;
    const std::lock_guard lock(mutex_);
    const auto interest = events->devices.find(index);
    if (interest == events->devices.end() || number <= interest->second.since || !(data.type & interest->second.types))
      continue;
    data.device = handle_of(index);
    data.gpu_instance = no_instance;
    data.compute_instance = no_instance;
    return success;
  }
}

}  // namespace gpumod::sim::nvml
