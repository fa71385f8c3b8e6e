#include "switching/recovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

JournaledSwitch journal(bool mutated, bool failed) {
  JournaledSwitch j;
  j.id = "7";
  j.kind = "mode switch";
  j.goal.mode = "rag";
  j.previous.mode = "code";
  j.mutated = mutated;
  j.failed = failed;
  j.failure = "embed did not start";
  return j;
}

TEST(Recovery, BeforeTheFirstChangeItIsDiscarded) {
  const auto found = recover(journal(false, false));
  EXPECT_EQ(found.direction, RecoveryDirection::discard);
  EXPECT_EQ(found.goal.mode, "code");
}

TEST(Recovery, AfterAChangeItGoesForward) {
  const auto found = recover(journal(true, false));
  EXPECT_EQ(found.direction, RecoveryDirection::forward);
  EXPECT_EQ(found.goal.mode, "rag");
}

TEST(Recovery, AfterAJournaledFailureItGoesBack) {
  const auto found = recover(journal(true, true));
  EXPECT_EQ(found.direction, RecoveryDirection::back);
  EXPECT_EQ(found.goal.mode, "code");
  EXPECT_THAT(found.sentence, testing::HasSubstr("embed did not start"));
}

JournaledSwitch before_reboot(bool failed) {
  auto j = journal(true, failed);
  j.boot_id = "one";
  return j;
}

TEST(Recovery, AfterARebootTheGoalIsPursuedUnlessPeopleSayOtherwise) {
  const auto found = recover(before_reboot(false), Boot{"two", BootPolicy::goal});
  EXPECT_EQ(found.direction, RecoveryDirection::forward);
  EXPECT_EQ(found.goal.mode, "rag");
  EXPECT_THAT(found.sentence, testing::HasSubstr("rebooted"));
  EXPECT_EQ(recover(before_reboot(true), Boot{"two", BootPolicy::goal}).direction, RecoveryDirection::back);
}

TEST(Recovery, AfterARebootBlankWantsNothingToRun) {
  for (const bool failed : {false, true}) {
    const auto found = recover(before_reboot(failed), Boot{"two", BootPolicy::blank});
    EXPECT_EQ(found.direction, RecoveryDirection::blank);
    EXPECT_TRUE(found.goal.wanted.empty());
    EXPECT_TRUE(found.goal.exclusive);
    EXPECT_THAT(found.sentence, testing::HasSubstr("boot: blank"));
  }
}

TEST(Recovery, AfterARebootNothingLeavesEverythingAsItIs) {
  const auto found = recover(before_reboot(false), Boot{"two", BootPolicy::nothing});
  EXPECT_EQ(found.direction, RecoveryDirection::discard);
  EXPECT_EQ(found.goal.mode, "code");
  EXPECT_THAT(found.sentence, testing::HasSubstr("boot: nothing"));
}

TEST(Recovery, WithoutARebootTheBootPolicyHasNoSay) {
  for (const auto* id : {"one", ""}) {
    EXPECT_EQ(recover(before_reboot(false), Boot{id, BootPolicy::blank}).direction, RecoveryDirection::forward) << id;
    EXPECT_EQ(recover(before_reboot(true), Boot{id, BootPolicy::nothing}).direction, RecoveryDirection::back) << id;
  }
  auto untouched = before_reboot(false);
  untouched.mutated = false;
  EXPECT_EQ(recover(untouched, Boot{"two", BootPolicy::blank}).direction, RecoveryDirection::discard)
      << "what never began leaves the old goal standing";
}

TEST(Recovery, NamesTheSwitch) {
  auto interrupted = journal(true, false);
  EXPECT_EQ(recover(interrupted).name, "switch 7 (mode switch to rag)");
  interrupted.kind = "service stop";
  interrupted.goal.exclusive = false;
  interrupted.goal.wanted["chat"] = Residency::stopped;
  EXPECT_EQ(recover(interrupted).name, "switch 7 (service stop chat)") << "the mode is not what it was about";
}

}  // namespace
}  // namespace gpumod
