// The last look before a commit, and what must be proven of a sleeper and of a load that failed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "switching/switch_testing.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace testing_world;

struct LastLookTest : SwitchTest {
  LastLookTest() { world.add(make_service("chat", 7070, Bytes::mib(12000))); }
  static Goal both() { return mode({"chat", "small"}); }
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
    if (!started && done(now, "chat")) world.run_unit("gpumod-embed.service"), started = true;
  });
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_FALSE(world.unit_runs("gpumod-embed.service"));
  EXPECT_TRUE(world.did("stop_unit embed"));
}

TEST_F(LastLookTest, ASleeperThatEndedInsteadIsStartedAndPutToSleep) {
  auto chat = make_service("chat", 7070, Bytes::mib(12000));
  chat.sleep = SleepAbility::level1;
  world.add(chat);
  world.run_unit("gpumod-chat.service");
  world.ends_asleep.insert("chat");
  auto machine = make(only("chat", Residency::sleeping1));
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
  auto machine = make(only("coder", Residency::running));
  world.run(machine);
  ASSERT_TRUE(machine.problem());
  EXPECT_THAT(machine.problem()->message, HasSubstr("another model answers; and its release is not proven"));
  EXPECT_EQ(times("load_model coder"), 1);
  expect_clean();
}

}  // namespace
}  // namespace gpumod
