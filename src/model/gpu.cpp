#include "model/gpu.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

namespace gpumod {

namespace {

constexpr int instances_from = 100;  // no machine has a hundred GPUs, no GPU a hundred instances

/// Devices of one instance share its memory, and each lists only what runs on it.
void add_device(GpuSample& instance, const GpuSlice& device) {
  if (!instance.total || !instance.free) {
    instance.total = device.total;
    instance.reserved = device.reserved;
    instance.free = device.free;
  }
  for (const auto& process : device.processes) {
    const bool listed = std::any_of(instance.processes.begin(), instance.processes.end(),
                                    [&](const GpuProcess& other) { return other.pid == process.pid; });
    if (!listed) instance.processes.push_back(process);
  }
  instance.slices.push_back(device);
}

}  // namespace

std::vector<GpuSample> placeable(std::vector<GpuSample> gpus) {
  std::vector<GpuSample> places;
  for (auto& gpu : gpus) {
    if (gpu.mig != true || gpu.slices.empty()) {
      places.push_back(std::move(gpu));
      continue;
    }
    std::map<int, GpuSample> instances;
    for (const auto& device : gpu.slices) {
      auto& instance = instances[device.gpu_instance];
      if (instance.slices.empty()) {
        instance.index = (gpu.index + 1) * instances_from + device.gpu_instance;
        instance.uuid = device.uuid;
        instance.name = device.name;
        instance.whole = gpu.uuid;
      }
      add_device(instance, device);
    }
    for (auto& [number, instance] : instances)
      places.push_back(std::move(instance));
  }
  return places;
}

bool is_for_anybody(const GpuSample& gpu, const std::vector<GpuSample>& among) {
  if (gpu.mig == true) return false;
  return !gpu.is_instance() || std::none_of(among.begin(), among.end(), [](const GpuSample& other) {
    return other.mig != true && !other.is_instance();
  });
}

const GpuSlice* slice_of(const GpuSample& gpu, pid_t pid) {
  for (const auto& slice : gpu.slices)
    for (const auto& process : slice.processes)
      if (process.pid == pid) return &slice;
  return nullptr;
}

int index_of_whole(const GpuSample& gpu) {
  return gpu.is_instance() ? gpu.index / instances_from - 1 : gpu.index;
}

std::string gpu_in_words(int index) {
  if (index < instances_from) return fmt::format("GPU {}", index);
  return fmt::format("GPU {} instance {}", index / instances_from - 1, index % instances_from);
}

}  // namespace gpumod
