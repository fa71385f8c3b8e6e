// The library's state: how often it was initialised, its line to the broker, its devices and event sets. One mutex;
// real NVML may be called from many threads, too. Waiting for an event is the one call that holds nobody else up.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>

#include <sys/types.h>

#include "sim/nvml/abi.h"
#include "sim/nvml/link.h"
#include "sim/protocol.h"

namespace gpumod::sim::nvml {

/// What a device handle points to; its place in the array is its index.
struct Device {
  char unused = 0;
};

/// Events of the devices that were registered with it, since they were.
struct EventSet {
  struct Interest {
    std::uint64_t types = 0;
    std::uint64_t since = 0;  ///< the number of the last event before
  };
  std::mutex one_waiter;
  Link link;
  std::uint64_t seen = 0;
  std::map<unsigned, Interest> devices;  ///< guarded by the library's mutex
};

class Library {
 public:
  /// `all_must_work`: as the first nvmlInit had it, which failed for all GPUs when one was bad.
  Return initialise(bool all_must_work);
  Return shut_down();

  /// Calls `body(world)` with everything as it is now, or says why not. Once the broker is gone, everything that is
  /// asked of a GPU is answered with "lost" until the library is initialised anew.
  template <typename Body>
  Return with_world(Body body) {
    const std::lock_guard lock(mutex_);
    World world;
    if (const Return problem = look(world); problem != success) return problem;
    return body(world);
  }
  /// Calls `body(world, gpu, index)` for a device that works.
  template <typename Body>
  Return with_gpu(const void* device, Body body) {
    const std::lock_guard lock(mutex_);
    unsigned index = 0;
    if (users_ > 0 && !index_of(device, index)) return invalid_argument;
    World world;
    if (const Return problem = look(world); problem != success) return problem;
    if (index >= world.gpus.size()) return invalid_argument;
    if (world.gpus[index].lost) return gpu_is_lost;
    return body(world, world.gpus[index], index);
  }
  void* handle_of(unsigned index) { return &devices_[index]; }

  Return create_events(void** set);
  Return register_events(const void* device, std::uint64_t types, void* set);
  Return free_events(void* set);
  /// The next event of the set's devices. Errors: timeout; lost when the broker is gone.
  Return wait_for_event(void* set, EventData& data, unsigned timeout_ms);

 private:
  Return look(World& world);
  bool index_of(const void* device, unsigned& index) const;

  std::mutex mutex_;
  int users_ = 0;
  pid_t owner_ = 0;  ///< a forked child has no NVML: the line is its parent's
  bool lost_ = false;
  Link link_;
  std::array<Device, most_gpus> devices_;
  std::map<void*, std::shared_ptr<EventSet>> event_sets_;
};

Library& library();

}  // namespace gpumod::sim::nvml
