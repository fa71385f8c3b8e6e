#include "verbs/drift.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using ::testing::HasSubstr;
using Kind = Difference::Kind;

/// Two services of a mode, `coder` (llama.cpp, 20 GiB declared) and `embed`, both running, and one that does not.
struct DriftTest : ::testing::Test {
  DriftTest() {
    add("coder", EngineKind::llamacpp, 7070, Bytes::gib(20));
    add("embed", EngineKind::command, 7071, Bytes());
    add("other", EngineKind::command, 7072, Bytes());
    Mode mode;
    mode.id = "code";
    mode.services = {"coder", "embed"};
    catalog.modes["code"] = mode;
    goal = Goal{"code", {{"coder", Residency::running}, {"embed", Residency::running}}, true};
    runs("coder", 10);
    runs("embed", 11);
    snapshot.services["other"].residency = Residency::stopped;
    GpuSample gpu;
    gpu.total = Bytes::gib(24);
    gpu.free = Bytes::gib(4);
    gpu.processes.push_back({10, Bytes::gib(19)});
    snapshot.gpus.push_back(gpu);
  }

  void add(const std::string& id, EngineKind engine, std::uint16_t port, Bytes vram) {
    Service service;
    service.id = id;
    service.engine = engine;
    service.port = port;
    service.vram = vram;
    if (engine == EngineKind::llamacpp)
      service.options = LlamaOptions{};
    else
      service.options = CommandOptions{{"/bin/" + id}, {}, {}};
    snapshot.services[id] = ServiceView{id, service.unit_name(), Residency::stopped, ""};
    catalog.services[id] = std::move(service);
  }
  void runs(const std::string& id, pid_t pid) {
    auto& view = snapshot.services[id];
    view.residency = Residency::running;
    UnitStatus unit;
    unit.name = view.unit;
    unit.active = ActiveState::active;
    unit.pids = {pid};
    snapshot.units[view.unit] = unit;
    snapshot.unit_of_pid[pid] = view.unit;
    snapshot.ports.push_back({catalog.services[id].port, view.unit, pid, id, "me"});
  }
  void dies(const std::string& id) {
    auto& view = snapshot.services[id];
    view.residency = Residency::failed;
    view.detail = "ended by signal 9";
    snapshot.units[view.unit].active = ActiveState::failed;
    snapshot.units[view.unit].pids.clear();
    std::erase_if(snapshot.ports, [&](const PortHolder& holder) { return holder.unit == view.unit; });
  }
  /// The only difference.
  Difference only() {
    const auto all = differences_of(goal, snapshot, catalog);
    EXPECT_EQ(all.size(), 1u);
    return all.empty() ? Difference{} : all.front();
  }

  Catalog catalog;
  Snapshot snapshot;
  std::optional<Goal> goal;
};

TEST_F(DriftTest, WhatIsAsItShouldBeHasNone) {
  EXPECT_TRUE(differences_of(goal, snapshot, catalog).empty());
  EXPECT_TRUE(squeezed_units(goal, snapshot, catalog).empty());
}

TEST_F(DriftTest, ADeadServiceIsNamedWithItsEnd) {
  dies("embed");
  EXPECT_EQ(only().kind, Kind::dead);
  EXPECT_EQ(only().text, "'embed' should run but is failed: ended by signal 9");
}

TEST_F(DriftTest, AStrangerOnThePortIsNamed) {
  dies("embed");
  snapshot.ports.push_back({7071, "", 4242, "python3", "eve"});
  EXPECT_EQ(only().kind, Kind::port);
  EXPECT_EQ(only().text,
            "'embed' should run but is failed: its port 7071 is held by pid 4242 (python3, user eve), which is not "
            "ours; stop "
            "pid 4242 (python3), then gpumod repair");
  EXPECT_FALSE(only().repair_mends);
  snapshot.ports.back().unit = "gpumod-other.service";
  EXPECT_THAT(only().text, testing::EndsWith("pid 4242 (python3) of gpumod-other.service"));
  EXPECT_TRUE(only().repair_mends) << "nobody wants that: repair stops it";
  snapshot.ports.back().unit = "gpumod-coder.service";
  EXPECT_THAT(only().text, HasSubstr("gpumod service stop coder"));
  EXPECT_FALSE(only().repair_mends);
  snapshot.ports.back() = {7071, "", 0, "", "eve"};
  EXPECT_THAT(only().text, HasSubstr("a process of user eve"));
}

TEST_F(DriftTest, AStrangerOnThePortOfWhatNobodyWantsIsNoDifference) {
  snapshot.ports.push_back({7072, "", 4242, "python3", "eve"});
  EXPECT_TRUE(differences_of(goal, snapshot, catalog).empty());
}

