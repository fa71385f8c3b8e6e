#include "fit/timeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Service service(const std::string& id, Bytes vram) {
  Service s;
  s.id = id;
  s.options = CommandOptions{};
  s.vram = vram;
  return s;
}

/// 24 GiB, of which 1 GiB is somebody else's and 10 GiB belong to 'old'.
struct Machine {
  Snapshot snapshot;
  std::map<ServiceId, Service> services;

  Machine() {
    snapshot.gpus = {{0, "GPU-0", "A", Bytes::gib(24), Bytes::gib(13), {{7, Bytes::gib(10)}}}};
    snapshot.unit_of_pid[7] = "gpumod-old.service";
    snapshot.units["gpumod-old.service"].name = "gpumod-old.service";
    services["old"] = service("old", Bytes::gib(10));
    services["new"] = service("new", Bytes::gib(14));
    snapshot.services["old"] = {"old", "gpumod-old.service", Residency::running, ""};
  }

  static Step step(int index, Action action, const std::string& id, std::vector<int> after = {}) {
    Step made;
    made.index = index;
    made.action = action;
    made.service = id;
    made.unit = "gpumod-" + id + ".service";
    made.after = std::move(after);
    made.gpus = {0};
    return made;
  }
  static Step stop(int index, std::vector<int> after = {}) {
    auto made = step(index, Action::stop, "old", std::move(after));
    made.gives[0] = Bytes::gib(10);
    return made;
  }
  static Step start(int index, std::vector<int> after = {}) {
    auto made = step(index, Action::start, "new", std::move(after));
    made.claim[0] = Bytes::gib(14);
    return made;
  }
};

Plan plan_of(std::vector<Step> steps) {
  Plan plan;
  plan.steps = std::move(steps);
  return plan;
}

std::vector<std::int64_t> free_gib(const Timeline& timeline) {
  std::vector<std::int64_t> free;
  for (const auto& moment : timeline.moments)
    free.push_back(moment.levels.front().free.count() / Bytes::gib(1).count());
  return free;
}

TEST(TimelineTest, WhatFreesGivesBackAtItsEndAndWhatTakesTakesAtItsBeginning) {
  const Machine machine;
  const auto timeline =
      timeline_of(machine.snapshot, plan_of({Machine::stop(0), Machine::start(1, {0})}), machine.services, {});
  EXPECT_THAT(free_gib(timeline), ElementsAre(13, 13, 23, 9, 9));
  EXPECT_EQ(timeline.moments[3].edge, Timeline::Edge::begins);
  EXPECT_EQ(timeline.moments[3].step, 1);
  EXPECT_EQ(timeline.lowest.at(0).free, Bytes::gib(9));
  EXPECT_EQ(timeline.lowest.at(0).moment, 3U);
  EXPECT_EQ(fits(timeline, Bytes::gib(9)), Fits::yes);
  EXPECT_EQ(fits(timeline, Bytes::gib(9) + Bytes(1)), Fits::no);
}

TEST(TimelineTest, ThePlansOrderIsFollowedNotItsNumbers) {
  const Machine machine;
  const auto timeline =
      timeline_of(machine.snapshot, plan_of({Machine::stop(0, {1}), Machine::start(1)}), machine.services, {});
  EXPECT_THAT(free_gib(timeline), ElementsAre(13, -1, -1, -1, 9)) << "the end alone would look well";
  EXPECT_EQ(fits(timeline, Bytes()), Fits::no);
}

TEST(TimelineTest, WhoHoldsWhatIsNamed) {
  const Machine machine;
  const auto timeline =
      timeline_of(machine.snapshot, plan_of({Machine::stop(0), Machine::start(1, {0})}), machine.services, {});
  const auto& first = timeline.moments.front().levels.front().held;
  ASSERT_EQ(first.size(), 2U);
  EXPECT_EQ(first[0].name, "old");
  EXPECT_EQ(first[0].bytes, Bytes::gib(10));
  EXPECT_EQ(first[1].name, "") << "not ours";
  EXPECT_EQ(first[1].bytes, Bytes::gib(1));
  const auto& last = timeline.moments.back().levels.front().held;
  ASSERT_EQ(last.size(), 2U);
  EXPECT_EQ(last[0].name, "new");
  EXPECT_EQ(last[0].bytes, Bytes::gib(14));
}

