#include "host/nvml_library.h"

#include <algorithm>
#include <cstring>

#include <boost/json/object.hpp>
#include <dlfcn.h>

#include "base/log.h"
#include "base/paths.h"

namespace gpumod::nvml {

namespace {

/// The first of these names that the library has: newest first, the unversioned one is the oldest interface.
template <typename Function>
void find(void* handle, Function& function, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (void* symbol = ::dlsym(handle, name)) {
      function = reinterpret_cast<Function>(symbol);
      return;
    }
  }
}

std::string hint_for(Return code) {
  switch (code) {
    case driver_not_loaded:
      return "The nvidia kernel module is not loaded: try `modprobe nvidia` as root, and see `dmesg` if that fails.";
    case library_version_mismatch:
      return "The driver was updated while the old kernel module is still loaded: reboot the machine.";
    case no_permission:
      return "This user may not open /dev/nvidiactl and /dev/nvidia0: check their permissions and groups with `ls -l`; "
             "in a "
             "container, pass the GPUs in (`--gpus all`).";
    default:
      return "See what `nvidia-smi` says; if it fails in the same way, the driver needs attention (`dmesg | grep "
             "NVRM`).";
  }
}

bool is_lost(Return code) {
  return code == gpu_is_lost || code == reset_required;
}

/// Adds to the list; a process that is there already (in another of NVML's lists) keeps the larger figure.
void merge(std::vector<GpuProcess>& processes, const GpuProcess& found) {
  const auto known =
      std::find_if(processes.begin(), processes.end(), [&](const GpuProcess& other) { return other.pid == found.pid; });
  if (known == processes.end())
    processes.push_back(found);
  else
    known->used = std::max(known->used, found.used);  // an empty optional is less than any figure
}

}  // namespace

std::size_t process_stride(const std::vector<unsigned char>& buffer, std::size_t count) {
  const auto last = std::find_if(buffer.rbegin(), buffer.rend(), [](unsigned char byte) { return byte != sentinel; });
  const auto written = static_cast<std::size_t>(buffer.rend() - last);
  for (const std::size_t stride : {std::size_t{16}, std::size_t{24}, std::size_t{32}})
    if (written <= count * stride) return stride;
  return 0;
}

Result<std::shared_ptr<Library>> Library::open(const std::string& file) {
  const std::shared_ptr<Library> library(new Library());
  TRY(library->load(file));
  TRY(library->initialise());
  TRY(library->find_gpus());
  return library;
}

Library::~Library() {
  if (initialised_) shutdown_();
  if (handle_) ::dlclose(handle_);
}

Result<void> Library::load(const std::string& file) {
  file_ = file;
  handle_ = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle_) {
    const char* reason = ::dlerror();
    return fail(ErrorCode::environment,
                fmt::format("cannot load the NVIDIA management library: {}", reason ? reason : file),
                environment_variable("GPUMOD_NVML_LIBRARY").empty()
                    ? "Install the NVIDIA driver. Services that use no GPU work without it."
                    : "GPUMOD_NVML_LIBRARY names it: correct or unset that variable.");
  }
  find(handle_, init_, {"nvmlInit_v2", "nvmlInit"});
  find(handle_, shutdown_, {"nvmlShutdown"});
  find(handle_, error_string_, {"nvmlErrorString"});
  find(handle_, system_driver_version_, {"nvmlSystemGetDriverVersion"});
  find(handle_, device_count_, {"nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"});
  find(handle_, device_by_index_, {"nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex"});
  find(handle_, device_uuid_, {"nvmlDeviceGetUUID"});
  find(handle_, device_name_, {"nvmlDeviceGetName"});
  find(handle_, memory_info_, {"nvmlDeviceGetMemoryInfo"});
  find(handle_, memory_info_v2_, {"nvmlDeviceGetMemoryInfo_v2"});
  find(handle_, compute_processes_,
       {"nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2",
        "nvmlDeviceGetComputeRunningProcesses"});
  find(handle_, graphics_processes_,
       {"nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2",
        "nvmlDeviceGetGraphicsRunningProcesses"});
  find(handle_, mps_processes_,
       {"nvmlDeviceGetMPSComputeRunningProcesses_v3", "nvmlDeviceGetMPSComputeRunningProcesses_v2",
        "nvmlDeviceGetMPSComputeRunningProcesses"});
  const std::pair<bool, const char*> needed[] = {
      {init_, "nvmlInit_v2"},
      {shutdown_, "nvmlShutdown"},
      {device_count_, "nvmlDeviceGetCount_v2"},
      {device_by_index_, "nvmlDeviceGetHandleByIndex_v2"},
      {device_uuid_, "nvmlDeviceGetUUID"},
      {memory_info_ || memory_info_v2_, "nvmlDeviceGetMemoryInfo"},
      {compute_processes_, "nvmlDeviceGetComputeRunningProcesses"},
  };
  for (const auto& [found, name] : needed)
    if (!found)
      return fail(ErrorCode::environment,
                  fmt::format("{} has no function {}: it is not NVIDIA's management library", file, name),
                  "Check GPUMOD_NVML_LIBRARY and the installation of the NVIDIA driver.");
  return {};
}

std::string Library::explain(Return code) const {
  const char* words = error_string_ ? error_string_(code) : nullptr;
  return words ? fmt::format("{} (NVML error {})", words, code) : fmt::format("NVML error {}", code);
}

