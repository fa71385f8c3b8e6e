#include "control/recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "switching/world_testing.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::UnorderedElementsAre;
using testing_world::make_router_service;
using testing_world::make_service;
using testing_world::World;

struct RecorderTest : ::testing::Test {
  RecorderTest() {
    world.add(make_service("chat", 7070, Bytes::mib(20000)));
    world.add(make_service("embed", 8200, Bytes::mib(5000)));
    keys = {{"chat", "k1"}, {"embed", "k2"}, {"a", "k3"}, {"b", "k4"}, {"gpumod-router-llama.service", "k5"}};
  }

  static Goal goal(std::map<ServiceId, Residency> wanted) {
    Goal goal;
    goal.mode = "mode";
    goal.wanted = std::move(wanted);
    return goal;
  }

  void sample(Recorder& recorder) {
    auto seen = world.observe();
    auto owners = seen.unit_of_pid;
    if (edit) edit(seen.gpus[0], owners);
    recorder.note_gpus(seen.gpus, owners, world.clock);
  }

  /// What is learned from a switch to that goal, by subject.
  std::map<std::string, Measurement> learned(std::map<ServiceId, Residency> wanted) {
    Switch machine({goal(std::move(wanted)), std::nullopt, OnFailure::rollback, world.knowledge});
    Recorder recorder(keys, world.knowledge, world.clock);
    world.run(machine, [&](Switch& about, int) {
      recorder.note_steps(about, world.clock);
      sample(recorder);
    });
    recorder.note_steps(machine, world.clock);
    sample(recorder);
    result = machine.result();
    std::map<std::string, Measurement> found;
    for (auto& run : recorder.learned(machine, WallTime(std::chrono::microseconds(7)))) {
      EXPECT_FALSE(found.contains(run.subject));
      found[run.subject] = run;
    }
    return found;
  }

  World world;
  std::map<std::string, std::string> keys;
  std::function<void(GpuSample&, std::map<pid_t, std::string>&)> edit;
  SwitchResult result = SwitchResult::failed;
};

TEST_F(RecorderTest, AStartShowsMemoryAndSeconds) {
  const auto runs = learned({{"chat", Residency::running}});
  ASSERT_THAT(runs, ElementsAre(Key("chat")));
  const auto& chat = runs.at("chat");
  EXPECT_EQ(chat.key, "k1");
  EXPECT_EQ(chat.gpu, "Simulated");
  EXPECT_EQ(chat.at.time_since_epoch().count(), 7);
  EXPECT_EQ(chat.peak, Bytes::mib(20000));
  EXPECT_EQ(chat.steady.at(Residency::running), Bytes::mib(20000));
  EXPECT_EQ(chat.phases.at(Phase::start), 5ms);
  EXPECT_EQ(chat.phases.at(Phase::ready), 510ms) << "until it was verified";
}

TEST_F(RecorderTest, APeakIsWhatItTookMost) {
  edit = [&](GpuSample& gpu, auto&) {
    if (world.clock < TimePoint{} + 500ms && !gpu.processes.empty()) gpu.processes[0].used = Bytes::mib(21000);
  };
  const auto runs = learned({{"chat", Residency::running}});
  EXPECT_EQ(runs.at("chat").peak, Bytes::mib(21000));
  EXPECT_EQ(runs.at("chat").steady.at(Residency::running), Bytes::mib(20000));
}

TEST_F(RecorderTest, AStopShowsSeconds) {
  world.run_unit("gpumod-chat.service");
  const auto runs = learned({{"embed", Residency::running}});
  ASSERT_THAT(runs, UnorderedElementsAre(Key("chat"), Key("embed")));
  EXPECT_EQ(runs.at("chat").phases.at(Phase::stop), 20ms);
  EXPECT_EQ(runs.at("chat").phases.at(Phase::release), 1ms);
  EXPECT_FALSE(runs.at("chat").peak);
}

TEST_F(RecorderTest, WhatWaitsForMemoryIsNotSlow) {
  world.run_unit("gpumod-chat.service");
  world.release_lag["gpumod-chat.service"] = 30s;
  const auto runs = learned({{"embed", Residency::running}});
  EXPECT_EQ(runs.at("embed").phases.at(Phase::start) + runs.at("embed").phases.at(Phase::ready), 515ms);
}

TEST_F(RecorderTest, OnlyWhatWentWellTeaches) {
  world.run_unit("gpumod-chat.service");
  world.start_fails.insert("embed");
  EXPECT_THAT(learned({{"embed", Residency::running}}), IsEmpty());
  EXPECT_EQ(result, SwitchResult::rolled_back);
}

TEST_F(RecorderTest, ASecondAttemptTeachesNothing) {
  world.transient_failures["embed"] = 1;
  EXPECT_THAT(learned({{"embed", Residency::running}}), IsEmpty());
  EXPECT_EQ(result, SwitchResult::committed);
}

TEST_F(RecorderTest, WithoutFiguresOfProcessesOnlySecondsAreLearned) {
  edit = [](GpuSample& gpu, auto&) {
    for (auto& process : gpu.processes)
      process.used.reset();
  };
  const auto runs = learned({{"chat", Residency::running}});
  EXPECT_FALSE(runs.at("chat").peak);
  EXPECT_THAT(runs.at("chat").steady, IsEmpty());
  EXPECT_EQ(runs.at("chat").phases.size(), 2u);
}

