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

}  // namespace
}  // namespace gpumod
