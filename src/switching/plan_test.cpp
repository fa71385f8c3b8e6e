// The planner against snapshots that are hard to come by in a world of one GPU: several GPUs, services that are
// starting, sleepers, routers of which only a part goes.
#include "switching/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fit/claim.h"
#include "fit/timeline.h"
#include "switching/world_testing.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using testing_world::make_router_service;
using testing_world::make_service;

struct PlanTest : ::testing::Test {
  void gpu(std::int64_t total_mib) {
    const int index = static_cast<int>(snapshot.gpus.size());
    snapshot.gpus.push_back(
        {index, "GPU-" + std::to_string(index), "Test", Bytes::mib(total_mib), Bytes::mib(total_mib), {}});
  }
  Service& add(Service service) {
    auto& added = knowledge.services[service.id] = std::move(service);
    snapshot.services[added.id] = ServiceView{added.id, added.unit_name(), Residency::stopped, ""};
    return added;
  }
  /// It is there and holds so much on each of these GPUs.
  void is(const ServiceId& id, Residency residency, std::map<int, std::int64_t> held_mib = {}) {
    const auto unit = knowledge.services.at(id).unit_name();
    snapshot.services[id].residency = residency;
    auto& status = snapshot.units[unit];
    status.name = unit;
    status.exists = true;
    status.active = ActiveState::active;
    status.pids.push_back(++last_pid);
    snapshot.unit_of_pid[last_pid] = unit;
    for (const auto& [index, mib] : held_mib) {
      auto& sample = snapshot.gpus[static_cast<std::size_t>(index)];
      sample.processes.push_back({last_pid, Bytes::mib(mib)});
      *sample.free -= Bytes::mib(mib);
    }
  }
  Plan make(const Goal& goal) {
    auto planned = plan(snapshot, goal, knowledge);
    if (!planned) ADD_FAILURE() << planned.error().message;
    return planned.value_or(Plan());
  }
  static Goal only(std::map<ServiceId, Residency> wanted, bool exclusive = true) {
    Goal goal;
    goal.wanted = std::move(wanted);
    goal.exclusive = exclusive;
    return goal;
  }
  static const Step* find(const Plan& plan, Action action, const std::string& subject) {
    for (const auto& step : plan.steps)
      if (step.action == action && step.subject() == subject) return &step;
    ADD_FAILURE() << to_string(action) << " of " << subject << " is not planned";
    static const Step nothing;
    return &nothing;
  }
  static bool waits(const Step* later, const Step* earlier) {
    return std::find(later->after.begin(), later->after.end(), earlier->index) != later->after.end();
  }

  Snapshot snapshot;
  Knowledge knowledge;
  pid_t last_pid = 100;
};

TEST_F(PlanTest, ARouterIsBoundToTheGpusOfItsModels) {
  gpu(24000);
  gpu(24000);
  add(make_router_service("coder", "llama", 7071, Bytes::mib(8000))).gpu.devices = {"1"};
  const auto plan = make(only({{"coder", Residency::running}}));
  EXPECT_THAT(find(plan, Action::start, "gpumod-router-llama.service")->gpus, ElementsAre(1));
}

TEST_F(PlanTest, WhatBelongsOnAGpuDoesNotRunAnywhereBecauseNoneCanBeRead) {
  snapshot.gpu_problem = Error{ErrorCode::environment, "the driver does not answer", {}, {}};
  auto coder = make_router_service("coder", "llama", 7071, Bytes(1));
  coder.vram.reset();
  coder.gpu.devices = {"1"};
  add(coder);
  const auto planned = plan(snapshot, only({{"coder", Residency::unloaded}}), knowledge);
  ASSERT_FALSE(planned);
  EXPECT_EQ(planned.error().code, ErrorCode::environment);
  EXPECT_THAT(planned.error().message, HasSubstr("the driver does not answer"));
}