TEST_F(RecorderTest, AGpuThatCannotBeReadAtTheEndIsNotNone) {
  bool over = false;
  edit = [&](GpuSample& gpu, auto&) { gpu.index = over ? 7 : 0; };
  world.run_unit("gpumod-chat.service");
  Switch machine({goal({{"embed", Residency::running}}), std::nullopt, OnFailure::rollback, world.knowledge});
  Recorder recorder(keys, world.knowledge, world.clock);
  world.run(machine, [&](Switch& about, int) {
    recorder.note_steps(about, world.clock);
    sample(recorder);
  });
  recorder.note_steps(machine, world.clock);
  over = true;
  sample(recorder);
  const auto runs = recorder.learned(machine, WallTime());
  EXPECT_EQ(runs.size(), 2u);
  for (const auto& run : runs)
    EXPECT_EQ(run.gpu, "Simulated");
}

TEST_F(RecorderTest, WhatHasNoKeyIsNotLearned) {
  keys.erase("chat");
  EXPECT_THAT(learned({{"chat", Residency::running}}), IsEmpty());
}

TEST_F(RecorderTest, ARunThatMayHaveBeenSqueezedTeachesNothingOfMemory) {
  auto chat = world.knowledge.services.at("chat");
  chat.engine = EngineKind::llamacpp;
  chat.options = LlamaOptions{};
  world.add(chat);
  world.foreign = Bytes::mib(2000);  // of what would be left over
  EXPECT_FALSE(learned({{"chat", Residency::running}}).at("chat").peak);
  world = World();
  world.add(chat);
  EXPECT_EQ(learned({{"chat", Residency::running}}).at("chat").peak, Bytes::mib(20000));
}

TEST_F(RecorderTest, ASleeperShowsWhatItKeeps) {
  auto& chat = world.knowledge.services.at("chat");
  chat.sleep = SleepAbility::level1;
  world.run_unit("gpumod-chat.service");
  const auto runs = learned({{"chat", Residency::sleeping1}});
  EXPECT_EQ(runs.at("chat").steady.at(Residency::sleeping1), Bytes::mib(600));
  EXPECT_FALSE(runs.at("chat").peak);
  EXPECT_EQ(runs.at("chat").phases.at(Phase::sleep), 53ms);
}

struct RouterRecorderTest : RecorderTest {
  RouterRecorderTest() {
    for (const char* id : {"a", "b"})
      world.add(make_router_service(id, "llama", 7071, Bytes::mib(8000)));
    // A router's models are processes of their own.
    edit = [&](GpuSample& gpu, std::map<pid_t, std::string>& owners) {
      gpu.processes.clear();
      const auto child = [&](const char* id, pid_t pid, std::int64_t mib) {
        if (!world.did(std::string("load_model ") + id)) return;
        gpu.processes.push_back({pid, Bytes::mib(mib)});
        owners[pid] = "gpumod-router-llama.service";
      };
      child("a", 2001, 7000);
      child("b", 2002, 6000);
    };
  }
};

TEST_F(RouterRecorderTest, EachModelShowsItsOwnMemory) {
  const auto runs = learned({{"a", Residency::running}, {"b", Residency::running}});
  ASSERT_THAT(runs, UnorderedElementsAre(Key("a"), Key("b"), Key("gpumod-router-llama.service")));
  EXPECT_EQ(runs.at("a").peak, Bytes::mib(7000));
  EXPECT_EQ(runs.at("b").peak, Bytes::mib(6000));
  EXPECT_EQ(runs.at("a").phases.at(Phase::load), 62ms);
  EXPECT_FALSE(runs.at("gpumod-router-llama.service").peak);
}

TEST_F(RouterRecorderTest, WhoseMemoryItIsMustBeTold) {
  edit = [&](GpuSample& gpu, std::map<pid_t, std::string>& owners) {
    gpu.processes.clear();
    if (!world.did("load_model b")) return;  // the first one's process was seen only when the second one came
    gpu.processes = {{2001, Bytes::mib(7000)}, {2002, Bytes::mib(6000)}};
    owners[2001] = owners[2002] = "gpumod-router-llama.service";
  };
  const auto runs = learned({{"a", Residency::running}, {"b", Residency::running}});
  EXPECT_FALSE(runs.at("a").peak);
  EXPECT_FALSE(runs.at("b").peak);
}

TEST_F(RouterRecorderTest, WhatWasThereBeforeTheFirstSampleIsNotItsOwn) {
  edit = nullptr;  // the router itself holds what its models take
  world.run_unit("gpumod-router-llama.service", {"a"});
  Switch machine({goal({{"a", Residency::running}, {"b", Residency::running}}), std::nullopt, OnFailure::rollback,
                  world.knowledge});
  Recorder recorder(keys, world.knowledge, world.clock);
  world.run(machine, [&](Switch& about, int) {
    recorder.note_steps(about, world.clock);
    if (world.did("load_model b")) sample(recorder);
  });
  recorder.note_steps(machine, world.clock);
  sample(recorder);
  const auto runs = recorder.learned(machine, WallTime());
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].subject, "b");
  EXPECT_FALSE(runs[0].peak) << "what 'a' holds, too, is in that process";
}

}  // namespace
}  // namespace gpumod
