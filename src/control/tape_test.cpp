#include "control/tape.h"

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/recorder.h"
#include "model/recording_json.h"
#include "switching/switch_testing.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using testing_world::make_router_service;
using testing_world::mode;
using testing_world::World;

/// "chat" (20000 MiB) and "embed" (5000 MiB) do not fit beside each other.
struct TapeTest : testing_world::SwitchTest {
  void sample(Recorder& recorder) {
    auto seen = world.observe();
    auto owners = seen.unit_of_pid;
    if (edit) edit(seen.gpus[0], owners);
    recorder.note_gpus(seen.gpus, owners, world.clock);
  }

  Recording recorded(Goal goal) {
    Switch machine({std::move(goal), std::nullopt, OnFailure::rollback, world.knowledge});
    Recorder recorder({}, world.knowledge, world.clock);
    const auto began = world.clock;
    world.run(machine, [&](Switch& about, int) {
      recorder.note_steps(about, world.clock);
      sample(recorder);
    });
    recorder.note_steps(machine, world.clock);
    sample(recorder);
    Recording head;
    head.id = 3;
    head.took = world.clock - began;
    head.result = machine.result();
    return recorder.recording(machine, std::move(head));
  }
  static const Recording::Step& step(const Recording& recording, Action action, const std::string& subject) {
    for (const auto& each : recording.steps)
      if (each.action == action && each.subject == subject) return each;
    throw std::runtime_error("no such step");
  }
  static std::vector<Recording::Stage> stages(const Recording::Step& step) {
    std::vector<Recording::Stage> names;
    for (const auto& phase : step.phases)
      names.push_back(phase.name);
    return names;
  }

  std::function<void(GpuSample&, std::map<pid_t, std::string>&)> edit;
};

TEST_F(TapeTest, PhasesFollowEachOtherFromTheBeginningOfAStepToItsEnd) {
  using Stage = Recording::Stage;
  world.run_unit("gpumod-chat.service");
  const auto recording = recorded(mode({"embed"}));
  EXPECT_EQ(recording.result, SwitchResult::committed);
  const auto& stop = step(recording, Action::stop, "chat");
  EXPECT_THAT(stages(stop), ElementsAre(Stage::act, Stage::release));
  const auto& start = step(recording, Action::start, "embed");
  EXPECT_THAT(stages(start), ElementsAre(Stage::memory, Stage::act, Stage::ready, Stage::verify));
  for (const auto* each : {&stop, &start}) {
    EXPECT_EQ(each->phases.front().from, each->began);
    EXPECT_EQ(each->phases.back().until, each->ended);
    for (std::size_t i = 1; i < each->phases.size(); ++i)
      EXPECT_EQ(each->phases[i].from, each->phases[i - 1].until);
  }
}

TEST_F(TapeTest, WaitsHaveACause) {
  world.run_unit("gpumod-chat.service");
  world.release_lag["gpumod-chat.service"] = 30s;
  const auto recording = recorded(mode({"embed"}));
  std::map<Recording::Wait::For, Recording::Wait> by_kind;
  for (const auto& wait : recording.waits)
    if (recording.steps[static_cast<std::size_t>(wait.step)].subject == "embed") by_kind[wait.what] = wait;
  const auto& turn = by_kind.at(Recording::Wait::For::turn);
  EXPECT_EQ(turn.cause, "stop of chat");
  EXPECT_EQ(turn.until, step(recording, Action::start, "embed").began);
  const auto& memory = by_kind.at(Recording::Wait::For::memory);
  EXPECT_GT(memory.until - memory.from, 29s);
}

TEST_F(TapeTest, TheCurveTellsWhoHoldsWhatAndWhen) {
  world.run_unit("gpumod-chat.service");
  const auto recording = recorded(mode({"embed"}));
  ASSERT_THAT(recording.gpus, SizeIs(1));
  const auto& gpu = recording.gpus[0];
  EXPECT_EQ(gpu.total, Bytes::mib(24564));
  EXPECT_EQ(gpu.peak, Bytes::mib(20000));
  EXPECT_EQ(gpu.predicted_peak, Bytes::mib(20000));
  ASSERT_GE(recording.curve.size(), 3u);
  EXPECT_EQ(recording.curve.front().held.at("chat"), Bytes::mib(20000));
  EXPECT_THAT(recording.curve.back().held, ElementsAre(testing::Pair("embed", Bytes::mib(5000))));
  EXPECT_EQ(recording.curve.back().used, Bytes::mib(5000));
}

TEST_F(TapeTest, AModelOfARouterGivesItsMemoryTheName) {
  for (const char* id : {"a", "b"})
    world.add(make_router_service(id, "llama", 7071, Bytes::mib(8000)));
  world.run_unit("gpumod-router-llama.service", {"a"});
  // A router's models are processes of their own, and owned as soon as they are there.
  edit = [&](GpuSample& gpu, std::map<pid_t, std::string>& owners) {
    gpu.processes.clear();
    const auto child = [&](pid_t pid, std::int64_t mib) {
      gpu.processes.push_back({pid, Bytes::mib(mib)});
      owners[pid] = "gpumod-router-llama.service";
    };
    if (!world.did("unload_model a")) child(2001, 8000);
    if (world.did("load_model b")) child(2002, 6000);
  };
  const auto recording = recorded(mode({"b"}));
  EXPECT_THAT(recording.curve.front().held, ElementsAre(testing::Pair("a", Bytes::mib(8000))));
  EXPECT_THAT(recording.curve.back().held, ElementsAre(testing::Pair("b", Bytes::mib(6000))));
}

