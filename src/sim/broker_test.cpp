// The broker as a process: what it believes of others, and what it survives.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "sim/broker_testing.h"

namespace gpumod::sim {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using namespace testing;

constexpr std::int64_t mib = 1 << 20;
/// Of the big card, all that can be had.
constexpr Bytes everything = Bytes::mib(24 * 1024 - 512);

class Broker : public ::testing::Test {
 protected:
  void TearDown() override { ::unsetenv("CUDA_VISIBLE_DEVICES"); }
  TestFolder directory_;
  std::filesystem::path socket_ = directory_.path() / "gpu";
};

TEST_F(Broker, AProcessTakesAndGivesBack) {
  const BrokerProcess broker(socket_);
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu) << gpu.error().message;
  const auto empty = gpu->memory();
  ASSERT_TRUE(empty);
  EXPECT_EQ(empty->total, everything) << "as CUDA counts: without what the driver keeps";
  EXPECT_EQ(empty->free, everything);
  ASSERT_TRUE(gpu->allocate("weights", Bytes::gib(10)));
  ASSERT_TRUE(gpu->allocate("key value\ncache", Bytes::gib(2)));
  EXPECT_EQ(gpu->memory()->free, everything - Bytes::gib(12));
  const auto refused = gpu->allocate("more", Bytes::gib(12));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::failed);
  EXPECT_THAT(refused.error().message, StartsWith("CUDA out of memory"));
  ASSERT_TRUE(gpu->release("key value\ncache"));
  ASSERT_TRUE(gpu->release("never taken"));
  EXPECT_EQ(gpu->memory()->free, everything - Bytes::gib(10));

  // Memory is the process's, not the connection's.
  gpu = Gpu::open(1);
  ASSERT_TRUE(gpu);
  EXPECT_EQ(Gpu::open()->memory()->free, everything - Bytes::gib(10));
}

TEST_F(Broker, DevicesAreThoseThatCudaWouldShow) {
  const BrokerProcess broker(socket_);
  const auto index_of = [](const char* visible, int device) {
    ::setenv("CUDA_VISIBLE_DEVICES", visible, 1);
    const auto gpu = Gpu::open(device);
    return gpu ? gpu->index() : -1;
  };
  EXPECT_EQ(Gpu::open(1)->index(), 1);
  EXPECT_FALSE(Gpu::open(2));
  EXPECT_EQ(index_of("1", 0), 1);
  EXPECT_EQ(index_of("1,0", 1), 0);
  EXPECT_EQ(index_of("1", 1), -1);
  EXPECT_EQ(index_of("", 0), -1);
  EXPECT_EQ(index_of("-1", 0), -1);
  EXPECT_EQ(index_of("0,7,1", 0), 0);
  EXPECT_EQ(index_of("0,7,1", 1), -1) << "one that is none hides all behind it";
  const std::string uuids = broker.ask("gpus");
  const std::string second = uuids.substr(uuids.rfind(' ') + 1);
  EXPECT_EQ(index_of(second.c_str(), 0), 1);
  EXPECT_EQ(index_of(second.substr(0, 12).c_str(), 0), 1);
  EXPECT_EQ(index_of("GPU-none", 0), -1);
}

TEST_F(Broker, UuidsStayTheSame) {
  std::string before;
  {
    const BrokerProcess broker(socket_);
    before = broker.ask("gpus");
  }
  const BrokerProcess broker(socket_);
  EXPECT_EQ(broker.ask("gpus"), before);
}

TEST_F(Broker, WithoutOneThereIsNoGpu) {
  ::unsetenv(socket_variable);
  EXPECT_EQ(Gpu::open().error().code, ErrorCode::environment);
  ::setenv(socket_variable, socket_.c_str(), 1);
  EXPECT_EQ(Gpu::open().error().code, ErrorCode::environment);
  ::unsetenv(socket_variable);
  BrokerProcess broker(socket_);
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu);
  broker.kill();
  EXPECT_EQ(gpu->memory().error().code, ErrorCode::environment);
  EXPECT_EQ(gpu->allocate("weights", Bytes::gib(1)).error().code, ErrorCode::environment);
}

