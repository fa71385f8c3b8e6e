// The simulated GPU as gpumod itself sees it: host/gpu_monitor.h over the real library, a real broker behind it.
#include <gmock/gmock.h>

#include "host/gpu_monitor.h"
#include "sim/broker_testing.h"

namespace gpumod::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using namespace testing;

constexpr Bytes everything = Bytes::mib(24 * 1024 - 512);

class NvmlMonitor : public ::testing::Test {
 protected:
  void SetUp() override { ::setenv("GPUMOD_NVML_LIBRARY", GPUMOD_SIM_NVML, 1); }
  void TearDown() override { ::unsetenv("GPUMOD_NVML_LIBRARY"); }

  void open() {
    auto opened = open_nvml();
    ASSERT_TRUE(opened) << opened.error().message;
    monitor_ = std::move(*opened);
  }
  Result<std::vector<GpuSample>> sample() { return loop_.run_until_done(monitor_->sample()); }
  /// GPU 0, which must answer.
  GpuSample first() {
    auto gpus = sample();
    EXPECT_TRUE(gpus) << gpus.error().message;
    return gpus && !gpus->empty() ? gpus->front() : GpuSample{};
  }
  static std::vector<std::pair<pid_t, std::int64_t>> figures(const GpuSample& gpu) {
    std::vector<std::pair<pid_t, std::int64_t>> found;
    for (const auto& process : gpu.processes)
      found.emplace_back(process.pid, process.used ? process.used->to_mib() : -1);
    return found;
  }
  std::pair<pid_t, std::int64_t> own(std::int64_t mib) { return {::getpid(), mib}; }

  TestFolder directory_;
  std::filesystem::path socket_ = directory_.path() / "gpu";
  Loop loop_;
  std::unique_ptr<GpuMonitor> monitor_;
};

TEST_F(NvmlMonitor, ShowsTotalsAndWhoHoldsWhat) {
  const BrokerProcess broker(socket_, {"--driver-version", "575.57.08"});
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu);
  ASSERT_TRUE(gpu->allocate("weights", Bytes::gib(10)));
  ASSERT_TRUE(gpu->allocate("kv", Bytes::gib(2)));
  const Holder firefox({"--as", "firefox", "--gpu", "1", "--holds", "400MiB"});
  const Holder both({"--as", "game", "--list", "both", "--gpu", "1", "--holds", "500MiB"});
  const Holder mps({"--as", "worker", "--list", "mps", "--gpu", "1", "--holds", "600MiB"});
  open();
  EXPECT_EQ(monitor_->driver_version(), "575.57.08");
  const auto gpus = sample();
  ASSERT_TRUE(gpus);
  ASSERT_EQ(gpus->size(), 2u);
  EXPECT_EQ((*gpus)[0].name, "Big");
  EXPECT_EQ((*gpus)[0].total, Bytes::gib(24));
  EXPECT_EQ((*gpus)[0].free, everything - Bytes::gib(12));
  EXPECT_THAT(figures((*gpus)[0]), ElementsAre(own(12 * 1024)));
  EXPECT_EQ((*gpus)[1].index, 1);
  EXPECT_EQ(broker.ask("gpus"), "ok " + (*gpus)[0].uuid + " " + (*gpus)[1].uuid);
  EXPECT_THAT(figures((*gpus)[1]),
              ::testing::UnorderedElementsAre(std::pair(firefox.pid(), 400), std::pair(both.pid(), 500),
                                              std::pair(mps.pid(), 600)));
  ASSERT_TRUE(gpu->release("kv"));
  EXPECT_THAT(figures(first()), ElementsAre(own(10 * 1024)));
}

TEST_F(NvmlMonitor, AKilledProcessIsGoneAtOnce) {
  const BrokerProcess broker(socket_);
  Holder holder({"--holds", "20GiB"});
  open();
  EXPECT_THAT(figures(first()), ElementsAre(std::pair(holder.pid(), 20 * 1024)));
  holder.kill();
  const auto gpu = first();
  EXPECT_THAT(gpu.processes, IsEmpty());
  EXPECT_EQ(gpu.free, everything);
}

TEST_F(NvmlMonitor, AKilledProcessMayStayListed) {
  const BrokerProcess broker(socket_, {"--release-delay", "1h"});
  Holder holder({"--holds", "20GiB"});
  open();
  holder.kill();
  const auto gpu = first();
  EXPECT_THAT(figures(gpu), ElementsAre(std::pair(holder.pid(), 20 * 1024)));
  EXPECT_EQ(gpu.free, everything - Bytes::gib(20));
}

