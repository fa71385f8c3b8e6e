// NVML as a driver would answer, through the stand-in library (tests/support/nvml_standin.cpp).
#include "host/gpu_monitor.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "host/local_testing.h"
#include "host/nvml_library.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class Nvml : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("GPUMOD_NVML_LIBRARY", GPUMOD_NVML_STANDIN, 1);
    ::setenv("GPUMOD_NVML_STANDIN_FILE", world_.c_str(), 1);
  }
  void TearDown() override {
    ::unsetenv("GPUMOD_NVML_LIBRARY");
    ::unsetenv("GPUMOD_NVML_STANDIN_FILE");
  }
  void world(const std::string& text) { std::ofstream(world_) << text << "trace " << trace_.string() << "\n"; }
  std::string trace() const { return read_file(trace_, 1 << 20).value_or(""); }
  Result<std::vector<GpuSample>> sample() {
    auto monitor = open_nvml();
    if (!monitor) return fail(monitor.error());
    return loop_.run_until_done((*monitor)->sample());
  }
  static std::vector<std::pair<pid_t, std::int64_t>> figures(const GpuSample& gpu) {
    std::vector<std::pair<pid_t, std::int64_t>> found;
    for (const auto& process : gpu.processes)
      found.emplace_back(process.pid, process.used ? process.used->count() : -1);
    return found;
  }

  TestFolder directory_;
  std::filesystem::path world_ = directory_.path() / "world";
  std::filesystem::path trace_ = directory_.path() / "trace";
  Loop loop_;
};

TEST_F(Nvml, SamplesEveryGpu) {
  world(
      "driver 550.54.14\n"
      "gpu GPU-a 25757220864 20000000000 NVIDIA GeForce RTX 4090\n"
      "gpu GPU-b 8589934592 1024 NVIDIA T4\n"
      "process 0 compute 4242 1000\n"
      "process 1 compute 77 5\n");
  const auto monitor = open_nvml();
  ASSERT_TRUE(monitor) << monitor.error().message;
  EXPECT_EQ((*monitor)->driver_version(), "550.54.14");
  const auto gpus = loop_.run_until_done((*monitor)->sample());
  ASSERT_TRUE(gpus) << gpus.error().message;
  ASSERT_EQ(gpus->size(), 2u);
  EXPECT_EQ((*gpus)[0].uuid, "GPU-a");
  EXPECT_EQ((*gpus)[0].name, "NVIDIA GeForce RTX 4090");
  EXPECT_EQ((*gpus)[0].total, Bytes(25757220864));
  EXPECT_EQ((*gpus)[0].free, Bytes(20000000000));
  EXPECT_THAT(figures((*gpus)[0]), ElementsAre(std::pair(4242, 1000)));
  EXPECT_EQ((*gpus)[1].index, 1);
  EXPECT_THAT(figures((*gpus)[1]), ElementsAre(std::pair(77, 5)));

  world("gpu GPU-a 25757220864 5 NVIDIA GeForce RTX 4090\ngpu GPU-b 8589934592 6 NVIDIA T4\n");
  const auto later = loop_.run_until_done((*monitor)->sample());
  EXPECT_EQ((*later)[0].free, Bytes(5));
  EXPECT_THAT((*later)[0].processes, IsEmpty());
}

TEST_F(Nvml, ReadsRecordsOfEveryDriver) {
  for (const int stride : {16, 24, 32}) {
    for (const int count : {1, 2, 3, 7}) {
      std::string text = fmt::format("stride {}\ngpu GPU-a 100 50 X\n", stride);
      std::vector<std::pair<pid_t, std::int64_t>> expected;
      for (int i = 0; i < count; ++i) {
        text += fmt::format("process 0 compute {} {}\n", 1000 + i, (1 << 20) * (i + 1));
        expected.emplace_back(1000 + i, (1 << 20) * (i + 1));
      }
      world(text);
      const auto gpus = sample();
      ASSERT_TRUE(gpus);
      EXPECT_EQ(figures(gpus->front()), expected) << "stride " << stride;
    }
  }
}

TEST(ProcessStride, IsToldByWhatWasOverwritten) {
  const auto stride = [](std::size_t written, std::size_t count) {
    std::vector<unsigned char> buffer(8 * nvml::largest_process_record, nvml::sentinel);
    std::fill_n(buffer.begin(), written, static_cast<unsigned char>(0));
    return nvml::process_stride(buffer, count);
  };
  EXPECT_EQ(stride(16, 1), 16u);
  EXPECT_EQ(stride(24, 1), 24u);
  EXPECT_EQ(stride(32, 1), 32u);
  EXPECT_EQ(stride(48, 2), 24u);
  EXPECT_EQ(stride(48, 3), 16u);
  EXPECT_EQ(stride(40, 1), 0u) << "longer than any known record";
}