TEST_F(Broker, WhoSeesAProcessEndFindsItsMemoryFree) {
  const BrokerProcess broker(socket_);
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu);
  for (int round = 0; round < 20; ++round) {
    Holder holder({"--holds", "20GiB"});
    ASSERT_EQ(gpu->memory()->free, everything - Bytes::gib(20));
    holder.kill();
    ASSERT_EQ(gpu->memory()->free, everything) << "round " << round;
  }
}

TEST_F(Broker, AWaitEndsWithTheProcessThatHeld) {
  const BrokerProcess broker(socket_);
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu);
  const auto too_much = gpu->wait_for_free(Bytes::gib(100), 50ms);
  ASSERT_FALSE(too_much);
  EXPECT_EQ(too_much.error().code, ErrorCode::failed);
  EXPECT_THAT(too_much.error().message, HasSubstr("24064 MiB are free"));

  Holder holder({"--holds", "20GiB"});
  LineClient waiting(socket_);
  ASSERT_TRUE(waiting.send(fmt::format("wait 0 {} 60000\nmemory 0\n", everything.count())));
  // The broker has read the question when it has answered a later one: it reads everybody before it answers anybody.
  ASSERT_THAT(broker.ask("memory 0"), StartsWith("ok"));
  holder.kill();
  EXPECT_EQ(waiting.read_line(), "ok");
  EXPECT_EQ(waiting.read_line(), fmt::format("ok {} {} 0 {}", 24576 * mib, 512 * mib, everything.count()));
}

TEST_F(Broker, ReturningMemoryFreesItselfAtItsTime) {
  const BrokerProcess broker(socket_, {"--release-delay", "200ms", "--release-ramp", "200ms"});
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu);
  Holder holder({"--holds", "20GiB"});
  const TimePoint before = now();
  holder.kill();
  ASSERT_TRUE(gpu->wait_for_free(Bytes::gib(14), patience));
  EXPECT_GE(now() - before, 300ms) << "half of it";
  ASSERT_TRUE(gpu->wait_for_free(everything, patience));
  EXPECT_GE(now() - before, 400ms);
}

TEST_F(Broker, SimulatedTimeMayRunFaster) {
  const BrokerProcess broker(socket_, {"--release-delay", "1h"}, {"GPUMOD_SIM_SPEED=36000"});
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu);
  {
    Holder holder({"--holds", "20GiB"});
    holder.kill();
  }
  EXPECT_TRUE(gpu->wait_for_free(everything, patience)) << "an hour in a tenth of a second";
}