TEST_F(NvmlMonitor, AKilledProcessMayLeaveMemoryThatIsNobodys) {
  const BrokerProcess broker(socket_, {"--release-delay", "100ms", "--release-unlisted"});
  Holder holder({"--holds", "20GiB"});
  open();
  const TimePoint before = now();
  holder.kill();
  const auto gpu = first();
  EXPECT_THAT(gpu.processes, IsEmpty());
  if (now() - before < 100ms) {
    EXPECT_EQ(gpu.free, everything - Bytes::gib(20));
  }
  ASSERT_TRUE(Gpu::open()->wait_for_free(everything, patience));
  EXPECT_GE(now() - before, 100ms);
  EXPECT_EQ(first().free, everything);

  ASSERT_EQ(broker.ask("curve 1h 0s unlisted"), "ok");
  Holder another({"--holds", "20GiB"});
  another.kill();
  EXPECT_THAT(first().processes, IsEmpty());
  EXPECT_EQ(first().free, everything - Bytes::gib(20));
}

TEST_F(NvmlMonitor, RecordsOfEveryDriverAreRead) {
  const BrokerProcess broker(socket_, {"--fault", "process-record=16"});
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu->allocate("weights", Bytes::gib(10)));
  const Holder a({"--list", "compute", "--holds", "400MiB"});
  const Holder b({"--list", "compute", "--holds", "500MiB"});
  open();
  for (const char* size : {"16", "24", "32"}) {
    ASSERT_EQ(broker.ask(fmt::format("fault process-record={}", size)), "ok");
    EXPECT_THAT(figures(first()),
                ::testing::UnorderedElementsAre(own(10 * 1024), std::pair(a.pid(), 400), std::pair(b.pid(), 500)))
        << size;
  }
}

TEST_F(NvmlMonitor, FaultsComeAndGoWhileItRuns) {
  const BrokerProcess broker(socket_);
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu->allocate("weights", Bytes::gib(10)));
  open();

  broker.ask("fault na-memory");
  EXPECT_THAT(figures(first()), ElementsAre(own(-1)));
  EXPECT_EQ(first().free, everything - Bytes::gib(10));
  broker.ask("clear na-memory");

  broker.ask("fault host-pids=100000");
  EXPECT_THAT(figures(first()), ElementsAre(std::pair(::getpid() + 100000, 10 * 1024)));
  broker.ask("clear host-pids");

  broker.ask("fault no-memory-info");
  EXPECT_EQ(first().total, std::nullopt);
  EXPECT_EQ(first().free, std::nullopt);
  EXPECT_THAT(figures(first()), ElementsAre(own(10 * 1024)));
  broker.ask("clear no-memory-info");

  for (const char* how :
       {"fault missing-process-list", "fault missing-process-list=3", "fault missing-process-list=4"}) {
    broker.ask(how);
    EXPECT_THAT(first().processes, IsEmpty()) << how;
    EXPECT_EQ(first().free, everything - Bytes::gib(10)) << how;
  }
  broker.ask("clear missing-process-list");

  broker.ask("fault slow=50ms");
  const TimePoint before = now();
  EXPECT_THAT(figures(first()), ElementsAre(own(10 * 1024)));
  EXPECT_GE(now() - before, 400ms) << "memory and three lists of two GPUs";
  broker.ask("clear slow");

  EXPECT_THAT(figures(first()), ElementsAre(own(10 * 1024)));
}

TEST_F(NvmlMonitor, ALostGpuIsNamed) {
  const BrokerProcess broker(socket_);
  open();
  ASSERT_EQ(broker.ask("fault gpu-lost=1"), "ok");
  const auto gpus = sample();
  ASSERT_FALSE(gpus);
  EXPECT_EQ(gpus.error().code, ErrorCode::environment);
  EXPECT_THAT(gpus.error().message, HasSubstr("GPU 1 (Small, GPU-"));
  EXPECT_THAT(gpus.error().message, HasSubstr("is lost: GPU is lost (NVML error 15)"));
  monitor_.reset();
  open();  // begins anew: the bad one does not hide the other
  ASSERT_EQ(sample()->size(), 1u);
  EXPECT_EQ(first().name, "Big");
}

TEST_F(NvmlMonitor, WithTheBrokerAllIsLost) {
  {
    BrokerProcess broker(socket_);
    open();
    ASSERT_TRUE(sample());
    broker.kill();
    EXPECT_THAT(sample().error().message, HasSubstr("(NVML error 15)"));
  }
  const BrokerProcess another(socket_);
  EXPECT_THAT(sample().error().message, HasSubstr("(NVML error 15)")) << "a driver that died stays dead for us";
  monitor_.reset();
  open();
  EXPECT_TRUE(sample());
}

TEST_F(NvmlMonitor, WithoutABrokerThereIsNoDriver) {
  for (const char* path : {"", "/nonexistent/socket"}) {
    ::setenv(socket_variable, path, 1);
    const auto opened = open_nvml();
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, ErrorCode::environment);
    EXPECT_THAT(opened.error().message, HasSubstr("Driver Not Loaded (NVML error 9)"));
  }
  ::unsetenv(socket_variable);
}