TEST_F(PlanTest, NothingAllocatesBesideAServiceThatIsStarting) {
  gpu(24000);
  add(make_service("a", 7001, Bytes::mib(10000)));
  add(make_service("b", 7002, Bytes::mib(5000)));
  add(make_service("c", 7003, Bytes::mib(1000)));
  is("a", Residency::starting);
  is("c", Residency::running, {{0, 1000}});
  const auto plan = make(only({{"a", Residency::running}, {"b", Residency::running}}));
  const auto* rising = find(plan, Action::verify, "a");
  EXPECT_TRUE(waits(find(plan, Action::start, "b"), rising));
  EXPECT_TRUE(waits(find(plan, Action::stop, "c"), rising)) << "nor is anything freed under it";
}

TEST_F(PlanTest, WhatAStartingServiceWillTakeIsNotFree) {
  gpu(24000);
  add(make_service("a", 7001, Bytes::mib(20000)));
  add(make_service("b", 7002, Bytes::mib(5000)));
  is("a", Residency::starting, {{0, 2000}});
  const auto planned = plan(snapshot, only({{"a", Residency::running}, {"b", Residency::running}}), knowledge);
  ASSERT_FALSE(planned);
  EXPECT_EQ(planned.error().code, ErrorCode::refused);
}

TEST_F(PlanTest, AServiceThatIsStoppedWhileItStartsFreesWhereItWouldHaveBeen) {
  gpu(24000);
  add(make_service("a", 7001, Bytes::mib(20000)));
  add(make_service("b", 7002, Bytes::mib(22000)));
  is("a", Residency::starting);  // NVML does not list it yet
  const auto plan = make(only({{"b", Residency::running}}));
  const auto* stop = find(plan, Action::stop, "a");
  EXPECT_THAT(stop->gpus, ElementsAre(0));
  EXPECT_TRUE(waits(find(plan, Action::start, "b"), stop));
}

TEST_F(PlanTest, WhoIsPutToSleepAfterItsStartMustFallToo) {
  gpu(24000);
  auto a = make_service("a", 7001, Bytes::mib(12000));
  a.sleep = SleepAbility::level1;
  add(a);
  add(make_service("b", 7002, Bytes::mib(5000)));
  const auto plan = make(only({{"a", Residency::sleeping1}, {"b", Residency::running}}));
  const auto* nap = find(plan, Action::sleep, "a");
  EXPECT_THAT(nap->gpus, ElementsAre(0));
  ASSERT_EQ(nap->ceiling.size(), 1u);
  EXPECT_LT(nap->ceiling.at(0), Bytes::mib(12000));
  EXPECT_TRUE(waits(find(plan, Action::start, "b"), nap)) << "it frees where the other starts";
}

TEST_F(PlanTest, AStartingServiceIsPutToSleepOnceItIsUp) {
  gpu(24000);
  auto a = make_service("a", 7001, Bytes::mib(12000));
  a.sleep = SleepAbility::level1;
  add(a);
  is("a", Residency::starting);  // NVML does not list it yet
  const auto plan = make(only({{"a", Residency::sleeping1}}, false));
  const auto* nap = find(plan, Action::sleep, "a");
  EXPECT_TRUE(waits(nap, find(plan, Action::verify, "a")));
  EXPECT_THAT(nap->gpus, ElementsAre(0));
}

TEST_F(PlanTest, AnUnloadDoesNotMakeRoomThatOthersHold) {
  gpu(24000);
  add(make_service("big", 7001, Bytes::mib(15000)));
  add(make_service("next", 7002, Bytes::mib(12000)));
  add(make_router_service("one", "llama", 7071, Bytes::mib(3000)));
  is("big", Residency::running, {{0, 15000}});
  is("one", Residency::running, {{0, 3000}});
  const auto planned =
      plan(snapshot, only({{"one", Residency::unloaded}, {"next", Residency::running}}, false), knowledge);
  ASSERT_FALSE(planned);
  EXPECT_EQ(planned.error().code, ErrorCode::refused);
}

