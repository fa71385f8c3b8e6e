#include "host/nvml_library.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>

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

/// A figure that no card could have stands for none: all ones is how NVML says "not available".
std::optional<Bytes> amount(std::uint64_t figure) {
  if (figure > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
  return Bytes(static_cast<std::int64_t>(figure));
}

std::string text_of(const char* text, std::size_t size) {
  return std::string(text, ::strnlen(text, size));
}

/// What a process uses of the slices is what it uses of the GPU. The GPU's own lists say so as well, or are empty
/// without privileges.
void add_processes_of(const std::vector<GpuSlice>& slices, std::vector<GpuProcess>& processes) {
  std::map<std::pair<pid_t, int>, std::optional<Bytes>> by_instance;  // devices of one instance may both list it
  for (const auto& slice : slices)
    for (const auto& process : slice.processes) {
      auto& used = by_instance[{process.pid, slice.gpu_instance}];
      used = std::max(used, process.used);
    }
  std::map<pid_t, GpuProcess> sums;
  for (const auto& [key, used] : by_instance) {
    auto& sum = sums[key.first];
    const bool first = sum.pid == 0;
    sum.pid = key.first;
    if (first)
      sum.used = used;
    else
      sum.used = sum.used && used ? std::optional(*sum.used + *used) : std::nullopt;
  }
  for (const auto& [pid, sum] : sums)
    merge(processes, sum);
}

void sort_by_pid(std::vector<GpuProcess>& processes) {
  std::sort(processes.begin(), processes.end(), [](const GpuProcess& a, const GpuProcess& b) { return a.pid < b.pid; });
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
  find(handle_, persistence_mode_, {"nvmlDeviceGetPersistenceMode"});
  find(handle_, mig_mode_, {"nvmlDeviceGetMigMode"});
  find(handle_, mig_device_count_, {"nvmlDeviceGetMaxMigDeviceCount"});
  find(handle_, mig_device_by_index_, {"nvmlDeviceGetMigDeviceHandleByIndex"});
  find(handle_, gpu_instance_id_, {"nvmlDeviceGetGpuInstanceId"});
  find(handle_, compute_instance_id_, {"nvmlDeviceGetComputeInstanceId"});
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
      missing_.push_back({static_cast<int>(index), explain(code)});
      continue;
    }
    gpu.identity.index = static_cast<int>(index);
    gpu.identity.uuid = text_of(uuid, sizeof uuid);
    char name[device_text_size] = {};
    if (device_name_ && device_name_(gpu.device, name, sizeof name) == success)
      gpu.identity.name = text_of(name, sizeof name);
    // Asked once: turning MIG on or off takes a reset, which nobody survives who has the GPU open.
    gpu.identity.mig = read_mig_mode(gpu.device);
    gpus_.push_back(std::move(gpu));
  }
  return {};
}

std::optional<bool> Library::read_mig_mode(Device device) const {
  unsigned current = 0, pending = 0;
  if (!mig_mode_ || mig_mode_(device, &current, &pending) != success) return std::nullopt;
  return current == 1;
}

Return Library::read_memory(Device device, GpuMemory& memory) const {
  Return code = function_not_found;
  if (memory_info_v2_) {
    MemoryV2 answer{};
    answer.version = memory_v2_version;
    code = memory_info_v2_(device, &answer);
    if (code == success) {
      memory = {amount(answer.total), amount(answer.reserved), amount(answer.free)};
      return code;
    }
  }
  // A library may have the newer name while the driver behind it does not know it.
  if (memory_info_ && !is_lost(code)) {
    Memory answer{};
    code = memory_info_(device, &answer);
    if (code == success) memory = {amount(answer.total), std::nullopt, amount(answer.free)};
  }
  return code;
}

/// The MIG devices there are now: they come and go without a reset.
Return Library::read_slices(Device device, std::vector<GpuSlice>& slices) const {
  unsigned count = 0;
  if (!mig_device_count_ || !mig_device_by_index_) return function_not_found;
  if (const Return code = mig_device_count_(device, &count); code != success) return code;
  Return worst = success;
  for (unsigned index = 0; index < count; ++index) {
    Device mig_device = nullptr;
    Return code = mig_device_by_index_(device, index, &mig_device);
    if (code == not_found) continue;
    GpuSlice slice;
    if (code == success) code = read_slice(mig_device, slice);
    if (is_lost(code)) return code;
    if (!slice.uuid.empty()) slices.push_back(std::move(slice));
    if (code != success && code != not_supported) worst = code;
  }
  return worst;
}

/// Without a UUID when the device itself could not be told; with one, as far as it answers.
Return Library::read_slice(Device device, GpuSlice& slice) const {
  char uuid[device_text_size] = {}, name[device_text_size] = {};
  if (const Return code = device_uuid_(device, uuid, sizeof uuid); code != success) return code;
  slice.uuid = text_of(uuid, sizeof uuid);
  if (device_name_ && device_name_(device, name, sizeof name) == success) slice.name = text_of(name, sizeof name);
  unsigned id = 0;
  if (gpu_instance_id_ && gpu_instance_id_(device, &id) == success) slice.gpu_instance = static_cast<int>(id);
  if (compute_instance_id_ && compute_instance_id_(device, &id) == success)
    slice.compute_instance = static_cast<int>(id);
  const Return memory = read_memory(device, slice);
  if (is_lost(memory)) return memory;
  Return worst = memory;
  for (const auto list : {compute_processes_, graphics_processes_, mps_processes_}) {
    const Return listed = read_processes(list, device, slice.processes);
    if (is_lost(listed)) return listed;
    if (listed != success && listed != not_supported) worst = listed;
  }
  sort_by_pid(slice.processes);
  return worst;
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
    // Of a GPU in slices, only root may ask for all of it.
    const auto allowed = [&](Return code) { return sample.mig == true && code == no_permission ? success : code; };
    GpuMemory memory;
    Return code = read_memory(gpu.device, memory);
    sample.total = memory.total;
    sample.reserved = memory.reserved;
    sample.free = memory.free;
    if (is_lost(code)) return fail(lost(gpu, code));
    complain(allowed(code), "its memory cannot be read");
    const std::pair<RunningProcesses, const char*> lists[] = {
        {compute_processes_, "its compute processes cannot be listed"},
        {graphics_processes_, "its graphics processes cannot be listed"},
        {mps_processes_, "its MPS processes cannot be listed"},
    };
    for (const auto& [list, problem] : lists) {
      code = read_processes(list, gpu.device, sample.processes);
      if (is_lost(code)) return fail(lost(gpu, code));
      complain(allowed(code), problem);
    }
    if (sample.mig == true) {
      code = read_slices(gpu.device, sample.slices);
      if (is_lost(code)) return fail(lost(gpu, code));
      complain(code, "its MIG devices cannot be read");
      add_processes_of(sample.slices, sample.processes);
    }
    sort_by_pid(sample.processes);
    samples.push_back(std::move(sample));
  }
  return samples;
}

GpuInventory Library::inventory() {
  GpuInventory inventory;
  inventory.missing = missing_;
  for (const auto& gpu : gpus_) {
    GpuInventory::Card card;
    card.index = gpu.identity.index;
    unsigned mode = 0;
    if (persistence_mode_ && persistence_mode_(gpu.device, &mode) == success) card.persistence = mode == 1;
    inventory.cards.push_back(card);
  }
  return inventory;
}

}  // namespace gpumod::nvml