TEST_F(NvmlMonitor, TheOldLibraryShowsTheSame) {
  ::setenv("GPUMOD_NVML_LIBRARY", GPUMOD_SIM_NVML_OLD, 1);
  const BrokerProcess broker(socket_, {"--fault", "process-record=32"});
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu->allocate("weights", Bytes::gib(10)));
  const Holder firefox({"--holds", "400MiB"});
  open();
  const auto seen = first();
  EXPECT_EQ(seen.total, Bytes::gib(24));
  EXPECT_EQ(seen.free, everything - Bytes::mib(10 * 1024 + 400));
  EXPECT_THAT(figures(seen), ::testing::UnorderedElementsAre(own(10 * 1024), std::pair(firefox.pid(), 400)));
  monitor_.reset();

  broker.ask("fault gpu-lost=1");
  EXPECT_THAT(open_nvml().error().message, HasSubstr("(NVML error 15)")) << "its nvmlInit wanted every GPU to work";
}

TEST_F(NvmlMonitor, TheDriversOwnShareIsToldApartWhereTheDriverTellsIt) {
  const BrokerProcess broker(socket_);
  open();
  EXPECT_EQ(first().reserved, Bytes::mib(512));
  EXPECT_EQ(first().mig, std::nullopt);
  const auto inventory = loop_.run_until_done(monitor_->inventory());
  ASSERT_TRUE(inventory);
  ASSERT_EQ(inventory->cards.size(), 2u);
  EXPECT_EQ(inventory->cards[1].persistence, true);
  EXPECT_THAT(inventory->missing, IsEmpty());
  monitor_.reset();
  ::setenv("GPUMOD_NVML_LIBRARY", GPUMOD_SIM_NVML_OLD, 1);
  open();
  EXPECT_EQ(first().reserved, std::nullopt);
}

TEST_F(NvmlMonitor, AGpuThatIsLeftOutIsInTheInventory) {
  const BrokerProcess broker(socket_, {"--fault", "gpu-lost=1"});
  open();
  ASSERT_EQ(sample()->size(), 1u);
  const auto inventory = loop_.run_until_done(monitor_->inventory());
  ASSERT_TRUE(inventory);
  ASSERT_EQ(inventory->missing.size(), 1u);
  EXPECT_EQ(inventory->missing[0].index, 1);
  EXPECT_EQ(inventory->missing[0].problem, "GPU is lost (NVML error 15)");
}

TEST_F(NvmlMonitor, MigDevicesAreToldApart) {
  const BrokerProcess broker(socket_, {"--mig", "1:1g.2gb=2GiB", "--mig", "1:2g.4gb=4GiB"});
  const std::string uuids = broker.ask("gpus");
  const std::string bigger = uuids.substr(uuids.rfind(' ') + 1);
  ASSERT_THAT(bigger, ::testing::StartsWith("MIG-"));
  ::setenv("CUDA_VISIBLE_DEVICES", bigger.c_str(), 1);
  auto gpu = Gpu::open();
  ::unsetenv("CUDA_VISIBLE_DEVICES");
  ASSERT_TRUE(gpu) << gpu.error().message;
  ASSERT_TRUE(gpu->allocate("weights", Bytes::gib(3)));
  const Holder whole({"--gpu", "0", "--holds", "1GiB"});
  open();
  for (const bool privileged : {true, false}) {
    if (!privileged) broker.ask("fault mig-unprivileged");
    const auto gpus = sample();
    ASSERT_TRUE(gpus);
    ASSERT_EQ(gpus->size(), 2u) << "slices are no GPUs";
    EXPECT_THAT((*gpus)[0].slices, IsEmpty());
    const auto& parent = (*gpus)[1];
    EXPECT_EQ(parent.mig, true);
    EXPECT_EQ(parent.total, privileged ? std::optional(Bytes::gib(8)) : std::nullopt);
    EXPECT_EQ(parent.free, privileged ? std::optional(Bytes::gib(5) - Bytes::mib(512)) : std::nullopt);
    EXPECT_THAT(figures(parent), ElementsAre(own(3 * 1024))) << "also where only the slice lists it";
    ASSERT_EQ(parent.slices.size(), 2u);
    EXPECT_THAT(parent.slices[0].processes, IsEmpty());
    EXPECT_EQ(parent.slices[0].total, Bytes::gib(2));
    const auto& slice = parent.slices[1];
    EXPECT_EQ(slice.uuid, bigger);
    EXPECT_THAT(slice.name, HasSubstr("MIG 2g.4gb"));
    EXPECT_NE(slice.gpu_instance, parent.slices[0].gpu_instance);
    EXPECT_EQ(slice.free, Bytes::gib(1));
    ASSERT_EQ(slice.processes.size(), 1u);
    EXPECT_EQ(slice.processes[0].used, Bytes::gib(3));
  }
  broker.ask("fault gpu-lost=1");
  EXPECT_THAT(sample().error().message, HasSubstr("is lost"));
}

TEST_F(NvmlMonitor, ManyProcessesAreAllSeen) {
  const BrokerProcess broker(socket_);
  std::vector<std::unique_ptr<Holder>> holders;
  for (int i = 0; i < 70; ++i)  // more than gpumod asks for at first
    holders.push_back(std::make_unique<Holder>(std::vector<std::string>{"--holds", "1MiB"}));
  open();
  EXPECT_EQ(first().processes.size(), 70u);
}

}  // namespace
}  // namespace gpumod::sim
