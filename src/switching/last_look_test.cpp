// The last look before a commit, and what must be proven of a sleeper and of a load that failed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "switching/switch.h"
#include "switching/world_testing.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using namespace testing_world;

class LastLookTest : public ::testing::Test {
 protected:
  LastLookTest() {
    world.add(make_service("chat", 7070, Bytes::mib(12000)));
    world.add(make_service("small", 9000, Bytes::mib(4000)));
    world.add(make_service("other", 9100, Bytes::mib(1000)));
  }
  Switch make(Goal goal) {
    SwitchRequest request;
    request.goal = std::move(goal);
    request.knowledge = world.knowledge;
    return Switch(std::move(request));
  }
  static Goal both() { return Goal{"both", {{"chat", Residency::running}, {"small", Residency::running}}, true}; }
  long times(const std::string& what) const { return std::count(world.history.begin(), world.history.end(), what); }
  static bool done(const Switch& machine, const std::string& subject, Action action = Action::start) {
    return std::any_of(machine.reports().begin(), machine.reports().end(), [&](const StepReport& line) {
      return line.subject == subject && line.action == action && line.result == "done";
    });
  }

  World world;
};

TEST_F(LastLookTest, AnotherProcessThanTheVerifiedOneIsVerifiedAgain) {
  auto machine = make(both());
  bool replaced = false;
  world.run(machine, [&](Switch& now, int) {
    if (!replaced && done(now, "chat")) world.replace_process("gpumod-chat.service"), replaced = true;
  });
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_TRUE(done(machine, "chat", Action::verify)) << "the new process was believed unasked";
  EXPECT_EQ(times("start_unit chat"), 1);
}

TEST_F(LastLookTest, AProcessThatIsReplacedForEverIsNoSuccess) {
  world.answers_late["small"] = 1s;
  auto machine = make(both());
  world.run(machine, [&](Switch& now, int) {
    if (done(now, "chat")) world.replace_process("gpumod-chat.service");
  });
  EXPECT_EQ(machine.result(), SwitchResult::rolled_back);
  ASSERT_TRUE(machine.problem());
  EXPECT_THAT(machine.problem()->message, HasSubstr("restarted by something else"));
}

TEST_F(LastLookTest, WhatSomebodyStartsMeanwhileIsStopped) {
  auto machine = make(both());
  bool started = false;
  world.run(machine, [&](Switch& now, int) {
    if (!started && done(now, "chat")) world.run_unit("gpumod-other.service"), started = true;
  });
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_FALSE(world.unit_runs("gpumod-other.service"));
  EXPECT_TRUE(world.did("stop_unit other"));
}

TEST_F(LastLookTest, ASleeperThatEndedInsteadIsStartedAndPutToSleep) {
  auto chat = make_service("chat", 7070, Bytes::mib(12000));
  chat.sleep = SleepAbility::level1;
  world.add(chat);
  world.run_unit("gpumod-chat.service");
  world.ends_asleep.insert("chat");
  auto machine = make(Goal{"", {{"chat", Residency::sleeping1}}, false});
  world.run(machine, [&](Switch&, int) {
    if (!world.unit_runs("gpumod-chat.service")) world.ends_asleep.clear();
  });
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("sleep_service chat", "start_unit chat", "sleep_service chat"));
}

TEST_F(LastLookTest, ALoadThatFailedIsNotTriedAgainBeforeItIsSeenToBeGone) {
  world.add(make_router_service("coder", "llama", 7071, Bytes::mib(8000)));
  world.run_unit("gpumod-router-llama.service", {});
  world.wrong_model.insert("coder");
  world.unload_does_nothing.insert("coder");
  auto machine = make(Goal{"", {{"coder", Residency::running}}, false});
  world.run(machine);
  ASSERT_TRUE(machine.problem());
  EXPECT_THAT(machine.problem()->message, HasSubstr("another model answers; and its release is not proven"));
  EXPECT_EQ(times("load_model coder"), 1);
  EXPECT_THAT(world.violations, IsEmpty());
}

}  // namespace
}  // namespace gpumod