TEST_F(PlanTest, AModelThatStaysDoesNotKeepAnotherFromStartingFirst) {
  gpu(24000);
  add(make_router_service("one", "llama", 7071, Bytes::mib(3000)));
  add(make_router_service("two", "llama", 7071, Bytes::mib(3000)));
  add(make_service("next", 7002, Bytes::mib(5000)));
  is("one", Residency::running, {{0, 3000}});
  is("two", Residency::running, {{0, 3000}});
  const auto plan = make(only({{"one", Residency::running}, {"next", Residency::running}}));
  EXPECT_TRUE(waits(find(plan, Action::unload, "two"), find(plan, Action::start, "next")));
}

TEST_F(PlanTest, AnUnloadIsProvenByItsShareOfWhatTheRouterHolds) {
  gpu(24000);
  add(make_router_service("one", "llama", 7071, Bytes::mib(10000)));
  add(make_router_service("two", "llama", 7071, Bytes::mib(10000)));
  is("one", Residency::running, {{0, 4000}});  // less than was declared
  is("two", Residency::running, {{0, 4000}});
  const auto plan = make(only({{"two", Residency::unloaded}}, false));
  const auto& ceiling = find(plan, Action::unload, "two")->ceiling;
  ASSERT_EQ(ceiling.size(), 1u);
  EXPECT_GT(ceiling.at(0), Bytes::mib(4000));
  EXPECT_LT(ceiling.at(0), Bytes::mib(8000));
}

TEST_F(PlanTest, AnUnloadIsNotMeasuredOnTheGpuOfAnotherModel) {
  gpu(24000);
  gpu(24000);
  add(make_router_service("one", "llama", 7071, Bytes::mib(10000)));
  add(make_router_service("two", "llama", 7071, Bytes::mib(5000)));
  is("one", Residency::running, {{0, 10000}});
  is("two", Residency::running, {{1, 5000}});
  const auto plan = make(only({{"two", Residency::unloaded}}, false));
  EXPECT_THAT(find(plan, Action::unload, "two")->ceiling, IsEmpty());
}

TEST_F(PlanTest, ASleeperOnTwoUnequalGpusTakesBackOnEachWhatItLacksThere) {
  gpu(8000);
  gpu(24000);
  auto wide = make_service("wide", 7001, Bytes(1));
  wide.vram.reset();
  wide.engine = EngineKind::vllm;
  VllmOptions vllm;
  vllm.gpu_memory_utilization = 0.5;
  vllm.tensor_parallel_size = 2;
  wide.options = vllm;
  wide.sleep = SleepAbility::level1;
  add(wide);
  is("wide", Residency::sleeping1, {{0, 1000}, {1, 1000}});
  const auto plan = make(only({{"wide", Residency::running}}));
  const auto* wake = find(plan, Action::wake, "wide");
  EXPECT_THAT(wake->claim, UnorderedElementsAre(std::pair(0, Bytes::mib(3000)), std::pair(1, Bytes::mib(11000))));

  *snapshot.gpus[1].free = Bytes::mib(9000);
  EXPECT_FALSE(gpumod::plan(snapshot, only({{"wide", Residency::running}}), knowledge));
}

TEST_F(PlanTest, TwoOfOnePortAreNotStartedTogether) {
  gpu(24000);
  add(make_service("a", 7001, Bytes(0)));
  add(make_service("b", 7001, Bytes(0)));
  const auto planned = plan(snapshot, only({{"a", Residency::running}, {"b", Residency::running}}), knowledge);
  ASSERT_FALSE(planned);
  EXPECT_THAT(planned.error().message, HasSubstr("port 7001"));
}

TEST_F(PlanTest, EachStartWaitsForAllBeforeItOnItsGpu) {
  gpu(24000);
  add(make_service("a", 7001, Bytes::mib(3000)));
  add(make_service("b", 7002, Bytes::mib(3000)));
  add(make_service("c", 7003, Bytes::mib(3000)));
  const auto plan = make(only({{"a", Residency::running}, {"b", Residency::running}, {"c", Residency::running}}));
  const auto* last = find(plan, Action::start, "c");
  EXPECT_TRUE(waits(last, find(plan, Action::start, "a")));
  EXPECT_TRUE(waits(last, find(plan, Action::start, "b")));
}