TEST_F(Broker, OthersOfTheMachineAreKeptOut) {
  const BrokerProcess broker(socket_);
  struct stat info {};
  ASSERT_EQ(::stat(socket_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(Broker, GarbageDoesNoHarm) {
  const BrokerProcess broker(socket_);
  {
    LineClient endless(socket_);
    endless.send(std::string(1 << 20, 'x'));
    EXPECT_EQ(endless.read_line(), "") << "closed: that is no line";
  }
  std::string noise;
  unsigned state = 1;
  for (int i = 0; i < 200'000; ++i)
    noise += static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  LineClient(socket_).send(noise);
  LineClient(socket_).send("allocate 0 5");
  LineClient(socket_).send(std::string("\0\n\0\n", 4));
  {
    LineClient waits_and_leaves(socket_);
    waits_and_leaves.send("wait 0 999999999999 60000\n");
  }
  {
    LineClient never_reads(socket_);
    std::string flood;
    for (int i = 0; i < 1000; ++i)
      flood += "state\n";
    while (never_reads.send(flood)) {
    }
  }
  std::vector<std::unique_ptr<LineClient>> crowd;
  for (int i = 0; i < 300; ++i)
    crowd.push_back(std::make_unique<LineClient>(socket_));
  EXPECT_THAT(broker.ask("memory 0"), fmt::format("ok {} {} 0 {}", 24576 * mib, 512 * mib, everything.count()));
}

TEST_F(Broker, AQuestionOfSomebodyWhoLeavesIsHeard) {
  const BrokerProcess broker(socket_);
  {
    LineClient client(socket_);
    client.send("fault na-memory\n");
  }
  EXPECT_TRUE(until([&] { return broker.ask("state").find("na-memory") != std::string::npos; }));
  LineClient half(socket_);
  half.send("memory 0\nmemory 1\n");
  half.say_no_more();
  EXPECT_THAT(half.read_line(), StartsWith("ok"));
  EXPECT_THAT(half.read_line(), StartsWith("ok"));
  EXPECT_EQ(half.read_line(), "");
}

TEST_F(Broker, EndsCleanlyWhenTold) {
  for (const int signal : {SIGTERM, SIGINT}) {
    ChildProcess process(BrokerProcess::arguments(socket_, {}));
    ASSERT_EQ(process.read_line(), "ready");
    ::kill(process.pid(), signal);
    EXPECT_EQ(process.read_line(), "");
    EXPECT_TRUE(until([&] { return !std::filesystem::exists(socket_); }));
  }
}

TEST_F(Broker, EndsWithItsParentWhenAskedTo) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd read_end(ends[0]);
  Fd write_end(ends[1]);
  auto argv = BrokerProcess::arguments(socket_, {});
  std::vector<char*> arguments;
  for (auto& argument : argv)
    arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const pid_t parent = ::fork();
  ASSERT_GE(parent, 0);
  if (parent == 0) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::dup2(write_end.get(), 1);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    ::pause();
    ::_exit(0);
  }
  write_end.reset();
  char ready[6] = {};
  ASSERT_EQ(::read(read_end.get(), ready, 6), 6);
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  char rest = 0;
  EXPECT_EQ(::read(read_end.get(), &rest, 1), 0) << "its output is closed: it has ended";
  EXPECT_FALSE(std::filesystem::exists(socket_)) << "and has cleaned up";
}

TEST_F(Broker, ASocketIsTakenOverOnlyFromTheDead) {
  {
    BrokerProcess first(socket_);
    ChildProcess second(BrokerProcess::arguments(socket_, {}));
    EXPECT_EQ(second.read_line(), "") << "not ready: there is one already";
    EXPECT_THAT(first.ask("memory 0"), StartsWith("ok"));
    first.kill();
    EXPECT_TRUE(std::filesystem::exists(socket_));
  }
  const BrokerProcess third(socket_);
  EXPECT_THAT(third.ask("memory 0"), StartsWith("ok"));
}

TEST_F(Broker, ADesktopTakesTheRoomThatBecomesFree) {
  const BrokerProcess broker(socket_);
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu);
  ASSERT_TRUE(gpu->allocate("weights", Bytes::gib(20)));
  const Holder game({"--as", "game", "--holds", "100MiB", "--grab", "6GiB", "--when-free", "20GiB"});
  EXPECT_THAT(broker.ask("state"), HasSubstr("\"command\":\"game\""));
  EXPECT_FALSE(gpu->wait_for_free(Bytes::gib(20), 100ms));
  EXPECT_EQ(gpu->memory()->free, everything - Bytes::mib(20 * 1024 + 100)) << "it still waits";
  ASSERT_TRUE(gpu->release("weights"));
  EXPECT_TRUE(until([&] { return gpu->memory()->free == everything - Bytes::mib(6 * 1024 + 100); }));
}

TEST_F(Broker, ADesktopGoesUpAndDownAndEndsWhenTold) {
  const BrokerProcess broker(socket_);
  auto gpu = Gpu::open();
  ASSERT_TRUE(gpu);
  Holder firefox({"--as", "firefox", "--holds", "400MiB", "--noise", "300MiB", "--period", "5ms"});
  std::set<std::int64_t> seen;
  EXPECT_TRUE(until([&] {
    seen.insert((everything - gpu->memory()->free).count());
    return *seen.begin()<350 * mib&& * seen.rbegin()> 450 * mib;
  }));
  EXPECT_GE(*seen.begin(), 100 * mib);
  EXPECT_LE(*seen.rbegin(), 700 * mib);
  ::kill(firefox.pid(), SIGTERM);
  siginfo_t end{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(firefox.pid()), &end, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(end.si_code, CLD_EXITED);
  EXPECT_EQ(end.si_status, 0);
  EXPECT_EQ(gpu->memory()->free, everything);
}

}  // namespace
}  // namespace gpumod::sim