TEST_F(DriftTest, WhoRunsWithOlderSettingsThanItsFilesIsOutdated) {
  snapshot.outdated = {"gpumod-embed.service"};
  EXPECT_EQ(only().kind, Kind::outdated);
  EXPECT_EQ(to_string(only().kind), "outdated");
  EXPECT_EQ(only().text,
            "'embed' runs with older settings than its file's: gpumod service restart embed applies the new ones");
  EXPECT_TRUE(only().repair_mends);
  snapshot.services["embed"].residency = Residency::starting;
  snapshot.services["embed"].detail = "nothing listens on port 7079";
  EXPECT_EQ(only().kind, Kind::outdated) << "where it is asked now, it never listened";
  snapshot.services["embed"].residency = Residency::failed;
  EXPECT_EQ(only().kind, Kind::outdated) << "for long";
  snapshot.ports.back() = {7071, "", 4242, "python3", "eve"};
  EXPECT_EQ(only().kind, Kind::port) << "repair would be refused";
  snapshot.ports.pop_back();
  goal->wanted.erase("embed");
  EXPECT_EQ(only().kind, Kind::unwanted);
}

TEST_F(DriftTest, OfABrokenFileThePlaceIsNamed) {
  catalog.services.erase("embed");
  snapshot.services.erase("embed");
  EXPECT_EQ(only().text, "'embed' is wanted, but no file defines it any more");
  catalog.broken_services.insert("embed");
  catalog.service_faults["embed"] = SourceLocation{"services/embed.yaml", 3, 1};
  EXPECT_EQ(only().kind, Kind::undefined);
  EXPECT_EQ(only().text,
            "'embed' is wanted, but its file is broken: correct services/embed.yaml:3:1, or gpumod service stop embed");
  EXPECT_FALSE(only().repair_mends);
  auto& unit = snapshot.units.at("gpumod-embed.service");
  unit.tag = "embed";
  EXPECT_TRUE(runs_without_its_file(unit, catalog));
  unit.active = ActiveState::inactive;
  unit.pids.clear();
  EXPECT_FALSE(runs_without_its_file(unit, catalog));
}

TEST_F(DriftTest, AServiceThatFitHasShrunkIsSqueezed) {
  snapshot.gpus[0].processes[0].used = Bytes::gib(6);
  snapshot.gpus[0].free = Bytes::gib(16);
  EXPECT_EQ(only().kind, Kind::squeezed);
  EXPECT_THAT(only().text, HasSubstr("'coder' runs with 6144 MiB of VRAM where 20480 MiB are declared"));
  EXPECT_THAT(squeezed_units(goal, snapshot, catalog), testing::ElementsAre("gpumod-coder.service"));
  EXPECT_THAT(only().text, HasSubstr("if a restart does not help, its vram: is too high"));
  snapshot.gpus[0].processes.clear();
  EXPECT_EQ(only().kind, Kind::squeezed) << "it runs on the CPU alone";
  snapshot.gpus.clear();
  EXPECT_TRUE(differences_of(goal, snapshot, catalog).empty()) << "what cannot be seen is not claimed";
}

TEST_F(DriftTest, SqueezedIsWhoHoldsLessThanHalfOfWhatIsKnownBest) {
  snapshot.gpus[0].processes[0].used = Bytes::gib(6);
  snapshot.gpus[0].name = "A card";
  SqueezeEvidence evidence;
  evidence.known["coder"].measured["A card"].peak = Bytes::gib(11);
  EXPECT_TRUE(differences_of(goal, snapshot, catalog, {}, evidence).empty()) << "its vram: is too high";
  evidence.known["coder"].measured["A card"].peak = Bytes::gib(13);
  const auto found = differences_of(goal, snapshot, catalog, {}, evidence);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_THAT(found[0].text, HasSubstr("6144 MiB of VRAM where 13312 MiB are measured"));
  EXPECT_TRUE(may_be_squeezed(snapshot, catalog));
  LlamaOptions pinned;
  pinned.context_size = 8192;
  pinned.gpu_layers = 99;
  catalog.services["coder"].options = pinned;
  EXPECT_FALSE(may_be_squeezed(snapshot, catalog)) << "then nothing more needs to be known";
}