Result<void> Library::initialise() {
  if (const Return code = init_(); code != success)
    return fail(ErrorCode::environment, fmt::format("the NVIDIA driver does not start: {}", explain(code)),
                hint_for(code));
  initialised_ = true;
  char text[driver_version_size] = {};
  if (system_driver_version_ && system_driver_version_(text, sizeof text) == success)
    driver_version_.assign(text, ::strnlen(text, sizeof text));
  return {};
}

Result<void> Library::find_gpus() {
  unsigned count = 0;
  if (const Return code = device_count_(&count); code != success)
    return fail(ErrorCode::environment, fmt::format("the NVIDIA driver does not count its GPUs: {}", explain(code)),
                hint_for(code));
  for (unsigned index = 0; index < count; ++index) {
    Gpu gpu;
    char uuid[device_text_size] = {};
    Return code = device_by_index_(index, &gpu.device);
    if (code == success) code = device_uuid_(gpu.device, uuid, sizeof uuid);
    if (code != success) {
      // Broken, or kept from us (a container sees all indices and may open some): the others are as good as ever.
      log_warning("GPU {} is left out: {}", index, explain(code));
      continue;
    }
    gpu.identity.index = static_cast<int>(index);
    gpu.identity.uuid.assign(uuid, ::strnlen(uuid, sizeof uuid));
    char name[device_text_size] = {};
    if (device_name_ && device_name_(gpu.device, name, sizeof name) == success)
      gpu.identity.name.assign(name, ::strnlen(name, sizeof name));
    gpus_.push_back(std::move(gpu));
  }
  return {};
}

Return Library::read_memory(Device device, std::optional<Bytes>& total, std::optional<Bytes>& free) const {
  Return code = function_not_found;
  if (memory_info_v2_) {
    MemoryV2 memory{};
    memory.version = memory_v2_version;
    code = memory_info_v2_(device, &memory);
    if (code == success) {
      total = Bytes(static_cast<std::int64_t>(memory.total));
      free = Bytes(static_cast<std::int64_t>(memory.free));
      return code;
    }
  }
  // A library may have the newer name while the driver behind it does not know it.
  if (memory_info_ && !is_lost(code)) {
    Memory memory{};
    code = memory_info_(device, &memory);
    if (code == success) {
      total = Bytes(static_cast<std::int64_t>(memory.total));
      free = Bytes(static_cast<std::int64_t>(memory.free));
    }
  }
  return code;
}

Return Library::read_processes(RunningProcesses list, Device device, std::vector<GpuProcess>& processes) const {
  if (!list) return success;
  // Processes come between two calls: ask again with room to spare, until the answer fits.
  for (unsigned capacity = 64; capacity <= 1u << 16;) {
    std::vector<unsigned char> buffer(capacity * largest_process_record, sentinel);
    unsigned count = capacity;
    const Return code = list(device, &count, buffer.data());
    if (code == insufficient_size) {
      capacity = std::max(capacity * 2, count + count / 2);
      continue;
    }
    if (code != success) return code;
    count = std::min(count, capacity);
    const std::size_t stride = process_stride(buffer, count);
    for (std::size_t i = 0; stride != 0 && i < count; ++i) {
      ProcessHead head{};
      std::memcpy(&head, buffer.data() + i * stride, sizeof head);
      if (head.pid == 0) continue;
      GpuProcess process;
      process.pid = static_cast<pid_t>(head.pid);
      if (head.used != not_available) process.used = Bytes(static_cast<std::int64_t>(head.used));
      merge(processes, process);
    }
    return success;
  }
  return insufficient_size;
}

Error Library::lost(const Gpu& gpu, Return code) const {
  return Error{ErrorCode::environment,
               fmt::format("GPU {} ({}, {}) is lost: {}", gpu.identity.index, gpu.identity.name, gpu.identity.uuid,
                           explain(code)),
               "It needs a reset (`nvidia-smi --gpu-reset`) or a reboot; `dmesg | grep Xid` says why it fell.",
               boost::json::object{{"gpu_lost", gpu.identity.index}}};
}

Result<std::vector<GpuSample>> Library::sample() {
  std::vector<GpuSample> samples;
  for (const auto& gpu : gpus_) {
    GpuSample sample = gpu.identity;
    const auto complain = [&](Return code, const char* what) {
      if (code != success && code != not_supported) log_warning("GPU {}: {}: {}", sample.index, what, explain(code));
    };
    Return code = read_memory(gpu.device, sample.total, sample.free);
    if (is_lost(code)) return fail(lost(gpu, code));
    complain(code, "its memory cannot be read");
    const std::pair<RunningProcesses, const char*> lists[] = {
        {compute_processes_, "its compute processes cannot be listed"},
        {graphics_processes_, "its graphics processes cannot be listed"},
        {mps_processes_, "its MPS processes cannot be listed"},
    };
    for (const auto& [list, problem] : lists) {
      code = read_processes(list, gpu.device, sample.processes);
      if (is_lost(code)) return fail(lost(gpu, code));
      complain(code, problem);
    }
    std::sort(sample.processes.begin(), sample.processes.end(),
              [](const GpuProcess& a, const GpuProcess& b) { return a.pid < b.pid; });
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace gpumod::nvml
