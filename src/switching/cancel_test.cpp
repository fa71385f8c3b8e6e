#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "switching/switch.h"
#include "switching/switch_testing.h"

namespace gpumod {
namespace {

using ::testing::IsEmpty;
using testing_world::mode;
using testing_world::SwitchTest;
using testing_world::World;

TEST_F(SwitchTest, CancelBeforeAnythingChangedEndsAtOnce) {
  world.run_unit("gpumod-chat.service");
  auto machine = make(mode({"embed"}));
  world.run(machine, [&](Switch& running, int count) {
    if (count != 1) return;
    Event cancel;
    cancel.kind = Event::Kind::cancel_requested;
    world.issue(running.on(cancel, world.clock));
  });
  EXPECT_EQ(machine.result(), SwitchResult::cancelled);
  EXPECT_THAT(world.history, IsEmpty());
}

TEST_F(SwitchTest, CancelAtAnyMomentRestoresWhatRanBefore) {
  for (int moment = 0; moment < 12; ++moment) {
    SCOPED_TRACE(moment);
    World fresh;
    for (const auto& [id, service] : world.knowledge.services)
      fresh.add(service);
    fresh.run_unit("gpumod-chat.service");
    Switch machine({mode({"embed", "small"}), std::nullopt, OnFailure::rollback, fresh.knowledge});
    fresh.run(machine, [&](Switch& running, int count) {
      if (count != moment) return;
      Event cancel;
      cancel.kind = Event::Kind::cancel_requested;
      fresh.issue(running.on(cancel, fresh.clock));
    });
    EXPECT_THAT(fresh.violations, IsEmpty());
    if (machine.result() == SwitchResult::committed) {
      EXPECT_TRUE(fresh.runs("embed") && fresh.runs("small"));
    } else {
      EXPECT_EQ(machine.result(), SwitchResult::cancelled);
      EXPECT_TRUE(fresh.runs("chat"));
      EXPECT_FALSE(fresh.runs("embed") || fresh.runs("small"));
    }
  }
}

TEST_F(SwitchTest, WhatACancelGivesUpHasNotFailed) {
  auto machine = make(mode({"embed"}));
  world.never_ready.insert("embed");
  world.run(machine, [&](Switch& running, int) {
    if (running.stage_of(0) != Switch::Stage::waiting) return;
    Event cancel;
    cancel.kind = Event::Kind::cancel_requested;
    world.issue(running.on(cancel, world.clock));
  });
  EXPECT_EQ(machine.result(), SwitchResult::cancelled);
  ASSERT_FALSE(machine.reports().empty());
  EXPECT_EQ(machine.reports()[0].result, "cancelled");
  EXPECT_EQ(machine.reports()[0].note, "given up: the switch was taken back");
  EXPECT_FALSE(world.unit_runs("gpumod-embed.service"));
}

}  // namespace
}  // namespace gpumod
