#include "switching/memory_watch.h"

#include <gtest/gtest.h>

namespace gpumod {
namespace {

using Room = RoomWatch::Verdict;
using Fall = FallWatch::Verdict;

/// One GPU of 24 GiB, sampled every 50 ms from 0 on.
class RoomWatchTest : public ::testing::Test {
 protected:
  static constexpr Bytes total = Bytes::gib(24);

  RoomWatch watch(Bytes need, Bytes baseline = Bytes::mib(300)) {
    return RoomWatch({{0, need}}, {{0, baseline}}, clock_, clock_ + 120s);
  }
  /// What ours hold, what listed strangers hold, what nobody holds.
  static std::vector<MemoryReading> sees(Bytes ours, Bytes foreign, Bytes unattributed) {
    MemoryReading reading;
    reading.gpu = 0;
    reading.ours = {{100, ours}};
    reading.unattributed = unattributed;
    reading.free = total - ours - foreign - unattributed;
    return {reading};
  }
  RoomWatch::Answer next(RoomWatch& room, std::vector<MemoryReading> readings, Duration later = 50ms) {
    clock_ += later;
    return room.on(std::move(readings), clock_);
  }

  TimePoint clock_{};
};

TEST_F(RoomWatchTest, TwoSamplesThatAgreeAreNeededAndEnough) {
  auto room = watch(Bytes::gib(8));
  EXPECT_EQ(next(room, sees(Bytes::gib(2), Bytes(), Bytes::mib(300))).verdict, Room::wait);
  EXPECT_EQ(next(room, sees(Bytes::gib(2), Bytes(), Bytes::mib(300))).verdict, Room::room);
}

TEST_F(RoomWatchTest, OurOwnThatStillMovesIsWaitedFor) {
  auto room = watch(Bytes::gib(8));
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(next(room, sees(Bytes::gib(2) + Bytes::mib(i), Bytes(), Bytes::mib(300))).verdict, Room::wait);
}

TEST_F(RoomWatchTest, MemoryThatNobodyHoldsAndThatWasNotThereBeforeIsOnItsWayBack) {
  auto room = watch(Bytes::gib(8));
  for (int i = 0; i < 39; ++i)
    EXPECT_EQ(next(room, sees(Bytes(), Bytes(), Bytes::gib(4))).verdict, Room::wait) << i;
  // A piece of it came back, so the pause begins anew.
  for (int i = 0; i < 39; ++i)
    EXPECT_EQ(next(room, sees(Bytes(), Bytes(), Bytes::gib(2))).verdict, Room::wait) << i;
  EXPECT_EQ(next(room, sees(Bytes(), Bytes(), Bytes::gib(2)), 200ms).verdict, Room::room);
}

TEST_F(RoomWatchTest, SaysWhatItWaitsFor) {
  auto room = watch(Bytes::gib(8));
  EXPECT_EQ(next(room, sees(Bytes::gib(2), Bytes(), Bytes::mib(300))).awaited, "") << "a second look";
  EXPECT_EQ(next(room, sees(Bytes::gib(3), Bytes(), Bytes::mib(300))).awaited,
            "the memory of our own services to stop moving");
  EXPECT_EQ(next(room, sees(Bytes::gib(3), Bytes(), Bytes::gib(4))).awaited,
            "what nobody holds any more to come back; 3796 MiB that nobody holds were on their way back");
  EXPECT_EQ(next(room, sees(Bytes::gib(3), Bytes::gib(20), Bytes::mib(300))).awaited,
            "GPU 0 has 724 MiB free, 8192 MiB are needed");
}

TEST_F(RoomWatchTest, ForeignUpsAndDownsDoNotStall) {
  auto room = watch(Bytes::gib(8));
  EXPECT_EQ(next(room, sees(Bytes(), Bytes::gib(3), Bytes::mib(300))).verdict, Room::wait);
  EXPECT_EQ(next(room, sees(Bytes(), Bytes::gib(5), Bytes::mib(310))).verdict, Room::room);
}

TEST_F(RoomWatchTest, RoomThatStrangersTookIsGivenUpSoonAndNamed) {
  auto room = watch(Bytes::gib(8));
  RoomWatch::Answer answer;
  Duration waited{};
  for (; answer.verdict == Room::wait && waited < 60s; waited += 50ms)
    answer = next(room, sees(Bytes(), Bytes::gib(20), Bytes::mib(300)));
  EXPECT_EQ(answer.verdict, Room::none);
  EXPECT_GT(waited, 5s);
  EXPECT_LT(waited, 6s);
  EXPECT_EQ(answer.short_of, 0);
  EXPECT_NE(answer.missing.find("are needed"), std::string::npos);
}

TEST_F(RoomWatchTest, OneGpuThatStrangersTookIsEnoughToGiveUp) {
  auto room = RoomWatch({{0, Bytes::gib(8)}, {1, Bytes::gib(8)}}, {}, clock_, clock_ + 120s);
  const auto both = [] {
    auto readings = sees(Bytes(), Bytes::gib(20), Bytes::mib(300));  // taken by strangers
    auto second = sees(Bytes(), Bytes(), Bytes::gib(20)).front();    // and one that is giving memory back
    second.gpu = 1;
    readings.push_back(second);
    return readings;
  };
  RoomWatch::Answer answer;
  for (int i = 0; i < 110 && answer.verdict == Room::wait; ++i)
    answer = next(room, both());
  EXPECT_EQ(answer.verdict, Room::none);
}

TEST_F(RoomWatchTest, WhereNvmlDoesNotSayWhoHoldsNobodyIsBlamedBeforeTheDeadline) {
  auto room = watch(Bytes::gib(8));
  const auto silent = [] {
    auto readings = sees(Bytes(), Bytes::gib(20), Bytes::mib(300));
    readings[0].every_holder_known = false;
    return readings;
  };
  RoomWatch::Answer answer;
  Duration waited{};
  for (; answer.verdict == Room::wait; waited += 1s)
    answer = next(room, silent(), 1s);
  EXPECT_EQ(answer.verdict, Room::none);
  EXPECT_GE(waited, 120s);
}

TEST_F(RoomWatchTest, GpusThatCannotBeReadAreNoRoom) {
  auto room = watch(Bytes::gib(1));
  EXPECT_EQ(next(room, {}).verdict, Room::wait);
  EXPECT_EQ(next(room, {}, 60s).verdict, Room::wait);
  const auto answer = next(room, {}, 61s);
  EXPECT_EQ(answer.verdict, Room::none);
  EXPECT_EQ(answer.missing, "the GPUs cannot be read");
}

TEST_F(RoomWatchTest, SaysUntilWhenAnUnchangingWorldChangesNothing) {
  auto room = watch(Bytes::gib(8));
  const auto picture = sees(Bytes(), Bytes::gib(20), Bytes::mib(300));
  EXPECT_LE(next(room, picture).until, clock_);  // one sample says nothing
  const auto second = next(room, picture);
  ASSERT_EQ(second.verdict, Room::wait);
  EXPECT_EQ(room.on(picture, second.until - Duration(1)).verdict, Room::wait);
  EXPECT_EQ(room.on(picture, second.until).verdict, Room::none);
}

TEST(FallWatchTest, FiguresDecideAndPatienceEnds) {
  TimePoint clock{};
  const auto held = [](Bytes bytes) {
    return Result<std::map<GpuIndex, Bytes>>(std::map<GpuIndex, Bytes>{{0, bytes}});
  };
  FallWatch watch({{0, Bytes::gib(1)}}, clock, clock + 120s);
  EXPECT_EQ(watch.on(held(Bytes::gib(20)), clock).verdict, Fall::wait);
  EXPECT_EQ(watch.on(held(Bytes::gib(20)), clock += 9s).verdict, Fall::wait);
  EXPECT_EQ(watch.on(held(Bytes::gib(10)), clock += 900ms).verdict, Fall::wait);  // it moves: patience begins anew
  EXPECT_EQ(watch.on(held(Bytes::gib(10)), clock += 10s).verdict, Fall::wait);
  const auto stays = watch.on(held(Bytes::gib(10)), clock += 1s);
  EXPECT_EQ(stays.verdict, Fall::stays);
  EXPECT_NE(stays.above.find("GPU 0"), std::string::npos);
  EXPECT_EQ(watch.on(held(Bytes::gib(1)), clock).verdict, Fall::fallen);
}

TEST(FallWatchTest, WithoutFiguresNothingIsProven) {
  FallWatch watch({{0, Bytes::gib(1)}}, TimePoint{}, TimePoint{} + 5s);
  const Result<std::map<GpuIndex, Bytes>> silent = fail(ErrorCode::environment, "the driver does not answer");
  EXPECT_EQ(watch.on(silent, TimePoint{}).verdict, Fall::wait);
  const auto answer = watch.on(silent, TimePoint{} + 5s);
  EXPECT_EQ(answer.verdict, Fall::stays);
  EXPECT_NE(answer.above.find("driver does not answer"), std::string::npos);
}

}  // namespace
}  // namespace gpumod
