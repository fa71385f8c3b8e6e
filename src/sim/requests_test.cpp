#include "sim/requests.h"

#include <boost/json/parse.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod::sim {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr TimePoint start{std::chrono::hours(1)};
constexpr HolderId vllm{100, 5};
constexpr HolderId firefox{200, 6};
constexpr std::int64_t gib = std::int64_t{1} << 30;

class SimRequests : public ::testing::Test {
 protected:
  static Requests::Setup setup() {
    Requests::Setup setup;
    setup.cards = {{"Big One", "GPU-big", Bytes::gib(24), Bytes::gib(1)},
                   {"Small", "GPU-small", Bytes::gib(8), Bytes()}};
    setup.driver_version = "1.2.3";
    setup.command_of = [](HolderId id) { return id == vllm ? "VLLM::EngineCore" : "firefox\n"; };
    return setup;
  }
  std::string ask(const std::string& line, HolderId asker = vllm, TimePoint now = start) {
    const auto answer = requests_.answer(asker, line, now);
    const auto* text = std::get_if<std::string>(&answer);
    return text ? *text : "(waits)";
  }
  Requests requests_{setup()};
};

TEST_F(SimRequests, MemoryIsTakenAndGivenBackByWhoeverAsks) {
  EXPECT_EQ(ask("gpus"), "ok GPU-big GPU-small\n");
  EXPECT_EQ(ask(fmt::format("allocate 0 {} the weights", 10 * gib)), "ok\n");
  EXPECT_EQ(ask(fmt::format("allocate 0 {} the weights", 2 * gib), firefox), "ok\n");
  EXPECT_EQ(ask("memory 0"), fmt::format("ok {} {} {} {}\n", 24 * gib, gib, 12 * gib, 11 * gib));
  EXPECT_THAT(ask(fmt::format("allocate 0 {} kv", 11 * gib + 1)), StartsWith("error out-of-memory CUDA out of memory"));
  EXPECT_EQ(ask("release 0 the weights\r"), "ok\n") << "line ends of other systems do no harm";
  EXPECT_EQ(ask("memory 0"), fmt::format("ok {} {} {} {}\n", 24 * gib, gib, 2 * gib, 21 * gib));
  requests_.ended(firefox, start);
  EXPECT_EQ(ask("memory 0"), fmt::format("ok {} {} {} {}\n", 24 * gib, gib, 0, 23 * gib));
}

TEST_F(SimRequests, NonsenseIsAnsweredAndChangesNothing) {
  const std::string before = ask("state");
  for (const std::string line : {"",
                                 "   ",
                                 "nonsense",
                                 "memory",
                                 "memory x",
                                 "memory 2",
                                 "memory -1",
                                 "memory 99999999999",
                                 "allocate 0",
                                 "allocate 0 -5 x",
                                 "allocate 0 99999999999999999999 x",
                                 "allocate 7 5 x",
                                 "release",
                                 "kind 0",
                                 "kind 0 all",
                                 "held 0 5",
                                 "held 9 5 x",
                                 "wait 0 5",
                                 "wait 0 5 x",
                                 "wait 0 5 5 5",
                                 "next",
                                 "next -1 0",
                                 "curve",
                                 "curve 5 5 listed",
                                 "curve 1s 1s",
                                 "curve 1s 1s seen",
                                 "curve 1s 1s listed often",
                                 "fault",
                                 "fault nonsense",
                                 "clear nonsense",
                                 "xid 0",
                                 "xid 0 x",
                                 "state\xff\x01",
                                 "LOOK"})
    EXPECT_THAT(ask(line), StartsWith("error usage ")) << line;
  EXPECT_EQ(ask("state"), before);
  EXPECT_THAT(ask("fault slw=1s"), HasSubstr("Did you mean 'slow'?"));
}

TEST_F(SimRequests, AWaitForALabelEndsWhenSomebodyHoldsIt) {
  const auto answer = requests_.answer(firefox, "held 0 1000 profiling", start);
  const auto* waiting = std::get_if<Waiting>(&answer);
  ASSERT_TRUE(waiting);
  ask(fmt::format("allocate 0 {} weights", gib));
  EXPECT_EQ(requests_.answer_now(*waiting, start + 999ms), std::nullopt);
  EXPECT_EQ(requests_.answer_now(*waiting, start + 1s), "error timeout nobody holds 'profiling' on GPU 0\n");
  ask(fmt::format("allocate 0 {} profiling", gib));
  EXPECT_EQ(requests_.answer_now(*waiting, start), "ok\n");
}

TEST_F(SimRequests, AWaitEndsWhenSoMuchIsFreeOrPatienceRunsOut) {
  EXPECT_EQ(ask(fmt::format("wait 0 {} 1000", 23 * gib)), "ok\n") << "what is true already is answered at once";
  ask(fmt::format("allocate 0 {} weights", 10 * gib));
  const auto answer = requests_.answer(firefox, fmt::format("wait 0 {} 1000", 20 * gib), start);
  const auto* waiting = std::get_if<Waiting>(&answer);
  ASSERT_TRUE(waiting);
  EXPECT_EQ(waiting->deadline, start + 1s);
  EXPECT_EQ(requests_.answer_now(*waiting, start + 999ms), std::nullopt);
  EXPECT_THAT(requests_.answer_now(*waiting, start + 1s).value_or(""), StartsWith("error timeout 13312 MiB are free"));
  requests_.ended(vllm, start);
  EXPECT_EQ(requests_.answer_now(*waiting, start), "ok\n");
}

