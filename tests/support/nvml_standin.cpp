// A stand-in for libnvidia-ml.so.1, for tests only: the real names, structures and habits, the answers from a text
// file.
//
// The file is named by GPUMOD_NVML_STANDIN_FILE and read again for every question. One fact a line, '#' comments:
//
//   driver VERSION
//   init CODE                          what nvmlInit answers (0 if not said)
//   stride 16|24|32                    size of the process records (24 if not said; the unversioned functions: always
//   16) gpu UUID TOTAL FREE NAME…          bytes, or "-" for TOTAL where memory is not supported process GPU LIST PID
//   BYTES|-       LIST is compute, graphics or mps; "-": not available fail GPU FUNCTION CODE             FUNCTION is
//   handle, memory, compute, graphics or mps hang FILE                          memory questions wait until FILE exists
//   trace FILE                         appends "init", "shutdown", "OVERLAP" (two calls at once) to FILE
//
// Its declarations are written a second time on purpose: an error in gpumod's own (src/host/nvml_abi.h) shows up here.
// Built with GPUMOD_STANDIN_OLD it has only the unversioned names, as a driver of 2015 had.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <unistd.h>

namespace {

using nvmlReturn_t = int;
using nvmlDevice_t = struct nvmlDevice_st*;

constexpr nvmlReturn_t NVML_SUCCESS = 0;
constexpr nvmlReturn_t NVML_ERROR_UNINITIALIZED = 1;
constexpr nvmlReturn_t NVML_ERROR_INVALID_ARGUMENT = 2;
constexpr nvmlReturn_t NVML_ERROR_NOT_SUPPORTED = 3;
constexpr nvmlReturn_t NVML_ERROR_INSUFFICIENT_SIZE = 7;
[[maybe_unused]] constexpr nvmlReturn_t NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25;

struct nvmlMemory_t {
  unsigned long long total, free, used;
};
struct nvmlMemory_v2_t {
  unsigned int version;
  unsigned long long total, reserved, free, used;
};

struct Gpu {
  std::string uuid;
  std::string name;
  bool has_memory = true;
  unsigned long long total = 0;
  unsigned long long free = 0;
};

struct Process {
  unsigned gpu = 0;
  std::string list;
  unsigned pid = 0;
  unsigned long long bytes = 0;
};

struct World {
  std::string driver = "0.0";
  nvmlReturn_t init = NVML_SUCCESS;
  unsigned stride = 24;
  std::vector<Gpu> gpus;
  std::vector<Process> processes;
  std::map<std::pair<unsigned, std::string>, nvmlReturn_t> failures;
  std::string hang;
  std::string trace;
};

World look() {
  World world;
  const char* file = std::getenv("GPUMOD_NVML_STANDIN_FILE");
  std::ifstream stream(file ? file : "");
  std::string line;
  while (std::getline(stream, line)) {
    std::istringstream words(line);
    std::string what;
    words >> what;
    if (what == "driver") {
      words >> world.driver;
    } else if (what == "init") {
      words >> world.init;
    } else if (what == "stride") {
      words >> world.stride;
    } else if (what == "hang") {
      words >> world.hang;
    } else if (what == "trace") {
      words >> world.trace;
    } else if (what == "gpu") {
      Gpu gpu;
      std::string total;
      words >> gpu.uuid >> total >> gpu.free >> std::ws;
      std::getline(words, gpu.name);
      gpu.has_memory = total != "-";
      if (gpu.has_memory) gpu.total = std::stoull(total);
      world.gpus.push_back(gpu);
    } else if (what == "process") {
      Process process;
      std::string bytes;
      words >> process.gpu >> process.list >> process.pid >> bytes;
      process.bytes = bytes == "-" ? ~0ull : std::stoull(bytes);
      world.processes.push_back(process);
    } else if (what == "fail") {
      unsigned gpu = 0;
      std::string function;
      nvmlReturn_t code = 0;
      words >> gpu >> function >> code;
      world.failures[{gpu, function}] = code;
    }
  }
  return world;
}

void trace(const World& world, const char* text) {
  if (!world.trace.empty()) std::ofstream(world.trace, std::ios::app) << text << '\n';
}

std::atomic<int> initialised{0};
std::atomic<int> inside{0};

/// NVML itself may be called from many threads; that gpumod never does is what the tests want to see.
class Visit {
 public:
  explicit Visit(const World& world) {
    if (inside.fetch_add(1) > 0) trace(world, "OVERLAP");
  }
  ~Visit() { inside.fetch_sub(1); }
};

// A device handle is its index and one, so that none is null.
unsigned index_of(nvmlDevice_t device) {
  return static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(device)) - 1;
}

nvmlReturn_t failure(const World& world, unsigned gpu, const std::string& function) {
  if (initialised == 0) return NVML_ERROR_UNINITIALIZED;
  if (gpu >= world.gpus.size()) return NVML_ERROR_INVALID_ARGUMENT;
  const auto found = world.failures.find({gpu, function});
  return found == world.failures.end() ? NVML_SUCCESS : found->second;
}

