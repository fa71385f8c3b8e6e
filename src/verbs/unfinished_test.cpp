#include "verbs/unfinished.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/lock.h"
#include "verbs/tree_testing.h"

namespace gpumod {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;

StoredSwitch to_rag() {
  StoredSwitch stored;
  stored.id = 7;
  stored.kind = "mode switch";
  stored.from = "code";
  stored.goal = Goal{"rag", {{"embed", Residency::running}}, true};
  stored.previous = Goal{"code", {{"coder", Residency::running}}, true};
  stored.mutated = true;
  stored.began = wall_now();
  return stored;
}

TEST(InterruptedWords, SayWhatRepairDoesAndHowItIsTakenBack) {
  auto stored = to_rag();
  const auto hint = [&] { return in_words(stored, recovery_of(stored, {})).hint; };
  EXPECT_EQ(hint(), "gpumod repair finishes it; gpumod mode switch code takes it back.");
  stored.from = "rag";
  EXPECT_EQ(hint(), "gpumod repair finishes it.") << "the way back would be the way forward";
  stored.failure = "embed did not start";
  EXPECT_EQ(hint(), "gpumod repair restores what ran before.");
}

TEST(GoalOfRepair, IsTheStoredOneUnlessAnInterruptedSwitchIsToBeFinished) {
  const std::optional<Goal> stored = Goal{"code", {{"coder", Residency::running}}, true};
  EXPECT_EQ(goal_of_repair(stored, {})->mode, "code");
  auto left = recovery_of(to_rag(), {});
  EXPECT_EQ(goal_of_repair(stored, left)->mode, "rag");
  left.direction = RecoveryDirection::back;
  EXPECT_EQ(goal_of_repair(stored, left)->mode, "code");
  Recovery one{RecoveryDirection::forward, Goal{"code", {{"asr", Residency::running}}, false}, "", ""};
  EXPECT_EQ(goal_of_repair(stored, one)->wanted.size(), 2U) << "a change of one service keeps the others";
  EXPECT_FALSE(goal_of_repair({}, {}));
}

StoredSwitch change_to(std::map<ServiceId, Residency> wanted) {
  StoredSwitch change;
  change.goal = Goal{"next", std::move(wanted), true};
  return change;
}

TEST(GoalWithChange, WantsWhatTheChangeIsAboutToBringAsWell) {
  const Goal stored{"code", {{"chat", Residency::running}, {"tts", Residency::sleeping1}}, true};
  const auto both = goal_with_change(stored, change_to({{"embed", Residency::running}, {"tts", Residency::running}}));
  ASSERT_TRUE(both);
  EXPECT_EQ(both->mode, "code");
  EXPECT_EQ(both->wanted.size(), 3u);
  EXPECT_EQ(both->wanted.at("chat"), Residency::running) << "it may be restored";
  EXPECT_EQ(both->wanted.at("tts"), Residency::running);
}

TEST(GoalWithChange, DoesNotStopWantingWhatIsBeingStopped) {
  const Goal stored{"code", {{"chat", Residency::running}}, true};
  const auto both = goal_with_change(stored, change_to({{"chat", Residency::stopped}}));
  EXPECT_EQ(both->wanted.at("chat"), Residency::running);
}

TEST(GoalWithChange, IsTheOneOfTheTwoThatThereIs) {
  EXPECT_FALSE(goal_with_change(std::nullopt, std::nullopt));
  const Goal stored{"code", {{"chat", Residency::running}}, true};
  EXPECT_EQ(goal_with_change(stored, std::nullopt)->wanted, stored.wanted);
  EXPECT_EQ(goal_with_change(std::nullopt, change_to(stored.wanted))->wanted, stored.wanted);
}

struct UnfinishedTest : testing::Test {
  json::value found(const std::optional<Goal>& goal = {}) {
    Context context(loop_, tree_.paths(), {});
    auto unfinished = find_unfinished(context, goal, {});
    interrupted_ = unfinished.interruption.has_value();
    return unfinished.described;
  }
  void leave(const StoredSwitch& stored) {
    auto store = Store::open(tree_.paths().state);
    ASSERT_TRUE(store) << store.error().message;
    Command stop;
    stop.kind = Command::Kind::stop_unit;
    ASSERT_TRUE(store->record_commands(stored, {stop}));
  }
  TestTree tree_;
  Loop loop_;
  bool interrupted_ = false;
};

TEST_F(UnfinishedTest, NothingIsNull) {
  EXPECT_TRUE(found().is_null());
}

TEST_F(UnfinishedTest, WhoeverHoldsTheLockIsUnderWayBeforeItsFirstStepToo) {
  leave(to_rag());
  const auto lock = MutationLock::acquire(tree_.paths(), "service start asr");
  ASSERT_TRUE(lock);
  const auto now = found();
  EXPECT_TRUE(now.at("under_way").as_bool());
  EXPECT_EQ(now.at("verb").as_string(), "service start asr");
  EXPECT_EQ(now.at("pid").as_int64(), ::getpid());
  EXPECT_TRUE(now.at("id").is_null()) << "the open row is of a switch that was interrupted before";
  EXPECT_FALSE(interrupted_);
  auto its_own = to_rag();
  its_own.id = 8;
  its_own.began = wall_now() + 1s;
  leave(its_own);
  EXPECT_EQ(found().at("id").as_int64(), 8);
}

TEST_F(UnfinishedTest, ARowThatNobodyWorksAtWasInterrupted) {
  leave(to_rag());
  const auto left = found();
  EXPECT_FALSE(left.at("under_way").as_bool());
  EXPECT_THAT(std::string(left.at("text").as_string()), HasSubstr("switch 7 (mode switch to rag)"));
  EXPECT_TRUE(interrupted_);
}

}  // namespace
}  // namespace gpumod
