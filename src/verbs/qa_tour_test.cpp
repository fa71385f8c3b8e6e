#include "verbs/qa_tour.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(QaTour, HasEveryOrderedPairOnceAndEndsWhereItBegan) {
  const std::vector<ModeId> modes{"a", "b", "c", "d", "e"};
  for (const auto& start : modes) {
    const auto tour = every_transition(modes, start);
    ASSERT_EQ(tour.size(), 5 * 4 + 1U) << "no pair twice";
    EXPECT_EQ(tour.front(), start);
    EXPECT_EQ(tour.back(), start);
    std::set<std::pair<ModeId, ModeId>> pairs;
    for (std::size_t i = 1; i < tour.size(); ++i) {
      EXPECT_NE(tour[i - 1], tour[i]);
      pairs.emplace(tour[i - 1], tour[i]);
    }
    EXPECT_EQ(pairs.size(), 5 * 4U) << "none left out";
  }
}

TEST(QaTour, OneModeIsVerified) {
  EXPECT_THAT(every_transition({"a"}, "a"), ElementsAre("a", "a"));
  EXPECT_THAT(every_transition({"a", "b"}, "b"), ElementsAre("b", "a", "b"));
}

TEST(QaTour, TheWayToItsBeginningIsPartOfIt) {
  EXPECT_THAT(targets_of({"a", "b", "a"}, "a", 1), ElementsAre("b", "a"));
  EXPECT_THAT(targets_of({"a", "b", "a"}, "c", 1), ElementsAre("a", "b", "a"));
  EXPECT_THAT(targets_of({"a", "b", "a"}, "", 1), ElementsAre("a", "b", "a"));
  EXPECT_THAT(targets_of({"a"}, "a", 1), ElementsAre("a")) << "it is verified";
  EXPECT_THAT(targets_of({"a", "a", "b"}, "a", 1), ElementsAre("a", "b"));
  EXPECT_THAT(targets_of({}, "a", 3), IsEmpty());
}

TEST(QaTour, RoundsFollowEachOther) {
  EXPECT_THAT(targets_of({"a", "b", "a"}, "a", 2), ElementsAre("b", "a", "b", "a"));
  EXPECT_THAT(targets_of({"a", "b"}, "a", 2), ElementsAre("b", "a", "b")) << "and back to its beginning between them";
  EXPECT_THAT(targets_of({"a", "b"}, "x", 2), ElementsAre("a", "b", "a", "b"));
}

}  // namespace
}  // namespace gpumod
