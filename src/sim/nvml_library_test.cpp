// The library by its functions, as any program that speaks NVML calls them: sizes, versions, return codes, events.
#include <dlfcn.h>
#include <gmock/gmock.h>

#include "sim/broker_testing.h"
#include "sim/nvml/abi.h"

namespace gpumod::sim {
namespace {

using namespace testing;
using nvml::Return;
using Handle = void*;

constexpr std::uint64_t mib = 1 << 20;

class NvmlLibrary : public ::testing::Test {
 protected:
  void SetUp() override { load(GPUMOD_SIM_NVML); }
  void TearDown() override {
    while (call("nvmlShutdown") == nvml::success) {
    }
    ::dlclose(library_);
  }
  void load(const char* file) {
    if (library_) ::dlclose(library_);
    library_ = ::dlopen(file, RTLD_NOW | RTLD_LOCAL);
    ASSERT_TRUE(library_) << ::dlerror();
  }
  template <typename... Arguments>
  int call(const char* name, Arguments... arguments) {
    const auto function = reinterpret_cast<int (*)(Arguments...)>(::dlsym(library_, name));
    if (!function) {
      ADD_FAILURE() << "no function " << name;
      return -1;
    }
    return function(arguments...);
  }
  Handle device(unsigned index) {
    Handle found = nullptr;
    EXPECT_EQ(call("nvmlDeviceGetHandleByIndex_v2", index, &found), nvml::success);
    return found;
  }

