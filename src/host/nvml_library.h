// libnvidia-ml as an object: loaded, initialised, its functions found under whichever of their names the driver has,
// and shut down with the last owner. Every call may block for long, and must not run beside another of the same
// library.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "host/nvml_abi.h"
#include "model/gpu.h"

namespace gpumod::nvml {

/// How far apart the records of a process list are: 16, 24 or 32 bytes.
///
/// The functions do not say which they wrote. The unversioned one has always written 16 bytes. `_v3` wrote 24 with
/// drivers 510 to 530, 32 with 535.43.02 to 535.86.05, and 24 since. So the buffer has room for the longest, is filled
/// with `sentinel` before the call, and what was overwritten tells. Gives 0 when that is no multiple of a known size.
constexpr unsigned char sentinel = 0xA5;
std::size_t process_stride(const std::vector<unsigned char>& buffer, std::size_t count);

class Library {
 public:
  /// Loads and initialises. Errors: environment, with the step that failed and what to do.
  static Result<std::shared_ptr<Library>> open(const std::string& file);
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  const std::string& driver_version() const { return driver_version_; }
  /// Errors: environment, when a GPU is lost. A GPU that answers part of the questions is listed with what it answers.
  Result<std::vector<GpuSample>> sample();
  GpuInventory inventory();

 private:
  struct Gpu {
    Device device = nullptr;
    GpuSample identity;
  };

  Library() = default;
  Result<void> load(const std::string& file);
  Result<void> initialise();
  Result<void> find_gpus();
  std::string explain(Return code) const;
  Error lost(const Gpu& gpu, Return code) const;
  Return read_memory(Device device, GpuMemory& memory) const;
  Return read_processes(RunningProcesses list, Device device, std::vector<GpuProcess>& processes) const;
  std::optional<bool> read_mig_mode(Device device) const;
  Return read_slices(Device device, std::vector<GpuSlice>& slices) const;
  Return read_slice(Device device, GpuSlice& slice) const;

  void* handle_ = nullptr;
  std::string file_;
  bool initialised_ = false;
  std::string driver_version_;
  std::vector<Gpu> gpus_;
  std::vector<GpuInventory::Missing> missing_;

  Init init_ = nullptr;
  Shutdown shutdown_ = nullptr;
  ErrorString error_string_ = nullptr;
  SystemText system_driver_version_ = nullptr;
  DeviceCount device_count_ = nullptr;
  DeviceByIndex device_by_index_ = nullptr;
  DeviceText device_uuid_ = nullptr;
  DeviceText device_name_ = nullptr;
  MemoryInfo memory_info_ = nullptr;
  MemoryInfoV2 memory_info_v2_ = nullptr;
  RunningProcesses compute_processes_ = nullptr;
  RunningProcesses graphics_processes_ = nullptr;
  RunningProcesses mps_processes_ = nullptr;
  PersistenceMode persistence_mode_ = nullptr;
  MigMode mig_mode_ = nullptr;
  MigDeviceCount mig_device_count_ = nullptr;
  MigDeviceByIndex mig_device_by_index_ = nullptr;
  InstanceId gpu_instance_id_ = nullptr;
  InstanceId compute_instance_id_ = nullptr;
};

}  // namespace gpumod::nvml
