// The part of NVML's binary interface that gpumod uses, declared by ourselves: the driver's header is not needed to
// build. Source: the public reference, https://docs.nvidia.com/deploy/nvml-api/ (structures, return codes, function
// names), and for the sizes that changed between drivers what open-source monitors report (see process_stride() in
// nvml_library.cpp).
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpumod::nvml {

/// Return codes. NVML may answer others; every number is legal.
using Return = int;
constexpr Return success = 0;
constexpr Return not_supported = 3;
constexpr Return no_permission = 4;
constexpr Return not_found = 6;
constexpr Return insufficient_size = 7;
constexpr Return driver_not_loaded = 9;
constexpr Return function_not_found = 13;
constexpr Return gpu_is_lost = 15;
constexpr Return reset_required = 16;
constexpr Return library_version_mismatch = 18;
constexpr Return argument_version_mismatch = 25;

using Device = struct DeviceOpaque*;

struct Memory {
  std::uint64_t total;
  std::uint64_t free;
  std::uint64_t used;
};
static_assert(sizeof(Memory) == 24);

struct MemoryV2 {
  std::uint32_t version;
  std::uint64_t total;
  std::uint64_t reserved;
  std::uint64_t free;
  std::uint64_t used;
};
static_assert(sizeof(MemoryV2) == 40 && offsetof(MemoryV2, total) == 8 && offsetof(MemoryV2, free) == 24);
/// A versioned structure says its size and version in its first word.
constexpr std::uint32_t memory_v2_version = sizeof(MemoryV2) | (2u << 24);
static_assert(memory_v2_version == 0x02000028);

/// The head that every version of a process record begins with: the oldest one, whole.
struct ProcessHead {
  std::uint32_t pid;
  std::uint64_t used;
};
static_assert(sizeof(ProcessHead) == 16 && offsetof(ProcessHead, used) == 8);
/// The longest record that any driver ever wrote.
constexpr std::size_t largest_process_record = 32;
/// "Not available", as memory used by a process.
constexpr std::uint64_t not_available = ~std::uint64_t{0};

constexpr unsigned driver_version_size = 80;
constexpr unsigned device_text_size = 96;  ///< of names and UUIDs

using Init = Return (*)();
using Shutdown = Return (*)();
using ErrorString = const char* (*)(Return);
using SystemText = Return (*)(char* text, unsigned size);
using DeviceCount = Return (*)(unsigned* count);
using DeviceByIndex = Return (*)(unsigned index, Device* device);
using DeviceText = Return (*)(Device device, char* text, unsigned size);
using MemoryInfo = Return (*)(Device device, Memory* memory);
using MemoryInfoV2 = Return (*)(Device device, MemoryV2* memory);
/// 0 or 1; of MIG: what is in force, and what will be after a reset.
using PersistenceMode = Return (*)(Device device, unsigned* mode);
using MigMode = Return (*)(Device device, unsigned* current, unsigned* pending);
/// How many MIG devices there could be. Not all of the indices below it have one: the others answer not_found.
using MigDeviceCount = Return (*)(Device device, unsigned* count);
using MigDeviceByIndex = Return (*)(Device device, unsigned index, Device* mig_device);
using InstanceId = Return (*)(Device mig_device, unsigned* id);
/// `count`: records that fit, then records written, or needed with insufficient_size.
using RunningProcesses = Return (*)(Device device, unsigned* count, void* records);

}  // namespace gpumod::nvml