TEST(TimelineTest, WhoSleepsKeepsItsRest) {
  const Machine machine;
  auto sleep = Machine::step(0, Action::sleep, "old");
  sleep.gives[0] = Bytes::gib(8);
  const auto timeline = timeline_of(machine.snapshot, plan_of({sleep}), machine.services, {});
  EXPECT_EQ(timeline.moments.back().levels.front().held.front().bytes, Bytes::gib(2));
}

TEST(TimelineTest, WhatIsNotKnownIsNoFit) {
  const Machine machine;
  auto start = Machine::start(0);
  start.claim.clear();
  const auto timeline = timeline_of(machine.snapshot, plan_of({start}), machine.services, {});
  EXPECT_THAT(timeline.unknown, ElementsAre(HasSubstr("'new'")));
  EXPECT_EQ(fits(timeline, Bytes()), Fits::unknown);
}

TEST(TimelineTest, WhatIsSilentMattersOnlyWhereItCouldChangeTheAnswer) {
  const Machine machine;
  auto blind = machine;
  blind.snapshot.gpus[0].processes[0].used.reset();
  const auto beside = timeline_of(blind.snapshot, plan_of({Machine::start(0)}), blind.services, {});
  EXPECT_THAT(beside.unknown, IsEmpty()) << "it goes on, and what is free the GPU says";
  EXPECT_EQ(fits(beside, Bytes()), Fits::no) << "13 GiB are free, 14 are taken";

  auto stop = Machine::stop(0);
  stop.gives.clear();
  const auto behind = timeline_of(blind.snapshot, plan_of({stop, Machine::start(1, {0})}), blind.services, {});
  EXPECT_THAT(behind.unknown, ElementsAre(HasSubstr("old holds on GPU 0")));
  EXPECT_EQ(fits(behind, Bytes()), Fits::unknown) << "what comes back may be enough";
  blind.snapshot.gpus[0].free = Bytes::gib(20);
  const auto roomy = timeline_of(blind.snapshot, plan_of({stop, Machine::start(1, {0})}), blind.services, {});
  EXPECT_EQ(fits(roomy, Bytes()), Fits::yes) << "it fits whatever comes back";

  auto two = machine;
  two.snapshot.gpus.push_back({1, "GPU-1", "A", std::nullopt, std::nullopt, {{8, std::nullopt}}});
  two.snapshot.unit_of_pid[8] = "gpumod-old.service";
  const auto elsewhere =
      timeline_of(two.snapshot, plan_of({Machine::stop(0), Machine::start(1, {0})}), two.services, {});
  EXPECT_EQ(fits(elsewhere, Bytes()), Fits::yes) << "the silent GPU takes no part";
  auto there = Machine::start(1, {0});
  there.gpus = {1};
  there.claim.clear();
  const auto silent = timeline_of(two.snapshot, plan_of({Machine::stop(0), there}), two.services, {});
  EXPECT_THAT(silent.unknown, ElementsAre("GPU 1 does not say what is free"));
  EXPECT_EQ(fits(silent, Bytes()), Fits::unknown);
}

TEST(TimelineTest, WhatOthersHoldBelowTheMarginIsNotThePlansDoing) {
  Machine machine;
  machine.snapshot.gpus.push_back({1, "GPU-1", "A", Bytes::gib(24), Bytes::mib(100), {}});
  const auto timeline =
      timeline_of(machine.snapshot, plan_of({Machine::stop(0), Machine::start(1, {0})}), machine.services, {});
  EXPECT_EQ(timeline.lowest.at(1).free, Bytes::mib(100));
  EXPECT_EQ(fits(timeline, Bytes::mib(512)), Fits::yes);
}

TEST(TimelineTest, WhoIsBeingStartedAlreadyTakesTheRestOfItsClaim) {
  Machine machine;
  machine.snapshot.services["old"].residency = Residency::starting;
  machine.services["old"].vram = Bytes::gib(12);
  const auto timeline = timeline_of(machine.snapshot, plan_of({Machine::start(0)}), machine.services, {});
  EXPECT_THAT(free_gib(timeline), ElementsAre(13, 11, -3, -3));
  EXPECT_EQ(timeline.moments[1].edge, Timeline::Edge::rises);
  const auto stopped = timeline_of(machine.snapshot, plan_of({Machine::stop(0)}), machine.services, {});
  EXPECT_THAT(free_gib(stopped), ElementsAre(13, 13, 23)) << "who is to go takes no more";
  EXPECT_THAT(stopped.unknown, IsEmpty());
}

}  // namespace
}  // namespace gpumod