  TestFolder directory_;
  std::filesystem::path socket_ = directory_.path() / "gpu";
  void* library_ = nullptr;
};

TEST_F(NvmlLibrary, EveryNameIsThere) {
  const std::vector<const char*> old = {"nvmlInit",
                                        "nvmlShutdown",
                                        "nvmlErrorString",
                                        "nvmlSystemGetDriverVersion",
                                        "nvmlDeviceGetCount",
                                        "nvmlDeviceGetHandleByIndex",
                                        "nvmlDeviceGetHandleByUUID",
                                        "nvmlDeviceGetName",
                                        "nvmlDeviceGetUUID",
                                        "nvmlDeviceGetPciInfo",
                                        "nvmlDeviceGetMemoryInfo",
                                        "nvmlDeviceGetUtilizationRates",
                                        "nvmlDeviceGetTemperature",
                                        "nvmlDeviceGetPowerUsage",
                                        "nvmlDeviceGetEnforcedPowerLimit",
                                        "nvmlDeviceGetClockInfo",
                                        "nvmlDeviceGetCurrPcieLinkGeneration",
                                        "nvmlDeviceGetCurrPcieLinkWidth",
                                        "nvmlDeviceGetMigMode",
                                        "nvmlDeviceGetPersistenceMode",
                                        "nvmlDeviceGetComputeRunningProcesses",
                                        "nvmlDeviceGetGraphicsRunningProcesses",
                                        "nvmlDeviceGetMPSComputeRunningProcesses",
                                        "nvmlEventSetCreate",
                                        "nvmlDeviceRegisterEvents",
                                        "nvmlEventSetWait",
                                        "nvmlEventSetFree"};
  const std::vector<const char*> newer = {"nvmlInit_v2",
                                          "nvmlInitWithFlags",
                                          "nvmlDeviceGetCount_v2",
                                          "nvmlDeviceGetHandleByIndex_v2",
                                          "nvmlDeviceGetPciInfo_v2",
                                          "nvmlDeviceGetPciInfo_v3",
                                          "nvmlDeviceGetMemoryInfo_v2",
                                          "nvmlDeviceGetTemperatureV",
                                          "nvmlDeviceGetComputeRunningProcesses_v2",
                                          "nvmlDeviceGetComputeRunningProcesses_v3",
                                          "nvmlDeviceGetGraphicsRunningProcesses_v2",
                                          "nvmlDeviceGetGraphicsRunningProcesses_v3",
                                          "nvmlDeviceGetMPSComputeRunningProcesses_v2",
                                          "nvmlDeviceGetMPSComputeRunningProcesses_v3",
                                          "nvmlEventSetWait_v2"};
  for (const char* name : old)
    EXPECT_TRUE(::dlsym(library_, name)) << name;
  for (const char* name : newer)
    EXPECT_TRUE(::dlsym(library_, name)) << name;
  load(GPUMOD_SIM_NVML_OLD);
  for (const char* name : old)
    EXPECT_TRUE(::dlsym(library_, name)) << name;
  for (const char* name : newer)
    EXPECT_FALSE(::dlsym(library_, name)) << name;
}

TEST_F(NvmlLibrary, NothingIsAnsweredBeforeItIsInitialised) {
  const BrokerProcess broker(socket_);
  unsigned count = 0;
  EXPECT_EQ(call("nvmlDeviceGetCount_v2", &count), nvml::uninitialized);
  EXPECT_EQ(call("nvmlShutdown"), nvml::uninitialized);
  Handle set = nullptr;
  EXPECT_EQ(call("nvmlEventSetCreate", &set), nvml::uninitialized);
  ASSERT_EQ(call("nvmlInit_v2"), nvml::success);
  ASSERT_EQ(call("nvmlInitWithFlags", 0u), nvml::success);
  EXPECT_EQ(call("nvmlDeviceGetCount_v2", &count), nvml::success);
  EXPECT_EQ(count, 2u);
  const Handle gpu = device(0);
  EXPECT_EQ(call("nvmlShutdown"), nvml::success);
  EXPECT_EQ(call("nvmlDeviceGetPowerUsage", gpu, &count), nvml::success) << "once more initialised than shut down";
  EXPECT_EQ(call("nvmlShutdown"), nvml::success);
  EXPECT_EQ(call("nvmlDeviceGetPowerUsage", gpu, &count), nvml::uninitialized);
}

TEST_F(NvmlLibrary, WhatIsNoDeviceIsRefused) {
  const BrokerProcess broker(socket_);
  ASSERT_EQ(call("nvmlInit_v2"), nvml::success);
  Handle found = nullptr;
  EXPECT_EQ(call("nvmlDeviceGetHandleByIndex_v2", 2u, &found), nvml::invalid_argument);
  EXPECT_EQ(call("nvmlDeviceGetHandleByIndex_v2", 0u, static_cast<Handle*>(nullptr)), nvml::invalid_argument);
  EXPECT_EQ(call("nvmlDeviceGetHandleByUUID", "GPU-none", &found), nvml::not_found);
  EXPECT_EQ(call("nvmlDeviceGetHandleByPciBusId_v2", "00000000:77:00.0", &found), nvml::not_found);
  unsigned value = 0;
  int somewhere = 0;
  Handle after_the_last = static_cast<char*>(device(1)) + 1;
  for (Handle bad : {static_cast<Handle>(nullptr), static_cast<Handle>(&somewhere), after_the_last}) {
    EXPECT_EQ(call("nvmlDeviceGetPowerUsage", bad, &value), nvml::invalid_argument);
    nvml::Memory memory{};
    EXPECT_EQ(call("nvmlDeviceGetMemoryInfo", bad, &memory), nvml::invalid_argument);
    EXPECT_EQ(call("nvmlDeviceGetComputeRunningProcesses_v3", bad, &value, static_cast<void*>(nullptr)),
              nvml::invalid_argument);
  }
  EXPECT_EQ(call("nvmlDeviceGetPowerUsage", device(0), static_cast<unsigned*>(nullptr)), nvml::invalid_argument);
}

TEST_F(NvmlLibrary, ADeviceIsFoundByEachOfItsNames) {
  const BrokerProcess broker(socket_);
  ASSERT_EQ(call("nvmlInit_v2"), nvml::success);
  const Handle second = device(1);
  char uuid[96];
  ASSERT_EQ(call("nvmlDeviceGetUUID", second, uuid, 96u), nvml::success);
  Handle found = nullptr;
  EXPECT_EQ(call("nvmlDeviceGetHandleByUUID", static_cast<const char*>(uuid), &found), nvml::success);
  EXPECT_EQ(found, second);
  nvml::PciInfo pci{};
  ASSERT_EQ(call("nvmlDeviceGetPciInfo_v3", second, &pci), nvml::success);
  EXPECT_STREQ(pci.bus_id, "00000000:02:00.0");
  EXPECT_STREQ(pci.legacy_bus_id, "0000:02:00.0");
  EXPECT_EQ(pci.bus, 2u);
  EXPECT_EQ(pci.device_id & 0xFFFF, 0x10DEu);
  found = nullptr;
  EXPECT_EQ(call("nvmlDeviceGetHandleByPciBusId_v2", static_cast<const char*>(pci.bus_id), &found), nvml::success);
  EXPECT_EQ(found, second);
  unsigned index = 0;
  EXPECT_EQ(call("nvmlDeviceGetIndex", second, &index), nvml::success);
  EXPECT_EQ(index, 1u);

  // Older structures are shorter: nothing behind them is touched.
  struct {
    nvml::PciInfoV1 info;
    unsigned behind = 0xABCD;
  } oldest{};
  ASSERT_EQ(call("nvmlDeviceGetPciInfo", second, &oldest.info), nvml::success);
  EXPECT_STREQ(oldest.info.bus_id, "0000:02:00.0");
  EXPECT_EQ(oldest.behind, 0xABCDu);
}

TEST_F(NvmlLibrary, TextNeedsRoom) {
  const BrokerProcess broker(socket_, {"--driver-version", "580.65.06"});
  ASSERT_EQ(call("nvmlInit_v2"), nvml::success);
  char text[96] = {};
  EXPECT_EQ(call("nvmlSystemGetDriverVersion", text, 9u), nvml::insufficient_size);
  EXPECT_EQ(call("nvmlSystemGetDriverVersion", text, 10u), nvml::success);
  EXPECT_STREQ(text, "580.65.06");
  EXPECT_EQ(call("nvmlDeviceGetName", device(0), text, 3u), nvml::insufficient_size);
  EXPECT_EQ(call("nvmlDeviceGetName", device(0), text, 4u), nvml::success);
  EXPECT_STREQ(text, "Big");
  EXPECT_EQ(call("nvmlDeviceGetUUID", device(0), text, 40u), nvml::insufficient_size);
  EXPECT_EQ(call("nvmlDeviceGetUUID", device(0), text, 41u), nvml::success);
  const auto words = reinterpret_cast<const char* (*)(int)>(::dlsym(library_, "nvmlErrorString"));
  EXPECT_STREQ(words(15), "GPU is lost");
  EXPECT_STREQ(words(12345), "Unknown Error");
}

TEST_F(NvmlLibrary, UsedMemoryIsCountedInTwoWays) {
  const BrokerProcess broker(socket_);
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu->allocate("weights", Bytes::gib(10)));
  ASSERT_EQ(call("nvmlInit_v2"), nvml::success);
  nvml::Memory v1{};
  ASSERT_EQ(call("nvmlDeviceGetMemoryInfo", device(0), &v1), nvml::success);
  EXPECT_EQ(v1.total, 24576 * mib);
  EXPECT_EQ(v1.used, (10240 + 512) * mib);
  EXPECT_EQ(v1.free, v1.total - v1.used);
  nvml::MemoryV2 v2{};
  for (const std::uint32_t wrong : {0u, 0x01000028u, 0x02000020u}) {
    v2.version = wrong;
    EXPECT_EQ(call("nvmlDeviceGetMemoryInfo_v2", device(0), &v2), nvml::argument_version_mismatch);
  }
  v2.version = 0x02000028;
  ASSERT_EQ(call("nvmlDeviceGetMemoryInfo_v2", device(0), &v2), nvml::success);
  EXPECT_EQ(v2.version, 0x02000028u);
  EXPECT_EQ(v2.used, 10240 * mib);
  EXPECT_EQ(v2.reserved, 512 * mib);
  EXPECT_EQ(v2.free, v1.free);
}

TEST_F(NvmlLibrary, AProcessListSaysHowMuchRoomItNeeds) {
  const BrokerProcess broker(socket_);
  auto gpu = Gpu::open();
  ASSERT_EQ(call("nvmlInit_v2"), nvml::success);
  unsigned count = 0;
  void* const nowhere = nullptr;
  EXPECT_EQ(call("nvmlDeviceGetComputeRunningProcesses_v3", device(0), &count, nowhere), nvml::success) << "none";
  ASSERT_TRUE(gpu->allocate("weights", Bytes::gib(10)));
  const Holder other({"--list", "compute", "--holds", "5MiB"});
  EXPECT_EQ(call("nvmlDeviceGetComputeRunningProcesses_v3", device(0), &count, nowhere), nvml::insufficient_size);
  EXPECT_EQ(count, 2u);
  nvml::ProcessInfo records[3] = {};
  count = 1;
  EXPECT_EQ(call("nvmlDeviceGetComputeRunningProcesses_v3", device(0), &count, static_cast<void*>(records)),
            nvml::insufficient_size);
  EXPECT_EQ(records[0].pid, 0u) << "nothing was written";
  count = 3;
  EXPECT_EQ(call("nvmlDeviceGetComputeRunningProcesses_v3", device(0), &count, static_cast<void*>(records)),
            nvml::success);
  EXPECT_EQ(count, 2u);
  const auto& own = records[records[0].pid == static_cast<unsigned>(::getpid()) ? 0 : 1];
  EXPECT_EQ(own.pid, static_cast<unsigned>(::getpid()));
  EXPECT_EQ(own.used, 10240 * mib);
  EXPECT_EQ(own.gpu_instance, nvml::no_instance);
  EXPECT_EQ(records[2].pid, 0u);

  // The unversioned one writes what it has always written, whatever the newest does.
  broker.ask("fault process-record=32");
  unsigned char bytes[2 * 16 + 1];
  bytes[2 * 16] = 0x5A;
  count = 2;
  EXPECT_EQ(call("nvmlDeviceGetComputeRunningProcesses", device(0), &count, static_cast<void*>(bytes)), nvml::success);
  EXPECT_EQ(bytes[2 * 16], 0x5A);
  count = 3;
  EXPECT_EQ(call("nvmlDeviceGetComputeRunningProcesses_v2", device(0), &count, static_cast<void*>(records)),
            nvml::success);
  EXPECT_EQ(records[1].gpu_instance, nvml::no_instance);
  EXPECT_EQ(records[2].pid, 0u);

  char name[16];
  EXPECT_EQ(call("nvmlSystemGetProcessName", static_cast<unsigned>(other.pid()), name, 16u), nvml::success);
  EXPECT_STREQ(name, "firefox");
  EXPECT_EQ(call("nvmlSystemGetProcessName", 1u, name, 16u), nvml::not_found);
}

TEST_F(NvmlLibrary, AtWorkAndIdleLookDifferent) {
  const BrokerProcess broker(socket_);
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu->allocate("weights", Bytes::gib(10)));
  ASSERT_EQ(call("nvmlInit_v2"), nvml::success);
  for (const char* name : {"nvmlDeviceGetPowerUsage", "nvmlDeviceGetCurrPcieLinkGeneration"}) {
    unsigned busy = 0;
    unsigned idle = 0;
    EXPECT_EQ(call(name, device(0), &busy), nvml::success);
    EXPECT_EQ(call(name, device(1), &idle), nvml::success);
    EXPECT_GT(busy, idle) << name;
  }
  nvml::Utilization rates{};
  EXPECT_EQ(call("nvmlDeviceGetUtilizationRates", device(0), &rates), nvml::success);
  EXPECT_GT(rates.gpu, 0u);
  unsigned celsius = 0;
  EXPECT_EQ(call("nvmlDeviceGetTemperature", device(0), 0, &celsius), nvml::success);
  nvml::TemperatureV1 versioned{0x0100000C, 0, 0};
  EXPECT_EQ(call("nvmlDeviceGetTemperatureV", device(0), &versioned), nvml::success);
  EXPECT_EQ(static_cast<unsigned>(versioned.temperature), celsius);
  versioned.version = 0x0200000C;
  EXPECT_EQ(call("nvmlDeviceGetTemperatureV", device(0), &versioned), nvml::argument_version_mismatch);
  unsigned value = 0;
  EXPECT_EQ(call("nvmlDeviceGetClockInfo", device(0), 2, &value), nvml::success);
  EXPECT_EQ(call("nvmlDeviceGetClockInfo", device(0), 9, &value), nvml::invalid_argument);
  for (const char* name :
       {"nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetCurrPcieLinkWidth", "nvmlDeviceGetPersistenceMode"}) {
    value = 0;
    EXPECT_EQ(call(name, device(0), &value), nvml::success);
    EXPECT_GT(value, 0u) << name;
  }
  EXPECT_EQ(call("nvmlDeviceGetMigMode", device(0), &value, &value), nvml::not_supported);
}