TEST_F(TapeTest, AFailureSaysItsStepAndWhatPeopleShouldDo) {
  world.run_unit("gpumod-chat.service");
  world.start_fails.insert("embed");
  const auto recording = recorded(mode({"embed"}));
  EXPECT_EQ(recording.result, SwitchResult::rolled_back);
  ASSERT_TRUE(recording.failure);
  EXPECT_THAT(recording.failure->cause, HasSubstr("embed"));
  EXPECT_EQ(recording.failure->step, step(recording, Action::start, "embed").step);
  EXPECT_TRUE(step(recording, Action::start, "chat").undo);
}

struct Curve : ::testing::Test {
  void see(Bytes used, Bytes held, Duration at) {
    GpuSample gpu;
    gpu.name = "RTX";
    gpu.total = Bytes::gib(24);
    gpu.free = Bytes::gib(24) - used;
    gpu.processes = {{100, held}, {200, used - held}};
    tape.note_gpus({gpu}, {{100, "chat"}}, TimePoint{} + at);
  }
  Recording played() const {
    const Switch nothing({});
    return tape.played(nothing, {});
  }

  Tape tape{TimePoint{}};
};

TEST_F(Curve, WhatChangesNothingAddsNoPoint) {
  for (int i = 0; i < 1000; ++i)
    see(Bytes::mib(5000 + i % 7), Bytes::mib(4000 + i % 5), i * 50ms);
  const auto recording = played();
  EXPECT_THAT(recording.curve, SizeIs(2)) << "the first, and how it ended";
  EXPECT_EQ(recording.curve.back().at, 999 * 50ms);
}

TEST_F(Curve, ALongOneIsThinnedAndKeepsItsPeak) {
  for (int i = 0; i < 20'000; ++i)
    see(i == 7777 ? Bytes::gib(22) : Bytes::mib(1000 + 100 * (i % 90)), Bytes::mib(900), i * 50ms);
  const auto recording = played();
  EXPECT_LE(recording.curve.size(), 481u);
  EXPECT_GE(recording.curve.size(), 200u);
  EXPECT_EQ(recording.gpus[0].peak, Bytes::gib(22));
  EXPECT_TRUE(std::any_of(recording.curve.begin(), recording.curve.end(),
                          [](const auto& point) { return point.used == Bytes::gib(22); }));
  EXPECT_LT(boost::json::serialize(to_json(recording)).size(), 50'000u);
}

TEST_F(Curve, WhatIsInUseAndNobodyHoldsIsToldApart) {
  GpuSample gpu;
  gpu.total = Bytes::gib(24);
  gpu.free = Bytes::gib(10);
  gpu.processes = {{100, Bytes::gib(3)}, {200, Bytes::gib(1)}};
  tape.note_gpus({gpu}, {{100, "chat"}}, TimePoint{});
  EXPECT_EQ(played().curve[0].unheld, Bytes::gib(10));
  gpu.processes[1].used.reset();
  gpu.free = Bytes::gib(9);
  tape.note_gpus({gpu}, {{100, "chat"}}, TimePoint{} + 1s);
  EXPECT_FALSE(played().curve[1].unheld) << "nobody knows what the other one holds";
}

TEST_F(Curve, WhoseProcessEndsIsNotInIt) {
  see(Bytes::mib(5000), Bytes::mib(5000), 0s);
  GpuSample gpu;
  gpu.total = gpu.free = Bytes::gib(24);
  tape.note_gpus({gpu}, {}, TimePoint{} + 1s);
  EXPECT_THAT(played().curve.back().held, IsEmpty());
}

TEST(Troubles, KeepTheirLogAndWhatWasGivenUpIsNone) {
  Tape tape{TimePoint{}};
  Event event;
  event.kind = Event::Kind::not_ready;
  event.step = 0;
  event.text = "the tokenizer is missing";
  event.log = {"one", "two"};
  tape.note_event(event, TimePoint{} + 2s);
  event.abandoned = true;
  tape.note_event(event, TimePoint{} + 3s);
  event.abandoned = false;
  event.kind = Event::Kind::ready;
  tape.note_event(event, TimePoint{} + 4s);

  World world;
  world.add(testing_world::make_service("chat", 7070, Bytes::mib(1000)));
  Switch machine({mode({"chat"}), std::nullopt, OnFailure::rollback, world.knowledge});
  world.run(machine);
  const auto recording = tape.played(machine, {});
  ASSERT_THAT(recording.steps, Not(IsEmpty()));
  ASSERT_THAT(recording.steps[0].troubles, SizeIs(1));
  EXPECT_EQ(recording.steps[0].troubles[0].cause, "the tokenizer is missing");
  EXPECT_THAT(recording.steps[0].troubles[0].log, ElementsAre("one", "two"));
  EXPECT_EQ(recording.steps[0].troubles[0].at, 2s);
}

}  // namespace
}  // namespace gpumod