/// What was seen of it on the GPUs of these tests.
void seen(Knowledge& knowledge, const std::string& subject, std::map<Phase, Duration> phases,
          std::optional<Bytes> peak = std::nullopt) {
  auto& measured = knowledge.footprints[subject].measured["Test"];
  for (const auto& [phase, took] : phases)
    measured.phases[phase] = {took, {}, 1};
  if (peak) measured.peak = peak;
}

TEST_F(PlanTest, WhatWasMeasuredIsPlannedWith) {
  gpu(24000);
  add(make_service("a", 7001, Bytes::mib(20000)));
  add(make_service("b", 7002, Bytes::mib(8000)));
  is("a", Residency::running, {{0, 8000}});
  const auto goal = only({{"a", Residency::running}, {"b", Residency::running}});
  ASSERT_TRUE(plan(snapshot, goal, knowledge));
  seen(knowledge, "b", {}, Bytes::mib(16000));
  EXPECT_EQ(plan(snapshot, goal, knowledge).error().code, ErrorCode::refused) << "it takes more than it says";
  seen(knowledge, "b", {}, Bytes::mib(9000));
  const auto fits = make(goal);
  EXPECT_EQ(find(fits, Action::start, "b")->claim.at(0), Bytes::mib(9000));
  EXPECT_EQ(find(fits, Action::start, "b")->claim_source, ClaimSource::measured);
  EXPECT_EQ(fits.free_after.at(0), Bytes::mib(7000));
}

TEST_F(PlanTest, WhoWasMeasuredNeedNotDeclareAnything) {
  gpu(24000);
  add(make_service("a", 7001, Bytes::mib(8000)));
  auto unsaid = make_service("b", 7002, Bytes(1));
  unsaid.vram.reset();
  add(unsaid);
  is("a", Residency::running, {{0, 8000}});
  const auto goal = only({{"b", Residency::running}});
  EXPECT_TRUE(waits(find(make(goal), Action::start, "b"), find(make(goal), Action::stop, "a")));
  seen(knowledge, "b", {}, Bytes::mib(9000));
  const auto known = make(goal);
  EXPECT_TRUE(waits(find(known, Action::stop, "a"), find(known, Action::start, "b"))) << "it is known to fit beside";
  EXPECT_THAT(known.notes, IsEmpty());
}

TEST_F(PlanTest, SecondsAreThoseOfTheLongestChain) {
  gpu(24000);
  add(make_service("a", 7001, Bytes::mib(20000)));
  add(make_service("b", 7002, Bytes::mib(15000)));
  add(make_service("c", 7003, Bytes(0)));
  is("a", Residency::running, {{0, 20000}});
  const auto goal = only({{"b", Residency::running}, {"c", Residency::running}});
  EXPECT_FALSE(make(goal).expected);
  seen(knowledge, "a", {{Phase::stop, 2s}, {Phase::release, 1s}});
  seen(knowledge, "b", {{Phase::start, 1s}, {Phase::ready, 30s}});
  EXPECT_FALSE(make(goal).expected) << "of c nothing is known";
  EXPECT_EQ(find(make(goal), Action::start, "b")->expected, 31s);
  knowledge.footprints["c"].measured[""].phases = {{Phase::start, {1s, {}, 1}}, {Phase::ready, {20s, {}, 1}}};
  EXPECT_EQ(make(goal).expected, 34s) << "c starts beside";
  EXPECT_EQ(make(only({{"a", Residency::running}})).expected, Duration::zero());
}