TEST_F(NvmlLibrary, OneBadGpuDoesNotHideTheOthersButFromTheFirstInit) {
  const BrokerProcess broker(socket_, {"--fault", "gpu-lost=0"});
  EXPECT_EQ(call("nvmlInit"), nvml::gpu_is_lost);
  ASSERT_EQ(call("nvmlInit_v2"), nvml::success);
  unsigned count = 0;
  EXPECT_EQ(call("nvmlDeviceGetCount_v2", &count), nvml::success);
  EXPECT_EQ(count, 2u);
  Handle found = nullptr;
  EXPECT_EQ(call("nvmlDeviceGetHandleByIndex_v2", 0u, &found), nvml::gpu_is_lost);
  EXPECT_EQ(call("nvmlDeviceGetPowerUsage", device(1), &count), nvml::success);
  broker.ask("fault gpu-lost=0,1");
  ASSERT_EQ(call("nvmlDeviceGetHandleByIndex_v2", 1u, &found), nvml::gpu_is_lost);
}

TEST_F(NvmlLibrary, EventsReachWhoRegisteredForThem) {
  BrokerProcess broker(socket_);
  ASSERT_EQ(call("nvmlInit_v2"), nvml::success);
  const Handle first = device(0);
  const Handle second = device(1);
  unsigned long long types = 0;
  ASSERT_EQ(call("nvmlDeviceGetSupportedEventTypes", second, &types), nvml::success);
  EXPECT_EQ(types, 0xC008u);
  Handle set = nullptr;
  ASSERT_EQ(call("nvmlEventSetCreate", &set), nvml::success);
  broker.ask("xid 1 13");
  EXPECT_EQ(call("nvmlDeviceRegisterEvents", second, 0x1ull, set), nvml::not_supported);
  EXPECT_EQ(call("nvmlDeviceRegisterEvents", second, 0x8ull, first), nvml::invalid_argument) << "that is no set";
  ASSERT_EQ(call("nvmlDeviceRegisterEvents", second, 0x8ull, set), nvml::success);

  nvml::EventData event{};
  EXPECT_EQ(call("nvmlEventSetWait_v2", set, &event, 0u), nvml::timeout) << "it happened before";
  broker.ask("xid 0 31");
  EXPECT_EQ(call("nvmlEventSetWait_v2", set, &event, 20u), nvml::timeout) << "on another GPU";
  broker.ask("xid 1 43");
  ASSERT_EQ(call("nvmlEventSetWait_v2", set, &event, 60'000u), nvml::success);
  EXPECT_EQ(event.device, second);
  EXPECT_EQ(event.type, 0x8u);
  EXPECT_EQ(event.data, 43u);
  EXPECT_EQ(event.gpu_instance, nvml::no_instance);

  // A wait holds nobody up, and what comes meanwhile wakes it.
  std::thread waiting([&] {
    nvml::EventData seen{};
    EXPECT_EQ(call("nvmlEventSetWait_v2", set, &seen, 60'000u), nvml::success);
    EXPECT_EQ(seen.data, 79u);
  });
  unsigned value = 0;
  EXPECT_EQ(call("nvmlDeviceGetPowerUsage", first, &value), nvml::success);
  broker.ask("fault gpu-lost=1");
  waiting.join();
  EXPECT_EQ(call("nvmlEventSetWait_v2", set, &event, 20u), nvml::timeout) << "unavailable: nobody asked for that";
  ASSERT_EQ(call("nvmlDeviceRegisterEvents", first, 0x4008ull, set), nvml::success);

  std::thread bereaved([&] {
    nvml::EventData seen{};
    EXPECT_EQ(call("nvmlEventSetWait_v2", set, &seen, ~0u), nvml::gpu_is_lost);
  });
  broker.kill();
  bereaved.join();
  EXPECT_EQ(call("nvmlEventSetFree", set), nvml::success);
  EXPECT_EQ(call("nvmlEventSetFree", set), nvml::invalid_argument);
  EXPECT_EQ(call("nvmlEventSetWait_v2", set, &event, 0u), nvml::invalid_argument);
}

TEST_F(NvmlLibrary, ManyThreadsMayAsk) {
  const BrokerProcess broker(socket_);
  ASSERT_EQ(call("nvmlInit_v2"), nvml::success);
  const Handle gpus[2] = {device(0), device(1)};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      for (int round = 0; round < 50; ++round) {
        nvml::Memory memory{};
        EXPECT_EQ(call("nvmlDeviceGetMemoryInfo", gpus[i % 2], &memory), nvml::success);
        EXPECT_EQ(memory.total, (i % 2 == 0 ? 24576 : 8192) * mib);
      }
    });
  for (auto& thread : threads)
    thread.join();
}

TEST_F(NvmlLibrary, AForkedChildHasNone) {
  const BrokerProcess broker(socket_);
  ASSERT_EQ(call("nvmlInit_v2"), nvml::success);
  const pid_t child = ::fork();
  if (child == 0) {
    unsigned count = 0;
    ::_exit(call("nvmlDeviceGetCount_v2", &count) == nvml::uninitialized ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace gpumod::sim