nvmlReturn_t give_text(const std::string& value, char* text, unsigned size) {
  if (value.size() + 1 > size) return NVML_ERROR_INSUFFICIENT_SIZE;
  std::memcpy(text, value.c_str(), value.size() + 1);
  return NVML_SUCCESS;
}

nvmlReturn_t init() {
  const World world = look();
  if (world.init != NVML_SUCCESS) return world.init;
  ++initialised;
  trace(world, "init");
  return NVML_SUCCESS;
}

nvmlReturn_t count(unsigned* number) {
  *number = static_cast<unsigned>(look().gpus.size());
  return NVML_SUCCESS;
}

nvmlReturn_t by_index(unsigned index, nvmlDevice_t* device) {
  const World world = look();
  const nvmlReturn_t code = failure(world, index, "handle");
  if (code == NVML_SUCCESS) *device = reinterpret_cast<nvmlDevice_t>(static_cast<std::uintptr_t>(index) + 1);
  return code;
}

nvmlReturn_t memory(nvmlDevice_t device, Gpu& gpu) {
  const World world = look();
  const Visit visit(world);
  while (!world.hang.empty() && ::access(world.hang.c_str(), F_OK) != 0)
    ::usleep(1000);
  const nvmlReturn_t code = failure(world, index_of(device), "memory");
  if (code != NVML_SUCCESS) return code;
  gpu = world.gpus[index_of(device)];
  return gpu.has_memory ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t processes(nvmlDevice_t device, const char* list, unsigned* number, unsigned char* records,
                       unsigned stride) {
  const World world = look();
  const Visit visit(world);
  const nvmlReturn_t code = failure(world, index_of(device), list);
  if (code != NVML_SUCCESS) return code;
  if (stride == 0) stride = world.stride;
  std::vector<Process> found;
  for (const auto& process : world.processes)
    if (process.gpu == index_of(device) && process.list == list) found.push_back(process);
  const unsigned room = *number;
  *number = static_cast<unsigned>(found.size());
  if (room < found.size()) return NVML_ERROR_INSUFFICIENT_SIZE;
  for (std::size_t i = 0; i < found.size(); ++i) {
    unsigned char* record = records + i * stride;
    std::memset(record, 0, stride);
    std::memcpy(record, &found[i].pid, 4);
    std::memcpy(record + 8, &found[i].bytes, 8);
    if (stride >= 24) std::memset(record + 16, 0xFF, 8);  // no GPU instance, no compute instance
  }
  return NVML_SUCCESS;
}

}  // namespace

extern "C" {

nvmlReturn_t nvmlShutdown() {
  const World world = look();
  if (initialised == 0) return NVML_ERROR_UNINITIALIZED;
  if (inside > 0) trace(world, "OVERLAP");
  --initialised;
  trace(world, "shutdown");
  return NVML_SUCCESS;
}

const char* nvmlErrorString(nvmlReturn_t code) {
  switch (code) {
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
  }
}

nvmlReturn_t nvmlSystemGetDriverVersion(char* text, unsigned size) {
  return give_text(look().driver, text, size);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char* text, unsigned size) {
  return give_text(look().gpus[index_of(device)].uuid, text, size);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char* text, unsigned size) {
  return give_text(look().gpus[index_of(device)].name, text, size);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* answer) {
  Gpu gpu;
  const nvmlReturn_t code = memory(device, gpu);
  if (code == NVML_SUCCESS) *answer = {gpu.total, gpu.free, gpu.total - gpu.free};
  return code;
}

nvmlReturn_t nvmlInit() {
  return init();
}
nvmlReturn_t nvmlDeviceGetCount(unsigned* number) {
  return count(number);
}
nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t* device) {
  return by_index(index, device);
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned* number, void* records) {
  return processes(device, "compute", number, static_cast<unsigned char*>(records), 16);
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t device, unsigned* number, void* records) {
  return processes(device, "graphics", number, static_cast<unsigned char*>(records), 16);
}

#ifndef GPUMOD_STANDIN_OLD
nvmlReturn_t nvmlInit_v2() {
  return init();
}
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned* number) {
  return count(number);
}
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t* device) {
  return by_index(index, device);
}
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t* answer) {
  if (answer->version != (sizeof(nvmlMemory_v2_t) | (2u << 24))) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  Gpu gpu;
  const nvmlReturn_t code = memory(device, gpu);
  if (code == NVML_SUCCESS) *answer = {answer->version, gpu.total, 0, gpu.free, gpu.total - gpu.free};
  return code;
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned* number, void* records) {
  return processes(device, "compute", number, static_cast<unsigned char*>(records), 0);
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned* number, void* records) {
  return processes(device, "graphics", number, static_cast<unsigned char*>(records), 0);
}
nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned* number, void* records) {
  return processes(device, "mps", number, static_cast<unsigned char*>(records), 0);
}
#endif

}  // extern "C"