TEST_F(PlanTest, WhatWillBeFreeCountsAllThatGivesBack) {
  gpu(24000);
  auto a = make_service("a", 7001, Bytes::mib(12000));
  a.sleep = SleepAbility::level1;
  add(a);
  is("a", Residency::running, {{0, 12000}});
  add(make_router_service("one", "llama", 7071, Bytes::mib(3000)));
  is("one", Residency::running, {{0, 3000}});
  const auto goal = only({{"a", Residency::sleeping1}, {"one", Residency::unloaded}}, false);
  const auto plan = make(goal);
  EXPECT_EQ(plan.free_before.at(0), Bytes::mib(9000));
  EXPECT_EQ(plan.free_after.at(0), Bytes::mib(9000) + (Bytes::mib(12000) - most_kept_asleep) + Bytes::mib(3000));
  const auto timeline = timeline_of(snapshot, plan, knowledge.services, knowledge.footprints);
  EXPECT_EQ(timeline.moments.back().levels.front().free, plan.free_after.at(0)) << "both think alike";
}

TEST_F(PlanTest, PlanAndTimelineCountAlikeWhatIsStillRising) {
  gpu(24000);
  gpu(24000);
  add(make_router_service("one", "llama", 7071, Bytes::mib(6000)));
  add(make_router_service("two", "llama", 7071, Bytes::mib(5000)));
  is("one", Residency::running, {{0, 6000}});
  snapshot.services["two"].residency = Residency::starting;
  add(make_service("far", 7001, Bytes::mib(9000))).gpu.devices = {"1"};
  is("far", Residency::starting);
  const auto plan = make(only({{"one", Residency::running}, {"two", Residency::running}, {"far", Residency::running}}));
  const auto timeline = timeline_of(snapshot, plan, knowledge.services, knowledge.footprints);
  EXPECT_EQ(plan.free_after.at(0), Bytes::mib(24000 - 11000));
  EXPECT_EQ(plan.free_after.at(1), Bytes::mib(24000 - 9000));
  for (const auto& level : timeline.moments.back().levels)
    EXPECT_EQ(level.free, plan.free_after.at(level.gpu)) << level.gpu;
}

TEST_F(PlanTest, AServiceOfASliceIsPlannedAgainstThatSlice) {
  gpu(40000);
  auto& card = snapshot.gpus[0];
  card.mig = true;
  for (const int number : {1, 2}) {
    GpuSlice slice;
    slice.uuid = "MIG-" + std::to_string(number);
    slice.name = "Test MIG";
    slice.gpu_instance = number;
    slice.total = slice.free = Bytes::mib(10000 * number);
    card.slices.push_back(slice);
  }
  auto& a = add(make_service("a", 7001, Bytes::mib(15000)));
  a.gpu.devices = {"MIG-2"};
  const auto plan = make(only({{"a", Residency::running}}));
  EXPECT_THAT(find(plan, Action::start, "a")->gpus, ElementsAre(102));
  EXPECT_EQ(plan.free_after.at(102), Bytes::mib(5000));
  EXPECT_FALSE(plan.free_after.contains(0));
  a.gpu.devices = {"MIG-1"};
  const auto refused = gpumod::plan(snapshot, only({{"a", Residency::running}}), knowledge);
  ASSERT_FALSE(refused) << "the other slice, and the whole, have room";
  a.gpu.devices = {"0"};
  EXPECT_THAT(gpumod::plan(snapshot, only({{"a", Residency::running}}), knowledge).error().message,
              HasSubstr("MIG mode"));
}

TEST_F(PlanTest, WhatOutlivedItsUnitIsNamedAndNotCountedOn) {
  gpu(24000);
  add(make_service("boxed", 7001, Bytes::mib(10000)));
  add(make_service("b", 7002, Bytes::mib(16000)));
  snapshot.unit_of_pid[7] = "gpumod-boxed.service";
  snapshot.gpus[0].processes = {{7, Bytes::mib(10000)}};
  snapshot.gpus[0].free = Bytes::mib(14000);
  const auto refused = plan(snapshot, only({{"b", Residency::running}}), knowledge);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().hint, HasSubstr("has outlived its unit: pid 7 of gpumod-boxed.service holds 10000 MiB"));
}

}  // namespace
}  // namespace gpumod
