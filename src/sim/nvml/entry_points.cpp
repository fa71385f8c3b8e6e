// libgpumod-sim-nvml.so: the functions of libnvidia-ml.so.1 by their real names, answered by the broker of the
// simulated GPU. Whoever speaks NVML can be pointed at it: gpumod through GPUMOD_NVML_LIBRARY, others by a link of the
// real name.
//
// Names end in _v2 and _v3 where the driver's do, and the older ones keep their older structures. Built with
// GPUMOD_SIM_NVML_OLD only the unversioned names are there, as in a driver of long ago.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "sim/nvml/library.h"

namespace gpumod::sim::nvml {

namespace {

using Handle = void*;

constexpr unsigned most_slices = 7;

Return give_text(const std::string& text, char* buffer, unsigned size) {
  if (!buffer) return invalid_argument;
  if (text.size() + 1 > size) return insufficient_size;
  std::memcpy(buffer, text.c_str(), text.size() + 1);
  return success;
}

template <typename Value>
Return give(Handle device, Value* to, Value value) {
  return library().with_gpu(device, [&](const World&, const Gpu&, unsigned) {
    if (!to) return invalid_argument;
    *to = value;
    return success;
  });
}

bool is_busy(const World& world, unsigned gpu) {
  return std::any_of(world.processes.begin(), world.processes.end(),
                     [&](const Process& process) { return process.gpu == gpu && process.list == "compute"; });
}

/// A figure that a GPU at work has and an idle one has not: nobody measures it here, but the displays want one.
Return give_by_load(Handle device, unsigned* to, unsigned idle, unsigned busy) {
  return library().with_gpu(device, [&](const World& world, const Gpu&, unsigned index) {
    if (!to) return invalid_argument;
    *to = is_busy(world, index) ? busy : idle;
    return success;
  });
}

Return count(unsigned* number) {
  return library().with_world([&](const World& world) {
    if (!number) return invalid_argument;
    *number = static_cast<unsigned>(
        std::count_if(world.gpus.begin(), world.gpus.end(), [](const Gpu& gpu) { return gpu.parent < 0; }));
    return success;
  });
}

/// The device for which `is_meant(gpu, index)` holds.
template <typename Meant>
Return find(Handle* device, Return none, Meant is_meant) {
  return library().with_world([&](const World& world) {
    if (!device) return invalid_argument;
    for (unsigned index = 0; index < world.gpus.size(); ++index) {
      if (!is_meant(world.gpus[index], index)) continue;
      if (world.gpus[index].lost) return gpu_is_lost;
      *device = library().handle_of(index);
      return success;
    }
    return none;
  });
}

Return by_index(unsigned wanted, Handle* device) {
  return find(device, invalid_argument,
              [&](const Gpu& gpu, unsigned index) { return index == wanted && gpu.parent < 0; });
}

/// Whether `gpu` is `index` itself or one of its MIG devices.
bool is_part_of(const World& world, unsigned gpu, unsigned index) {
  return gpu == index || (gpu < world.gpus.size() && world.gpus[gpu].parent == static_cast<int>(index));
}

bool has_slices(const World& world, unsigned index) {
  return std::any_of(world.gpus.begin(), world.gpus.end(),
                     [&](const Gpu& gpu) { return gpu.parent == static_cast<int>(index); });
}

bool may_not_ask(const World& world, unsigned index) {
  return world.has("mig-unprivileged") && has_slices(world, index);
}

std::string bus_id_of(unsigned index) {
  char text[32];
  std::snprintf(text, sizeof text, "%08X:%02X:00.0", 0u, index + 1);
  return text;
}

Return by_bus(const char* bus, Handle* device) {
  if (!bus) return invalid_argument;
  const std::string wanted = bus;
  return find(device, not_found, [&](const Gpu&, unsigned index) {
    const std::string id = bus_id_of(index);
    return wanted == id || wanted == id.substr(4);  // the domain has eight digits, or four
  });
}

template <typename Info>
Return pci_info(Handle device, Info* info) {
  return library().with_gpu(device, [&](const World&, const Gpu&, unsigned index) {
    if (!info) return invalid_argument;
    *info = {};
    info->bus = index + 1;
    info->device_id = 0x268410DE;
    const std::string id = bus_id_of(index);
    std::snprintf(info->bus_id, sizeof info->bus_id, "%s", (sizeof info->bus_id == 16 ? id.substr(4) : id).c_str());
    if constexpr (requires { info->legacy_bus_id; })
      std::snprintf(info->legacy_bus_id, sizeof info->legacy_bus_id, "%s", id.substr(4).c_str());
    if constexpr (requires { info->subsystem_id; }) info->subsystem_id = 0x165B1043;
    return success;
  });
}

/// `fill(gpu)` when the device tells about its memory.
template <typename Fill>
Return memory_info(Handle device, Fill fill) {
  return library().with_gpu(device, [&](const World& world, const Gpu& gpu, unsigned index) {
    if (world.has("no-memory-info")) return not_supported;
    if (may_not_ask(world, index)) return no_permission;
    Gpu whole = gpu;
    for (const Gpu& slice : world.gpus) {
      if (slice.parent != static_cast<int>(index)) continue;
      whole.used += slice.used;
      whole.free -= std::min(whole.free, slice.used);
    }
    return fill(whole);
  });
}

Return processes(Handle device, const char* list, unsigned* number, void* records, std::size_t record_size) {
  return library().with_gpu(device, [&](const World& world, const Gpu&, unsigned index) {
    if (!number) return invalid_argument;
    if (may_not_ask(world, index)) return no_permission;
    const bool none = world.has("missing-process-list");
    if (const auto code = world.number("missing-process-list", success); none && code != success)
      return static_cast<Return>(code);
    std::vector<ProcessInfo535> found;
    for (const Process& process : world.processes) {
      if (none || !is_part_of(world, process.gpu, index) || process.list != list) continue;
      const auto pid = static_cast<std::uint32_t>(process.pid + world.number("host-pids", 0));
      const Gpu& where = world.gpus[process.gpu];
      const std::uint32_t instance = where.parent < 0 ? no_instance : where.instance;
      const std::uint32_t compute = where.parent < 0 ? no_instance : 0;
      found.push_back({pid, world.has("na-memory") ? not_available : process.used, instance, compute, 0});
    }
    const unsigned room = *number;
    *number = static_cast<unsigned>(found.size());
    if (room < found.size()) return insufficient_size;
    if (!found.empty() && !records) return invalid_argument;
    // The newest record begins with every older one.
    if (record_size == 0) record_size = static_cast<std::size_t>(world.number("process-record", sizeof(ProcessInfo)));
    for (std::size_t i = 0; i < found.size(); ++i)
      std::memcpy(static_cast<unsigned char*>(records) + i * record_size, &found[i], record_size);
    return success;
  });
}

Return process_name(unsigned pid, char* name, unsigned size) {
  return library().with_world([&](const World& world) {
    if (!name || size == 0) return invalid_argument;
    for (const Process& process : world.processes) {
      if (process.pid + world.number("host-pids", 0) != pid) continue;
      std::snprintf(name, size, "%s", process.command.c_str());
      return success;
    }
    return not_found;
  });
}

}  // namespace

#define ENTRY __attribute__((visibility("default"))) Return

extern "C" {

ENTRY nvmlInit() {
  return library().initialise(true);
}
ENTRY nvmlShutdown() {
  return library().shut_down();
}
__attribute__((visibility("default"))) const char* nvmlErrorString(int code) {
  return words_for(code);
}

ENTRY nvmlSystemGetDriverVersion(char* text, unsigned size) {
  return library().with_world([&](const World& world) { return give_text(world.driver, text, size); });
}
ENTRY nvmlSystemGetNVMLVersion(char* text, unsigned size) {
  return library().with_world([&](const World& world) { return give_text("13." + world.driver, text, size); });
}
ENTRY nvmlSystemGetCudaDriverVersion(int* version) {
  return library().with_world([&](const World&) {
    if (!version) return invalid_argument;
    *version = 13000;
    return success;
  });
}
ENTRY nvmlSystemGetProcessName(unsigned pid, char* name, unsigned size) {
  return process_name(pid, name, size);
}

ENTRY nvmlDeviceGetCount(unsigned* number) {
  return count(number);
}
ENTRY nvmlDeviceGetHandleByIndex(unsigned index, Handle* device) {
  return by_index(index, device);
}
ENTRY nvmlDeviceGetHandleByPciBusId(const char* bus, Handle* device) {
  return by_bus(bus, device);
}
ENTRY nvmlDeviceGetHandleByUUID(const char* uuid, Handle* device) {
  if (!uuid) return invalid_argument;
  return find(device, not_found, [&](const Gpu& gpu, unsigned) { return gpu.uuid == uuid; });
}
ENTRY nvmlDeviceGetIndex(Handle device, unsigned* index) {
  return library().with_gpu(device, [&](const World&, const Gpu&, unsigned found) {
    if (!index) return invalid_argument;
    *index = found;
    return success;
  });
}
ENTRY nvmlDeviceGetName(Handle device, char* text, unsigned size) {
  return library().with_gpu(device,
                            [&](const World&, const Gpu& gpu, unsigned) { return give_text(gpu.name, text, size); });
}
ENTRY nvmlDeviceGetUUID(Handle device, char* text, unsigned size) {
  return library().with_gpu(device,
                            [&](const World&, const Gpu& gpu, unsigned) { return give_text(gpu.uuid, text, size); });
}
ENTRY nvmlDeviceGetPciInfo(Handle device, PciInfoV1* info) {
  return pci_info(device, info);
}
ENTRY nvmlDeviceGetMemoryInfo(Handle device, Memory* info) {
  return memory_info(device, [&](const Gpu& gpu) {
    if (!info) return invalid_argument;
    *info = {gpu.total, gpu.free, gpu.used + gpu.reserved};
    return success;
  });
}
ENTRY nvmlDeviceGetUtilizationRates(Handle device, Utilization* rates) {
  return library().with_gpu(device, [&](const World& world, const Gpu& gpu, unsigned index) {
    if (!rates) return invalid_argument;
    const bool busy = is_busy(world, index);
    *rates = {busy ? 40u : 0u, busy ? static_cast<std::uint32_t>(gpu.used * 50 / gpu.total) : 0u};
    return success;
  });
}
ENTRY nvmlDeviceGetTemperature(Handle device, int sensor, unsigned* celsius) {
  if (sensor != 0) return invalid_argument;
  return give_by_load(device, celsius, 38, 61);
}
ENTRY nvmlDeviceGetPowerUsage(Handle device, unsigned* milliwatts) {
  return give_by_load(device, milliwatts, 21000, 180000);
}
ENTRY nvmlDeviceGetEnforcedPowerLimit(Handle device, unsigned* milliwatts) {
  return give(device, milliwatts, 450000u);
}
ENTRY nvmlDeviceGetPowerManagementLimit(Handle device, unsigned* milliwatts) {
  return give(device, milliwatts, 450000u);
}
ENTRY nvmlDeviceGetClockInfo(Handle device, int clock, unsigned* mhz) {
  if (clock < 0 || clock > 3) return invalid_argument;  // graphics, streaming multiprocessors, memory, video
  return clock == 2 ? give_by_load(device, mhz, 405, 10501) : give_by_load(device, mhz, 210, 2520);
}
ENTRY nvmlDeviceGetCurrPcieLinkGeneration(Handle device, unsigned* generation) {
  return give_by_load(device, generation, 1, 4);
}
ENTRY nvmlDeviceGetCurrPcieLinkWidth(Handle device, unsigned* width) {
  return give(device, width, 16u);
}
ENTRY nvmlDeviceGetPersistenceMode(Handle device, unsigned* on) {
  return give(device, on, 1u);
}
ENTRY nvmlDeviceGetMigMode(Handle device, unsigned* current, unsigned* pending) {
  return library().with_gpu(device, [&](const World& world, const Gpu&, unsigned index) {
    if (!has_slices(world, index)) return not_supported;  // as a card for the desk answers: it has none
    if (!current || !pending) return invalid_argument;
    *current = *pending = 1;
    return success;
  });
}

ENTRY nvmlDeviceGetComputeRunningProcesses(Handle device, unsigned* number, void* records) {
  return processes(device, "compute", number, records, sizeof(ProcessInfoV1));
}
ENTRY nvmlDeviceGetGraphicsRunningProcesses(Handle device, unsigned* number, void* records) {
  return processes(device, "graphics", number, records, sizeof(ProcessInfoV1));
}
ENTRY nvmlDeviceGetMPSComputeRunningProcesses(Handle device, unsigned* number, void* records) {
  return processes(device, "mps", number, records, sizeof(ProcessInfoV1));
}

ENTRY nvmlEventSetCreate(Handle* set) {
  return library().create_events(set);
}
ENTRY nvmlEventSetFree(Handle set) {
  return library().free_events(set);
}
ENTRY nvmlDeviceRegisterEvents(Handle device, unsigned long long types, Handle set) {
  return library().register_events(device, types, set);
}
ENTRY nvmlDeviceGetSupportedEventTypes(Handle device, unsigned long long* types) {
  return give(device, types, static_cast<unsigned long long>(supported_events));
}
ENTRY nvmlEventSetWait(Handle set, EventDataV1* data, unsigned timeout_ms) {
  if (!data) return invalid_argument;
  EventData found{};
  const Return code = library().wait_for_event(set, found, timeout_ms);
  if (code == success) *data = {found.device, found.type, found.data};
  return code;
}

#ifndef GPUMOD_SIM_NVML_OLD

ENTRY nvmlDeviceGetMaxMigDeviceCount(Handle device, unsigned* number) {
  return library().with_gpu(device, [&](const World& world, const Gpu&, unsigned index) {
    if (!number) return invalid_argument;
    *number = has_slices(world, index) ? most_slices : 0;
    return success;
  });
}
/// Of seven possible devices the first is missing here: who stops at the first gap finds none.
ENTRY nvmlDeviceGetMigDeviceHandleByIndex(Handle device, unsigned wanted, Handle* slice) {
  return library().with_gpu(device, [&](const World& world, const Gpu&, unsigned index) {
    if (!slice || wanted >= most_slices) return invalid_argument;
    unsigned number = 0;
    for (unsigned other = 0; other < world.gpus.size(); ++other) {
      if (world.gpus[other].parent != static_cast<int>(index) || ++number != wanted) continue;
      *slice = library().handle_of(other);
      return success;
    }
    return not_found;
  });
}
ENTRY nvmlDeviceGetGpuInstanceId(Handle device, unsigned* id) {
  return library().with_gpu(device, [&](const World&, const Gpu& gpu, unsigned) {
    if (!id) return invalid_argument;
    if (gpu.parent < 0) return not_supported;
    *id = gpu.instance;
    return success;
  });
}
ENTRY nvmlDeviceGetComputeInstanceId(Handle device, unsigned* id) {
  return library().with_gpu(device, [&](const World&, const Gpu& gpu, unsigned) {
    if (!id) return invalid_argument;
    if (gpu.parent < 0) return not_supported;
    *id = 0;
    return success;
  });
}

ENTRY nvmlInit_v2() {
  return library().initialise(false);
}
ENTRY nvmlInitWithFlags(unsigned) {
  return library().initialise(false);
}
ENTRY nvmlSystemGetCudaDriverVersion_v2(int* version) {
  return nvmlSystemGetCudaDriverVersion(version);
}
ENTRY nvmlDeviceGetCount_v2(unsigned* number) {
  return count(number);
}
ENTRY nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle* device) {
  return by_index(index, device);
}
ENTRY nvmlDeviceGetHandleByPciBusId_v2(const char* bus, Handle* device) {
  return by_bus(bus, device);
}
ENTRY nvmlDeviceGetPciInfo_v2(Handle device, PciInfoV2* info) {
  return pci_info(device, info);
}
ENTRY nvmlDeviceGetPciInfo_v3(Handle device, PciInfo* info) {
  return pci_info(device, info);
}
ENTRY nvmlDeviceGetMemoryInfo_v2(Handle device, MemoryV2* info) {
  return memory_info(device, [&](const Gpu& gpu) {
    if (!info) return invalid_argument;
    if (info->version != version_word<MemoryV2>(2)) return argument_version_mismatch;
    *info = {info->version, gpu.total, gpu.reserved, gpu.free, gpu.used};
    return success;
  });
}
ENTRY nvmlDeviceGetTemperatureV(Handle device, TemperatureV1* temperature) {
  if (temperature && temperature->version != version_word<TemperatureV1>(1)) return argument_version_mismatch;
  if (!temperature || temperature->sensor != 0) return invalid_argument;
  unsigned celsius = 0;
  const Return code = give_by_load(device, &celsius, 38, 61);
  if (code == success) temperature->temperature = static_cast<std::int32_t>(celsius);
  return code;
}
ENTRY nvmlDeviceGetComputeRunningProcesses_v2(Handle device, unsigned* number, void* records) {
  return processes(device, "compute", number, records, sizeof(ProcessInfo));
}
ENTRY nvmlDeviceGetGraphicsRunningProcesses_v2(Handle device, unsigned* number, void* records) {
  return processes(device, "graphics", number, records, sizeof(ProcessInfo));
}
ENTRY nvmlDeviceGetMPSComputeRunningProcesses_v2(Handle device, unsigned* number, void* records) {
  return processes(device, "mps", number, records, sizeof(ProcessInfo));
}
ENTRY nvmlDeviceGetComputeRunningProcesses_v3(Handle device, unsigned* number, void* records) {
  return processes(device, "compute", number, records, 0);
}
ENTRY nvmlDeviceGetGraphicsRunningProcesses_v3(Handle device, unsigned* number, void* records) {
  return processes(device, "graphics", number, records, 0);
}
ENTRY nvmlDeviceGetMPSComputeRunningProcesses_v3(Handle device, unsigned* number, void* records) {
  return processes(device, "mps", number, records, 0);
}
ENTRY nvmlEventSetWait_v2(Handle set, EventData* data, unsigned timeout_ms) {
  if (!data) return invalid_argument;
  EventData found{};
  const Return code = library().wait_for_event(set, found, timeout_ms);
  if (code == success) *data = found;
  return code;
}

#endif

}  // extern "C"

}  // namespace gpumod::sim::nvml