TEST_F(DriftTest, AnEstimateAloneMakesNobodySqueezed) {
  catalog.services["coder"].vram.reset();
  snapshot.gpus[0].processes[0].used = Bytes::gib(6);
  SqueezeEvidence evidence;
  evidence.known["coder"].estimated = EstimatedMemory{Bytes::gib(18), Bytes::gib(1), {}, {}, false, {}};
  EXPECT_TRUE(differences_of(goal, snapshot, catalog, {}, evidence).empty());
  evidence.known["coder"].measured[""].peak = Bytes::gib(7);
  EXPECT_TRUE(differences_of(goal, snapshot, catalog, {}, evidence).empty()) << "it takes what it took before";
}

TEST_F(DriftTest, ARestartIsForWhomItMayHelp) {
  snapshot.gpus[0].processes[0].used = Bytes::gib(6);
  snapshot.gpus[0].free = Bytes::gib(15);
  EXPECT_THAT(squeezed_units(goal, snapshot, catalog), testing::ElementsAre("gpumod-coder.service"));
  snapshot.gpus[0].free = Bytes::gib(15) - Bytes::mib(1);  // --fit leaves 1 GiB of 21
  EXPECT_TRUE(squeezed_units(goal, snapshot, catalog).empty());
  EXPECT_THAT(only().text, HasSubstr("; 15359 MiB more are free now, too little for a restart to help"));
  snapshot.gpus[0].free = Bytes::gib(18);
  const SqueezeEvidence tried{{}, {"gpumod-coder.service"}};
  EXPECT_TRUE(squeezed_units(goal, snapshot, catalog, tried).empty());
  const auto found = differences_of(goal, snapshot, catalog, {}, tried);
  ASSERT_EQ(found.size(), 1u) << "it is as it was";
  EXPECT_THAT(found[0].text, HasSubstr("; gpumod repair has restarted it, and that changed nothing: its vram: may be"));
}

TEST(SqueezeHistory, WhoseLastStartWasARepair) {
  const auto past = [](const std::string& kind, const std::string& steps) {
    StoredSwitch stored;
    stored.kind = kind;
    stored.report = R"({"switch":{"steps":[)" + steps + "]}}";
    return stored;
  };
  const std::string a = R"({"unit":"a","action":"start","result":"done"})";
  const std::string b = R"({"unit":"b","action":"load","result":"done"})";
  const std::string c =
      R"({"unit":"c","action":"start","result":"failed"},{"unit":"d","action":"verify","result":"done"})";
  StoredSwitch running;
  running.kind = "repair";
  EXPECT_THAT(last_started_by_repair({running, past("repair", c), past("mode switch", a), past("repair", a + "," + b)}),
              testing::ElementsAre("b"));
  EXPECT_THAT(last_started_by_repair({past("repair", "7"), past("repair", a)}), testing::ElementsAre("a"));
}

TEST_F(DriftTest, FiguresThatNvmlDoesNotGiveProveNothing) {
  snapshot.gpus[0].processes[0].used.reset();
  EXPECT_TRUE(differences_of(goal, snapshot, catalog).empty());
}

TEST_F(DriftTest, OneThatDoesNotAnswerIsSaidToAndIsNotSqueezedYet) {
  snapshot.services["coder"].residency = Residency::starting;
  snapshot.services["coder"].detail = "no answer within 2.0 s";
  snapshot.gpus[0].processes[0].used = Bytes::gib(1);
  const auto found = differences_of(goal, snapshot, catalog);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].kind, Difference::Kind::unreached);
  EXPECT_EQ(found[0].text, "'coder' should run, but does not answer: no answer within 2.0 s");
}

TEST_F(DriftTest, AsleepWhereItShouldRunAndTheOtherWayRound) {
  snapshot.services["embed"].residency = Residency::sleeping1;
  EXPECT_EQ(only().kind, Kind::unreached);
  EXPECT_EQ(only().text, "'embed' should run but is sleeping1");
  goal->wanted["embed"] = Residency::sleeping1;
  EXPECT_TRUE(differences_of(goal, snapshot, catalog).empty());
  snapshot.services["embed"].residency = Residency::running;
  EXPECT_EQ(only().kind, Kind::unreached);
  EXPECT_EQ(only().text, "'embed' should be sleeping1 but is running");
}

TEST_F(DriftTest, WhatNobodyWantsIsNamedUpAsleepOrWedged) {
  runs("other", 12);
  EXPECT_EQ(only().kind, Kind::unwanted);
  snapshot.services["other"].residency = Residency::sleeping2;
  EXPECT_THAT(only().text, HasSubstr("is sleeping2, but the goal does not want it"));
  snapshot.services["other"].residency = Residency::failed;
  EXPECT_THAT(only().text, HasSubstr("1 of its processes are still there"));
  dies("other");
  EXPECT_TRUE(differences_of(goal, snapshot, catalog).empty());
}