TEST_F(Nvml, FallsBackToTheOldestNames) {
  ::setenv("GPUMOD_NVML_LIBRARY", GPUMOD_NVML_STANDIN_OLD, 1);
  world(
      "stride 24\ngpu GPU-a 100 50 X\nprocess 0 compute 10 1\nprocess 0 compute 11 2\nprocess 0 graphics 12 3\n"
      "process 0 mps 13 4\n");
  const auto gpus = sample();
  ASSERT_TRUE(gpus) << gpus.error().message;
  EXPECT_EQ(gpus->front().free, Bytes(50));
  EXPECT_THAT(figures(gpus->front()), ElementsAre(std::pair(10, 1), std::pair(11, 2), std::pair(12, 3)));
}

TEST_F(Nvml, AProcessInSeveralListsCountsOnceWithItsLargestFigure) {
  world(
      "gpu GPU-a 100 50 X\n"
      "process 0 compute 10 5\nprocess 0 graphics 10 9\nprocess 0 mps 10 7\n"
      "process 0 compute 11 -\nprocess 0 graphics 11 3\nprocess 0 mps 12 -\n");
  const auto gpus = sample();
  ASSERT_TRUE(gpus);
  EXPECT_THAT(figures(gpus->front()), ElementsAre(std::pair(10, 9), std::pair(11, 3), std::pair(12, -1)));
}

TEST_F(Nvml, MoreProcessesThanExpectedAreAllRead) {
  std::string text = "gpu GPU-a 100 50 X\n";
  for (int i = 1; i <= 700; ++i)
    text += fmt::format("process 0 compute {} {}\n", i, i);
  world(text);
  const auto gpus = sample();
  ASSERT_TRUE(gpus);
  EXPECT_EQ(gpus->front().processes.size(), 700u);
  EXPECT_EQ(gpus->front().processes.back().used, Bytes(700));
}

TEST_F(Nvml, UnifiedMemoryHasNoFigures) {
  world("gpu GPU-a - 0 NVIDIA GB10\nprocess 0 compute 10 5\n");
  const auto gpus = sample();
  ASSERT_TRUE(gpus) << gpus.error().message;
  EXPECT_EQ(gpus->front().total, std::nullopt);
  EXPECT_EQ(gpus->front().free, std::nullopt);
  EXPECT_EQ(gpus->front().processes.size(), 1u);
}

TEST_F(Nvml, ALostGpuIsNamed) {
  for (const std::string function : {"memory", "compute", "graphics"}) {
    world("gpu GPU-a 100 50 Good One\ngpu GPU-b 100 50 Bad One\nfail 1 " + function + " 15\n");
    const auto gpus = sample();
    ASSERT_FALSE(gpus) << function;
    EXPECT_EQ(gpus.error().code, ErrorCode::environment);
    EXPECT_THAT(gpus.error().message, HasSubstr("GPU 1 (Bad One, GPU-b) is lost: GPU is lost (NVML error 15)"));
    EXPECT_THAT(gpus.error().hint, HasSubstr("reset"));
  }
}

TEST_F(Nvml, ABadGpuDoesNotHideTheOthers) {
  world(
      "gpu GPU-a 100 50 A\ngpu GPU-b 100 60 B\ngpu GPU-c 100 70 C\nfail 0 handle 999\nfail 1 memory 999\n"
      "fail 1 compute 4\nfail 1 mps 3\n");
  const auto gpus = sample();
  ASSERT_TRUE(gpus) << gpus.error().message;
  ASSERT_EQ(gpus->size(), 2u);
  EXPECT_EQ((*gpus)[0].index, 1);
  EXPECT_EQ((*gpus)[0].free, std::nullopt);
  EXPECT_EQ((*gpus)[1].index, 2) << "the index stays NVML's own";
  EXPECT_EQ((*gpus)[1].free, Bytes(70));
}

TEST_F(Nvml, SaysWhyTheDriverDoesNotStart) {
  const std::pair<int, std::pair<const char*, const char*>> cases[] = {
      {9, {"Driver Not Loaded", "modprobe"}},
      {18, {"version mismatch", "reboot"}},
      {4, {"Insufficient Permissions", "/dev/nvidiactl"}},
      {999, {"Unknown Error", "nvidia-smi"}},
  };
  for (const auto& [code, words] : cases) {
    world(fmt::format("init {}\n", code));
    const auto monitor = open_nvml();
    ASSERT_FALSE(monitor);
    EXPECT_EQ(monitor.error().code, ErrorCode::environment);
    EXPECT_THAT(monitor.error().message, HasSubstr(words.first));
    EXPECT_THAT(monitor.error().hint, HasSubstr(words.second));
  }
}