TEST_F(SimRequests, ReturningMemoryFollowsTheCurve) {
  EXPECT_EQ(ask("curve 90s 0s unlisted"), "ok\n");
  ask(fmt::format("allocate 0 {} weights", 10 * gib));
  requests_.ended(vllm, start);
  EXPECT_EQ(ask("memory 0", firefox, start + 89s), fmt::format("ok {} {} {} {}\n", 24 * gib, gib, 10 * gib, 13 * gib));
  EXPECT_EQ(ask("memory 0", firefox, start + 90s), fmt::format("ok {} {} {} {}\n", 24 * gib, gib, 0, 23 * gib));
}

TEST_F(SimRequests, LookIsAllThatNvmlShows) {
  ask(fmt::format("allocate 0 {} weights", 2 * gib));
  ask(fmt::format("allocate 0 {} tab", gib), firefox);
  ask("kind 0 both", firefox);
  ask("fault na-memory");
  ask("fault slow=250ms");
  ask("fault gpu-lost=1");
  EXPECT_EQ(ask("look"), fmt::format("driver 1.2.3\n"
                                     "gpu 0 {} {} {} {} 0 GPU-big Big One\n"
                                     "process 0 compute 100 {} VLLM::EngineCore\n"
                                     "process 0 compute 200 {} firefox\xEF\xBF\xBD\n"
                                     "process 0 graphics 200 {} firefox\xEF\xBF\xBD\n"
                                     "gpu 1 {} 0 0 {} 1 GPU-small Small\n"
                                     "fault gpu-lost 1\nfault na-memory \nfault slow 250000000\nend\n",
                                     24 * gib, gib, 3 * gib, 20 * gib, 2 * gib, gib, gib, 8 * gib, 8 * gib));
  EXPECT_THAT(ask("allocate 1 5 x"), StartsWith("error lost CUDA error"));
  ask("clear gpu-lost");
  ask("clear na-memory");
  ask("clear na-memory");
  EXPECT_THAT(ask("look"), HasSubstr("GPU-small Small\nfault slow"));
}

TEST_F(SimRequests, StateIsOneLineOfJson) {
  ask(fmt::format("allocate 1 {} weights", 2 * gib));
  ask("fault host-pids=1000");
  const std::string text = ask("state");
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  const auto state = boost::json::parse(text);
  EXPECT_EQ(state.at("driver").as_string(), "1.2.3");
  EXPECT_EQ(state.at("faults").at("host-pids").as_string(), "1000");
  const auto& gpu = state.at("gpus").at(1);
  EXPECT_EQ(gpu.at("name").as_string(), "Small");
  EXPECT_EQ(gpu.at("free").to_number<std::int64_t>(), 6 * gib);
  const auto& holder = gpu.at("holders").at(0);
  EXPECT_EQ(holder.at("pid").to_number<int>(), 100);
  EXPECT_EQ(holder.at("command").as_string(), "VLLM::EngineCore");
  EXPECT_EQ(holder.at("allocations").at("weights").to_number<std::int64_t>(), 2 * gib);
}

TEST_F(SimRequests, EventsComeInTheirOrder) {
  EXPECT_EQ(ask("position"), "ok 0\n");
  const auto answer = requests_.answer(vllm, "next 0 1000", start);
  const auto* waiting = std::get_if<Waiting>(&answer);
  ASSERT_TRUE(waiting);
  EXPECT_EQ(requests_.answer_now(*waiting, start), std::nullopt);
  EXPECT_EQ(requests_.answer_now(*waiting, start + 1s), "error timeout nothing has happened\n");
  ask("xid 1 31");
  EXPECT_EQ(requests_.answer_now(*waiting, start), "ok 1 1 8 31\n");
  ask("fault gpu-lost=0");
  ask("fault gpu-lost=0,1");
  EXPECT_EQ(ask("next 1 0"), "ok 2 0 8 79\n") << "fallen off the bus";
  EXPECT_EQ(ask("next 2 0"), "ok 3 0 16384 0\n") << "and not there any more";
  EXPECT_EQ(ask("next 3 0"), "ok 4 1 8 79\n") << "the one that was lost before is not lost again";
  EXPECT_EQ(ask("position"), "ok 5\n");
  for (int i = 0; i < 5000; ++i)
    ask("xid 0 13");
  EXPECT_THAT(ask("next 0 0"), StartsWith("ok 3982 ")) << "old ones are forgotten";
}

TEST(SimFaults, TakeOnlyValuesThatFit) {
  for (const char* good :
       {"process-record=16", "process-record=32", "na-memory", "host-pids=-5", "slow=1.5s", "no-memory-info",
        "gpu-lost=0", "gpu-lost=0,1", "missing-process-list", "missing-process-list=4"})
    EXPECT_TRUE(Faults().set(good, 2)) << good;
  for (const char* bad :
       {"process-record=20", "process-record", "na-memory=yes", "host-pids", "slow", "slow=5", "gpu-lost", "gpu-lost=2",
        "gpu-lost=0,", "gpu-lost=-1", "missing-process-list=all", "", "=", "nonsense"})
    EXPECT_FALSE(Faults().set(bad, 2)) << bad;
}

}  // namespace
}  // namespace gpumod::sim
