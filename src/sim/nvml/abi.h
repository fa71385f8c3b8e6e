// NVML's binary interface as a library has to offer it: return codes, structures, their sizes. Source: the public
// reference, https://docs.nvidia.com/deploy/nvml-api/.
//
// What gpumod itself uses of it is declared in host/nvml_abi.h. It stands here a second time on purpose: a mistake in
// one of the two shows up when gpumod's tests talk to this library, and one file for both would be wrong in both.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpumod::sim::nvml {

enum Return : int {
  success = 0,
  uninitialized = 1,
  invalid_argument = 2,
  not_supported = 3,
  no_permission = 4,
  already_initialized = 5,
  not_found = 6,
  insufficient_size = 7,
  insufficient_power = 8,
  driver_not_loaded = 9,
  timeout = 10,
  irq_issue = 11,
  library_not_found = 12,
  function_not_found = 13,
  corrupted_inforom = 14,
  gpu_is_lost = 15,
  reset_required = 16,
  operating_system = 17,
  library_version_mismatch = 18,
  in_use = 19,
  memory = 20,
  no_data = 21,
  argument_version_mismatch = 25,
  unknown = 999,
};

constexpr std::uint64_t not_available = ~std::uint64_t{0};
constexpr std::uint32_t no_instance = ~std::uint32_t{0};  ///< of MIG

struct Memory {
  std::uint64_t total, free, used;
};
struct MemoryV2 {
  std::uint32_t version;
  std::uint64_t total, reserved, free, used;
};
struct Utilization {
  std::uint32_t gpu, memory;  ///< percent
};
struct TemperatureV1 {
  std::uint32_t version;
  std::uint32_t sensor;
  std::int32_t temperature;
};
struct PciInfo {
  char legacy_bus_id[16];
  std::uint32_t domain, bus, device;
  std::uint32_t device_id, subsystem_id;
  char bus_id[32];
};
struct PciInfoV2 {
  char bus_id[16];
  std::uint32_t domain, bus, device;
  std::uint32_t device_id, subsystem_id;
  std::uint32_t reserved[4];
};
struct PciInfoV1 {
  char bus_id[16];
  std::uint32_t domain, bus, device;
  std::uint32_t device_id;
};
struct ProcessInfoV1 {
  std::uint32_t pid;
  std::uint64_t used;
};
struct ProcessInfo {  ///< what _v2 writes, and _v3 with most drivers
  std::uint32_t pid;
  std::uint64_t used;
  std::uint32_t gpu_instance, compute_instance;
};
struct ProcessInfo535 {  ///< what _v3 wrote from 535.43.02 to 535.86.05
  std::uint32_t pid;
  std::uint64_t used;
  std::uint32_t gpu_instance, compute_instance;
  std::uint64_t protected_memory;
};
struct EventDataV1 {
  void* device;
  std::uint64_t type, data;
};
struct EventData {
  void* device;
  std::uint64_t type, data;
  std::uint32_t gpu_instance, compute_instance;
};

static_assert(sizeof(Memory) == 24 && sizeof(MemoryV2) == 40 && sizeof(PciInfo) == 68 && sizeof(EventData) == 32);
static_assert(sizeof(ProcessInfoV1) == 16 && sizeof(ProcessInfo) == 24 && sizeof(ProcessInfo535) == 32);
static_assert(sizeof(TemperatureV1) == 12 && sizeof(Utilization) == 8 && sizeof(EventDataV1) == 24);
static_assert(sizeof(PciInfoV2) == 52 && sizeof(PciInfoV1) == 32);

/// The first word of a structure that says which version it is.
template <typename Structure>
constexpr std::uint32_t version_word(unsigned version) {
  return static_cast<std::uint32_t>(sizeof(Structure)) | version << 24;
}
static_assert(version_word<MemoryV2>(2) == 0x02000028);

constexpr std::uint64_t critical_error_event = 0x8;
constexpr std::uint64_t unavailable_event = 0x4000;
constexpr std::uint64_t recovery_action_event = 0x8000;
constexpr std::uint64_t supported_events = critical_error_event | unavailable_event | recovery_action_event;

inline const char* words_for(int code) {
  switch (code) {
    case success: return "Success";
    case uninitialized: return "Uninitialized";
    case invalid_argument: return "Invalid Argument";
    case not_supported: return "Not Supported";
    case no_permission: return "Insufficient Permissions";
    case already_initialized: return "Already Initialized";
    case not_found: return "Not Found";
    case insufficient_size: return "Insufficient Size";
    case insufficient_power: return "Insufficient External Power";
    case driver_not_loaded: return "Driver Not Loaded";
    case timeout: return "Timeout";
    case irq_issue: return "Interrupt Request Issue";
    case library_not_found: return "NVML Shared Library Not Found";
    case function_not_found: return "Function Not Found";
    case corrupted_inforom: return "Corrupted infoROM";
    case gpu_is_lost: return "GPU is lost";
    case reset_required: return "GPU requires restart";
    case operating_system: return "The operating system has blocked the request.";
    case library_version_mismatch: return "Driver/library version mismatch";
    case in_use: return "In use by another client";
    case memory: return "Insufficient Memory";
    case no_data: return "No data";
    case argument_version_mismatch: return "Argument version mismatch";
    default: return "Unknown Error";
  }
}

}  // namespace gpumod::sim::nvml
