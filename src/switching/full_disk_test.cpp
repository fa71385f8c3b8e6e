// Switches whose journal cannot be written: what was not written down is not done, and not waited for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "switching/switch_testing.h"

namespace gpumod {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using namespace testing_world;

struct FullDisk : SwitchTest {
  FullDisk() { world.unjournaled = "write the journal: database or disk is full"; }
};

TEST_F(FullDisk, AStopThatCannotBeWrittenDownEndsAtOnceAndNothingWasTouched) {
  world.run_unit("gpumod-chat.service");
  world.written_before_full = 0;
  auto machine = make(mode({}, "blank"));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::refused);
  EXPECT_EQ(machine.problem()->code, ErrorCode::environment);
  EXPECT_THAT(machine.problem()->message, AllOf(HasSubstr("stop of 'chat'"), HasSubstr("database or disk is full"),
                                                HasSubstr("nothing was touched")));
  EXPECT_EQ(machine.problem()->hint, "Make room.");
  EXPECT_LT(world.clock.time_since_epoch(), 1s);
  EXPECT_THAT(world.history, IsEmpty());
  EXPECT_TRUE(world.runs("chat"));
  EXPECT_THAT(machine.reports(), Each(Field(&StepReport::earlier, IsEmpty())));
  expect_clean();
}

TEST_F(FullDisk, WhatIsBegunAndCannotGoOnSaysWhatCouldNotBeRestored) {
  world.run_unit("gpumod-chat.service");
  world.written_before_full = 1;  // the stop
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_EQ(machine.problem()->code, ErrorCode::environment);
  EXPECT_THAT(machine.problem()->message, AllOf(HasSubstr("start of 'embed' failed: it was not begun"),
                                                HasSubstr("could not be restored: 'chat': it was not begun")));
  EXPECT_LT(world.clock.time_since_epoch(), 5s);
  EXPECT_THAT(world.history, ElementsAre("stop_unit chat", "record_failure"));
}

TEST_F(FullDisk, WhatCanBeWrittenAgainIsRestored) {
  world.run_unit("gpumod-chat.service");
  world.written_before_full = 1;
  world.full_for = 1;  // the start alone
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::rolled_back);
  EXPECT_TRUE(world.runs("chat"));
  EXPECT_FALSE(world.did("start_unit embed"));
}

TEST_F(FullDisk, AKillThatWasNotGivenIsNotToldOf) {
  world.run_unit("gpumod-chat.service");
  world.survives_sigterm.insert("gpumod-chat.service");
  world.written_before_full = 1;
  auto machine = make(mode({}, "blank"), OnFailure::stay);
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_THAT(machine.problem()->message, AllOf(HasSubstr("could not be killed"), HasSubstr("disk is full")));
  EXPECT_THAT(machine.reports().front().earlier, IsEmpty());
  EXPECT_FALSE(world.did("kill_unit chat"));
}

TEST_F(FullDisk, AFailedStartThatCannotBeClearedAwaySaysSo) {
  world.start_fails.insert("embed");
  world.written_before_full = 1;
  auto machine = make(mode({"embed"}), OnFailure::stay);
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_THAT(machine.problem()->message,
              AllOf(HasSubstr("it ended"), HasSubstr("what is left of it could not be cleared away")));
}

}  // namespace
}  // namespace gpumod
