#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "switching/switch.h"
#include "switching/switch_testing.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing_world::make_service;
using testing_world::mode;
using testing_world::only;
using testing_world::SwitchTest;

TEST_F(SwitchTest, WhoRunsWithOlderSettingsThanItsFilesIsRestartedOnce) {
  world.run_unit("gpumod-chat.service");
  world.run_unit("gpumod-small.service");
  world.outdated = {"gpumod-chat.service"};
  auto machine = make(mode({"chat", "small"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("stop_unit chat", "start_unit chat"));
  expect_clean();
}

TEST_F(SwitchTest, AChangeToAnotherServiceOnlySaysWhoRunsWithOlderSettings) {
  world.run_unit("gpumod-small.service");
  world.outdated = {"gpumod-small.service"};
  auto machine = make(only("small", Residency::running));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::unchanged);
  EXPECT_THAT(machine.first_plan()->left_alone, ElementsAre(HasSubstr("gpumod service restart small")));
}

TEST_F(SwitchTest, WhoIsNamedAndDoesNotAnswerWhereItsFileSaysNowIsRestartedAtOnce) {
  world.run_unit("gpumod-small.service", {"nothing"});  // it is up, and not where it is asked
  world.outdated = {"gpumod-small.service"};
  auto machine = make(only("small", Residency::running));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("stop_unit small", "start_unit small"));
}

TEST_F(SwitchTest, OnTheWayBackNobodyIsRestartedForItsSettings) {
  world.run_unit("gpumod-small.service");
  world.outdated = {"gpumod-small.service"};
  world.start_fails.insert("embed");
  Switch machine({only("embed", Residency::running), mode({"small"}), OnFailure::rollback, world.knowledge});
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::rolled_back);
  EXPECT_EQ(times("stop_unit small"), 0);
  EXPECT_TRUE(world.runs("small"));
}

TEST_F(SwitchTest, WhatRunsOfABrokenFileIsLeftAlone) {
  world.run_unit("gpumod-typo.service", {"typo"});
  world.tags["gpumod-typo.service"] = "typo";
  world.knowledge.broken["typo"] = "services/typo.yaml:3";
  auto machine = make(mode({"small"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_TRUE(world.unit_runs("gpumod-typo.service"));
  EXPECT_THAT(
      machine.first_plan()->left_alone,
      ElementsAre("gpumod-typo.service is left as it is, for its file is broken: correct services/typo.yaml:3, or "
                  "gpumod service stop typo"));
}

TEST_F(SwitchTest, ARouterWhoseFilesAreBrokenIsLeftAlone) {
  world.run_unit("gpumod-router-llama.service", {"coder"});
  world.tags["gpumod-router-llama.service"] = "llama";
  world.knowledge.broken["coder"] = "services/coder.yaml:3";
  auto machine = make(mode({"small"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_TRUE(world.unit_runs("gpumod-router-llama.service"));
  EXPECT_THAT(machine.first_plan()->left_alone, ElementsAre(HasSubstr("correct services/coder.yaml:3")));
}

TEST_F(SwitchTest, WhereNoRoomIsLeftWhatRunsOfABrokenFileIsNamed) {
  world.add(make_service("typo", 7071, Bytes::mib(9000)));
  world.run_unit("gpumod-typo.service");
  world.tags["gpumod-typo.service"] = "typo";
  auto snapshot = world.observe();
  snapshot.services.erase("typo");
  auto knowledge = world.knowledge;
  knowledge.services.erase("typo");
  knowledge.broken["typo"] = "services/typo.yaml:3";
  const auto planned = plan(snapshot, mode({"chat"}), knowledge);
  ASSERT_FALSE(planned);
  EXPECT_THAT(planned.error().hint, HasSubstr("gpumod-typo.service holds 9000 MiB on GPU 0: gpumod service stop typo"));
}

TEST_F(SwitchTest, WhatRunsOfABrokenFileStopsWhenItIsNamed) {
  world.run_unit("gpumod-typo.service", {"typo"});
  world.run_unit("gpumod-small.service");
  world.tags["gpumod-typo.service"] = "typo";
  world.knowledge.broken["typo"] = "services/typo.yaml:3";
  auto machine = make(only("typo", Residency::stopped));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_FALSE(world.unit_runs("gpumod-typo.service"));
  EXPECT_TRUE(world.runs("small"));
}

}  // namespace
}  // namespace gpumod