TEST_F(Nvml, SaysWhatIsWrongWithTheLibrary) {
  ::setenv("GPUMOD_NVML_LIBRARY", "/nonexistent/libnvidia-ml.so.1", 1);
  auto monitor = open_nvml();
  ASSERT_FALSE(monitor);
  EXPECT_EQ(monitor.error().code, ErrorCode::environment);
  EXPECT_THAT(monitor.error().message, HasSubstr("/nonexistent/libnvidia-ml.so.1"));
  EXPECT_THAT(monitor.error().hint, HasSubstr("GPUMOD_NVML_LIBRARY"));
  ::setenv("GPUMOD_NVML_LIBRARY", "libm.so.6", 1);
  monitor = open_nvml();
  ASSERT_FALSE(monitor);
  EXPECT_THAT(monitor.error().message, HasSubstr("nvmlInit"));
}

TEST_F(Nvml, ShutsDownOnceForEachStart) {
  world("gpu GPU-a 100 50 X\n");
  {
    const auto first = open_nvml();
    const auto second = open_nvml();
    EXPECT_EQ(trace(), "init\ninit\n");
  }
  EXPECT_EQ(trace(), "init\ninit\nshutdown\nshutdown\n");
}

Task<void> sample_into(GpuMonitor& monitor, std::vector<Result<std::vector<GpuSample>>>& results) {
  auto result = co_await monitor.sample();
  results.push_back(std::move(result));
}
Task<int> all_of(std::vector<Task<void>> tasks) {
  co_await run_all(std::move(tasks));
  co_return 0;
}

TEST_F(Nvml, CallsNeverOverlapAndAHungDriverDoesNotEatTheThreads) {
  const auto gate = directory_.path() / "gate";
  world("gpu GPU-a 100 50 X\nhang " + gate.string() + "\n");
  const auto monitor = open_nvml();
  ASSERT_TRUE(monitor);
  std::vector<Result<std::vector<GpuSample>>> results;
  std::vector<Task<void>> tasks;
  for (int i = 0; i < 10; ++i)
    tasks.push_back(sample_into(**monitor, results));
  loop_.spawn([](std::vector<Result<std::vector<GpuSample>>>& seen, std::filesystem::path file) -> Task<void> {
    while (seen.size() < 5)
      co_await wait_for(1ms);  // those are turned away at once
    std::ofstream{file};
  }(results, gate));
  loop_.run_until_done(all_of(std::move(tasks)));
  ASSERT_EQ(results.size(), 10u);
  int answered = 0;
  for (const auto& result : results) {
    answered += result.has_value();
    if (!result) {
      EXPECT_THAT(result.error().message, HasSubstr("does not answer"));
    }
  }
  EXPECT_EQ(answered, 5);
  EXPECT_THAT(trace(), Not(HasSubstr("OVERLAP")));
  EXPECT_TRUE(loop_.run_until_done((*monitor)->sample())) << "once the driver answers again, so do we";
}

TEST_F(Nvml, WhoAsksAStuckDriverGetsAnAnswer) {
  const auto gate = directory_.path() / "gate";
  world("gpu GPU-a 100 50 X\nhang " + gate.string() + "\n");
  const auto monitor = open_nvml(20ms);
  ASSERT_TRUE(monitor);
  const auto asked = loop_.run_until_done((*monitor)->sample());
  ASSERT_FALSE(asked);
  EXPECT_EQ(asked.error().code, ErrorCode::environment);
  EXPECT_THAT(asked.error().message, HasSubstr("does not answer: it was asked 0.02 s ago"));
  std::ofstream{gate};
  bool answers = false;
  for (const auto deadline = now() + 20s; !answers && now() < deadline;)
    answers = loop_.run_until_done((*monitor)->sample()).has_value();
  EXPECT_TRUE(answers) << "once the driver answers again, so do we";
}

TEST_F(Nvml, TheMonitorMayGoWhileACallHangs) {
  const auto gate = directory_.path() / "gate";
  world("gpu GPU-a 100 50 X\nhang " + gate.string() + "\n");
  auto monitor = open_nvml();
  ASSERT_TRUE(monitor);
  std::vector<Result<std::vector<GpuSample>>> results;
  loop_.spawn(sample_into(**monitor, results));
  loop_.post([&] { loop_.stop(); });
  loop_.run();
  monitor->reset();
  EXPECT_EQ(trace(), "init\n") << "not shut down while a call runs";
  std::ofstream{gate};
  loop_.run();  // until nothing is left to wait for
  ASSERT_EQ(results.size(), 1u);
  EXPECT_TRUE(results[0]);
  EXPECT_EQ(trace(), "init\nshutdown\n");
}

}  // namespace
}  // namespace gpumod
