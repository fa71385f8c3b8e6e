#include "control/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using ::testing::HasSubstr;

/// A start with startup_timeout 60 s, looked at every two seconds.
struct Start : ::testing::Test {
  Progress progress{60s, TimePoint()};
  TimePoint clock{};
  Progress::Look now_seen;

  /// Lets time pass; `every_look` changes what the next look shows.
  template <typename Change>
  void pass(Duration time, Change every_look) {
    for (const TimePoint end = clock + time; clock < end;) {
      clock += progress.look_interval();
      every_look();
      progress.look(now_seen, clock);
    }
  }
  void SetUp() override {
    now_seen.processes[10].start_ticks = 1;
    progress.look(now_seen, clock);
  }
};

TEST_F(Start, ThatDoesNothingIsStuckAfterHalfOfItsTime) {
  pass(28s, [] {});
  EXPECT_FALSE(progress.stuck(clock));
  pass(2s, [] {});
  EXPECT_TRUE(progress.stuck(clock));
  EXPECT_FALSE(progress.out_of_time(clock));
  EXPECT_THAT(progress.silence(clock), HasSubstr("for 30"));
}

TEST_F(Start, ThatCompilesInChildrenIsNotStuckAndGetsMoreTime) {
  // No line, no VRAM: only compilers that come and go, and of which the parent hears when they end.
  pid_t child = 100;
  pass(150s, [&] {
    now_seen.processes.erase(child);
    now_seen.processes[++child] = ProcessUsage{static_cast<std::uint64_t>(child), 1900ms, 0, 0, 0};
    ASSERT_FALSE(progress.stuck(clock));
    ASSERT_FALSE(progress.out_of_time(clock)) << "at " << seconds(clock.time_since_epoch());
  });
  pass(30s, [&] { now_seen.processes[child].cpu += 1900ms; });
  EXPECT_FALSE(progress.stuck(clock));
  EXPECT_TRUE(progress.out_of_time(clock)) << "three times its startup_timeout is enough";
}

TEST_F(Start, ThatCompilersOfOneLookFeedTheirParentsAccountIsSeen) {
  pass(100s, [&] { now_seen.processes[10].cpu += 1s; });
  EXPECT_FALSE(progress.stuck(clock));
}

TEST_F(Start, OurOwnQuestionsAreNoProgress) {
  pass(40s, [&] {
    for (int i = 0; i < 30; ++i)
      progress.answered();
    now_seen.processes[10].cpu += 60ms;  // two milliseconds an answer
  });
  EXPECT_TRUE(progress.stuck(clock));
}

TEST_F(Start, ReadingASlowDiskIsProgress) {
  pass(100s, [&] { now_seen.processes[10].disk_bytes += 1 << 20; });
  EXPECT_FALSE(progress.stuck(clock));
  EXPECT_FALSE(progress.out_of_time(clock));
}

TEST_F(Start, MappedFilesAndNetworkFilesAreProgress) {
  pass(40s, [&] { now_seen.processes[10].major_faults += 100; });
  EXPECT_FALSE(progress.stuck(clock));
  pass(40s, [&] { now_seen.processes[10].read_bytes += 1 << 20; });
  EXPECT_FALSE(progress.stuck(clock));
}

TEST_F(Start, TakingVramIsProgressAndHoldingItIsNot) {
  now_seen.vram = Bytes();
  pass(40s, [&] { *now_seen.vram += Bytes::mib(200); });
  EXPECT_FALSE(progress.stuck(clock));
  pass(30s, [] {});
  EXPECT_TRUE(progress.stuck(clock));
  EXPECT_THAT(progress.silence(clock), HasSubstr("took no VRAM"));
}

TEST_F(Start, ALineIsProgress) {
  pass(20s, [] {});
  progress.line(clock);
  pass(20s, [] {});
  EXPECT_FALSE(progress.stuck(clock));
  pass(10s, [] {});
  EXPECT_TRUE(progress.stuck(clock));
}

TEST_F(Start, ANewProcessUnderAnOldNumberIsNew) {
  now_seen.processes[10].cpu = 50s;
  pass(4s, [] {});
  pass(28s, [] {});
  now_seen.processes[10] = ProcessUsage{2, {}, 0, 0, 0};
  progress.look(now_seen, clock);
  EXPECT_FALSE(progress.stuck(clock + 20s));
}

TEST_F(Start, WhatCannotBeSeenIsNeverCalledStuck) {
  progress.blindfold();
  pass(58s, [] {});
  EXPECT_FALSE(progress.stuck(clock));
  EXPECT_FALSE(progress.out_of_time(clock));
  pass(2s, [] {});
  EXPECT_FALSE(progress.stuck(clock));
  EXPECT_TRUE(progress.out_of_time(clock));
}

TEST_F(Start, TheNextVerdictIsNeverInThePastAndNeverTooLate) {
  EXPECT_EQ(progress.next_verdict(clock), TimePoint() + 30s);
  progress.line(TimePoint() + 170s);
  EXPECT_EQ(progress.next_verdict(TimePoint() + 171s), TimePoint() + 180s);
  Progress blind(60s, TimePoint());
  blind.blindfold();
  EXPECT_EQ(blind.next_verdict(TimePoint()), TimePoint() + 60s);
}

TEST(ProgressLimits, AVeryPatientServiceIsStillCalledStuckAfterTwoMinutes) {
  const Progress patient(3600s, TimePoint());
  EXPECT_FALSE(patient.stuck(TimePoint() + 119s));
  EXPECT_TRUE(patient.stuck(TimePoint() + 120s));
}

}  // namespace
}  // namespace gpumod