TEST_F(DriftTest, WantedWithoutAFile) {
  goal->wanted["gone"] = Residency::running;
  EXPECT_EQ(only().kind, Kind::undefined);
}

TEST_F(DriftTest, ALostGoalIsTakenFromWhatRuns) {
  auto found = goal_of_what_runs(snapshot, catalog);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->mode, "code");
  EXPECT_TRUE(found->exclusive);
  EXPECT_EQ(found->wanted, goal->wanted);
  EXPECT_TRUE(differences_of(found, snapshot, catalog).empty());

  runs("other", 12);
  found = goal_of_what_runs(snapshot, catalog);
  EXPECT_EQ(found->mode, "") << "no mode wants these three";
  EXPECT_EQ(found->wanted.size(), 3u);

  for (const auto* id : {"coder", "embed", "other"})
    dies(id);
  EXPECT_FALSE(goal_of_what_runs(snapshot, catalog));
}

/// A switch to `other` that was cut off after it stopped `embed` and started `other`; `coder` still runs.
struct InterruptedTest : DriftTest {
  InterruptedTest() {
    cut_off = Interruption{"switch 7 (mode switch to more)", Goal{"more", {{"other", Residency::running}}, true}, {}};
    dies("embed");
    runs("other", 12);
  }
  std::vector<std::string> texts() {
    std::vector<std::string> all;
    for (const auto& difference : differences_of(goal, snapshot, catalog, cut_off)) {
      EXPECT_EQ(difference.kind, Kind::interrupted) << difference.text;
      all.push_back(difference.text);
    }
    return all;
  }
  std::optional<Interruption> cut_off;
};

TEST_F(InterruptedTest, WhatASwitchLeftThatIsToBeFinished) {
  cut_off->repair = cut_off->aim;
  EXPECT_THAT(texts(),
              testing::ElementsAre(
                  "'coder' is to make room for the interrupted switch 7 (mode switch to more): gpumod repair stops it",
                  "'embed' made room for the interrupted switch 7 (mode switch to more): gpumod repair leaves it so",
                  "'other' belongs to the interrupted switch 7 (mode switch to more): gpumod repair keeps it"));
  dies("other");
  EXPECT_THAT(texts(), testing::Contains("'other' is still to come for the interrupted switch 7 (mode switch to more): "
                                         "gpumod repair brings it up"));
}

TEST_F(InterruptedTest, WhatASwitchLeftThatIsToBeTakenBack) {
  cut_off->repair = goal;
  EXPECT_THAT(texts(),
              testing::ElementsAre(
                  "'embed' made room for the interrupted switch 7 (mode switch to more): gpumod repair brings it back",
                  "'other' belongs to the interrupted switch 7 (mode switch to more): gpumod repair stops it"));
}

TEST_F(InterruptedTest, WhatBothWantIsNotExplainedByIt) {
  cut_off->aim.wanted["embed"] = Residency::running;
  cut_off->repair = cut_off->aim;
  const auto found = differences_of(goal, snapshot, catalog, cut_off);
  const auto embed = std::find_if(found.begin(), found.end(), [](const auto& each) { return each.service == "embed"; });
  ASSERT_NE(embed, found.end());
  EXPECT_EQ(embed->kind, Kind::dead);
}

TEST_F(DriftTest, AGoalThatIsItsModeDeviatesInNothing) {
  EXPECT_TRUE(deviations_of(goal, catalog, {"coder", "embed"}).empty());
  EXPECT_TRUE(deviations_of(std::nullopt, catalog, {}).empty());
}

TEST_F(DriftTest, HowAGoalDeviatesFromItsModeIsToldWithItsCause) {
  goal->wanted.erase("coder");
  goal->wanted["embed"] = Residency::sleeping1;
  goal->wanted["other"] = Residency::running;
  const auto texts = [&](const std::set<ServiceId>& by_hand) {
    std::vector<std::string> all;
    for (const auto& deviation : deviations_of(goal, catalog, by_hand))
      all.push_back(deviation.text);
    return all;
  };
  EXPECT_THAT(texts({"coder", "embed", "other"}),
              testing::ElementsAre("mode code without 'coder': stopped by hand; gpumod mode switch code brings it back",
                                   "mode code with 'embed' asleep, by hand; gpumod mode switch code wakes it",
                                   "'other' beside mode code: started by hand; gpumod mode switch code stops it"));
  EXPECT_THAT(
      texts({}),
      testing::IsSupersetOf(
          {"mode code without 'coder': the mode's file names it only since; gpumod mode switch code brings it up",
           "'other' beside mode code: the mode's file names it no more; gpumod mode switch code stops it"}));
}

}  // namespace
}  // namespace gpumod
