#include "switching/switch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "switching/switch_testing.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing_world::make_router_service;
using testing_world::make_service;
using testing_world::mode;
using testing_world::only;
using testing_world::SwitchTest;
using testing_world::World;

TEST_F(SwitchTest, StopsWhatTheModeDoesNotWantBeforeItStartsWhatDoesNotFitBeside) {
  world.run_unit("gpumod-chat.service");
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("stop_unit chat", "start_unit embed"));
  EXPECT_FALSE(world.runs("chat"));
  EXPECT_TRUE(world.runs("embed"));
  expect_clean();
}

TEST_F(SwitchTest, StartsFirstWhatFitsBeside) {
  world.run_unit("gpumod-small.service");
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("start_unit embed", "stop_unit small"));
  expect_clean();
}

TEST_F(SwitchTest, ASwitchToWhatRunsOnlyVerifies) {
  world.run_unit("gpumod-chat.service");
  auto machine = make(mode({"chat"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::unchanged);
  EXPECT_THAT(world.history, IsEmpty());
}

TEST_F(SwitchTest, ADeadServiceOfTheSameModeIsStartedAgain) {
  world.run_unit("gpumod-small.service");
  auto machine = make(mode({"small", "chat"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("start_unit chat"));
}

TEST_F(SwitchTest, AServiceThatOnlyLooksAliveIsRestarted) {
  world.run_unit("gpumod-chat.service");
  world.wrong_model.insert("chat");
  auto machine = make(mode({"chat"}));
  world.run(machine, [&](Switch&, int) {
    if (world.did("stop_unit chat")) world.wrong_model.clear();
  });
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("stop_unit chat", "start_unit chat"));
  expect_clean();
}

TEST_F(SwitchTest, AKillThatWasNeededIsReported) {
  world.run_unit("gpumod-chat.service");
  world.survives_sigterm.insert("gpumod-chat.service");
  auto machine = make(mode({}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(machine.reports().front().earlier, ElementsAre(HasSubstr("needed SIGKILL")));
}

TEST_F(SwitchTest, OrphansAreStoppedWhateverTheirState) {
  world.run_unit("gpumod-forgotten.service");
  world.run_unit("gpumod-embed.service");
  world.break_unit("gpumod-embed.service");
  auto machine = make(mode({}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_FALSE(world.unit_runs("gpumod-forgotten.service"));
  EXPECT_FALSE(world.unit_runs("gpumod-embed.service"));
}

TEST_F(SwitchTest, AFailedStartIsClearedAwayAndWhatRanBeforeIsRestored) {
  world.run_unit("gpumod-chat.service");
  world.start_fails.insert("embed");
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::rolled_back);
  EXPECT_THAT(world.history, ElementsAre("stop_unit chat", "start_unit embed", "stop_unit embed", "record_failure",
                                         "start_unit chat"));
  EXPECT_TRUE(world.runs("chat"));
  ASSERT_TRUE(machine.problem());
  EXPECT_THAT(machine.problem()->message, HasSubstr("'embed'"));
  EXPECT_THAT(machine.problem()->message, HasSubstr("it ended"));
  expect_clean();
}

TEST_F(SwitchTest, ATransientFailureIsTriedAgain) {
  world.transient_failures["embed"] = 2;
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_EQ(machine.reports().back().attempts, 3);
  expect_clean();
}

TEST_F(SwitchTest, WhatDiesWhileTheNextOneStartsIsNotCommitted) {
  auto machine = make(mode({"chat", "small"}));
  bool killed = false;
  world.run(machine, [&](Switch&, int) {
    if (!killed && world.did("start_unit small") && world.runs("small"))
      killed = true, world.break_unit("gpumod-chat.service");
  });
  EXPECT_TRUE(killed);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("start_unit chat", "start_unit small", "stop_unit chat", "start_unit chat"));
  EXPECT_TRUE(world.runs("chat"));
  EXPECT_TRUE(world.runs("small"));
  expect_clean();
}

TEST_F(SwitchTest, WhatDiesAgainAndAgainAfterItsVerificationFailsTheSwitch) {
  auto machine = make(mode({"chat", "small"}));
  int killed = 0;
  world.run(machine, [&](Switch& now, int) {
    const auto verified = std::count_if(now.reports().begin(), now.reports().end(), [](const StepReport& line) {
      return line.subject == "chat" && line.action == Action::start && line.result == "done";
    });
    if (verified > killed) ++killed, world.break_unit("gpumod-chat.service");
  });
  EXPECT_EQ(machine.result(), SwitchResult::rolled_back);
  ASSERT_TRUE(machine.problem());
  EXPECT_THAT(machine.problem()->message, HasSubstr("'chat' was verified, and then failed"));
  EXPECT_FALSE(world.unit_runs("gpumod-small.service"));
}

TEST_F(SwitchTest, AServiceAloneIsNotLookedAtAgain) {
  auto machine = make(mode({"chat"}));
  int looks = 0;
  world.run(machine, [&](Switch&, int) { ++looks; });
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  // observed, preflight_ok, memory_ok, job_done, ready, verified: and no second observation.
  EXPECT_EQ(looks, 6);
}

TEST_F(SwitchTest, ASleeperThatKeepsItsMemoryHasNotDoneWhatWasAsked) {
  auto chat = make_service("chat", 7070, Bytes::mib(20000));
  chat.sleep = SleepAbility::level1;
  world.add(chat);
  world.run_unit("gpumod-chat.service");
  world.keeps_memory_asleep.insert("chat");
  auto machine = make(only("chat", Residency::sleeping1));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::rolled_back);
  ASSERT_TRUE(machine.problem());
  EXPECT_THAT(machine.problem()->message, HasSubstr("still holds"));
  EXPECT_THAT(world.history, ElementsAre("sleep_service chat", "record_failure", "wake_service chat"));
  EXPECT_TRUE(world.runs("chat"));
}

TEST_F(SwitchTest, ASleeperWhoseMemoryFellHas) {
  auto chat = make_service("chat", 7070, Bytes::mib(20000));
  chat.sleep = SleepAbility::level1;
  world.add(chat);
  world.run_unit("gpumod-chat.service");
  auto machine = make(only("chat", Residency::sleeping1));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("sleep_service chat"));
}

TEST_F(SwitchTest, TransientFailuresAreNotTriedForEver) {
  world.transient_failures["embed"] = 100;
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::rolled_back);
  EXPECT_EQ(std::count(world.history.begin(), world.history.end(), "start_unit embed"), 3);
}

TEST_F(SwitchTest, StayLeavesWhatWasReached) {
  world.run_unit("gpumod-chat.service");
  world.start_fails.insert("embed");
  auto machine = make(mode({"embed"}), OnFailure::stay);
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_FALSE(world.did("start_unit chat"));
}

TEST_F(SwitchTest, BlankStopsEverything) {
  world.run_unit("gpumod-small.service");
  world.run_unit("gpumod-chat.service");
  world.start_fails.insert("embed");
  auto machine = make(mode({"small", "embed"}), OnFailure::blank);
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_FALSE(world.runs("small"));
  EXPECT_FALSE(world.runs("chat"));
}

TEST_F(SwitchTest, ASurvivorIsKilledAndOnlyThenTheNextStarts) {
  world.run_unit("gpumod-chat.service");
  world.survives_sigterm.insert("gpumod-chat.service");
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("stop_unit chat", "kill_unit chat", "start_unit embed"));
  expect_clean();
}

TEST_F(SwitchTest, NothingIsStartedPastAnUnprovenRelease) {
  world.run_unit("gpumod-chat.service");
  world.survives_everything.insert("gpumod-chat.service");
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_NE(machine.result(), SwitchResult::committed);
  EXPECT_FALSE(world.did("start_unit embed"));
  ASSERT_TRUE(machine.problem());
  EXPECT_THAT(machine.problem()->message, HasSubstr("will not end"));
}

TEST_F(SwitchTest, AStartWaitsForMemoryThatComesBackLate) {
  world.run_unit("gpumod-chat.service");
  world.release_lag["gpumod-chat.service"] = 90s;
  auto machine = make(mode({"embed", "small"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_GE(world.clock.time_since_epoch(), 90s);
  expect_clean();
}

TEST_F(SwitchTest, MemoryThatNeverComesBackFailsTheSwitch) {
  world.run_unit("gpumod-chat.service");
  world.release_lag["gpumod-chat.service"] = 3600s;
  auto machine = make(mode({"embed", "small"}));
  world.run(machine);
  EXPECT_NE(machine.result(), SwitchResult::committed);
  EXPECT_FALSE(world.did("start_unit embed"));
  expect_clean();
}

TEST_F(SwitchTest, WhatCannotFitIsRefusedAndNothingTouched) {
  world.run_unit("gpumod-small.service");
  world.foreign = Bytes::mib(10000);
  auto machine = make(mode({"chat"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::refused);
  EXPECT_THAT(world.history, IsEmpty());
  EXPECT_TRUE(world.runs("small"));
  EXPECT_EQ(machine.problem()->code, ErrorCode::refused);
}

TEST_F(SwitchTest, AFailedPreflightTouchesNothing) {
  world.run_unit("gpumod-chat.service");
  world.preflight_problem = "the model file is not there";
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::refused);
  EXPECT_THAT(world.history, IsEmpty());
}

TEST_F(SwitchTest, LateEventsOfAnEarlierAttemptAreIgnored) {
  world.transient_failures["embed"] = 1;
  auto machine = make(mode({"embed"}));
  world.run(machine, [&](Switch& running, int) {
    if (running.reports().empty() || running.reports()[0].attempts != 2) return;
    Event stale;
    stale.kind = Event::Kind::ready;
    stale.step = 0;
    stale.attempt = 1;
    world.issue(running.on(stale, world.clock));
  });
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_TRUE(world.runs("embed"));
  expect_clean();
}

TEST_F(SwitchTest, AServiceIsStartedBesideAMode) {
  world.run_unit("gpumod-chat.service");
  auto machine = make(only("small", Residency::running));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_TRUE(world.runs("chat"));
  EXPECT_TRUE(world.runs("small"));
}

TEST_F(SwitchTest, AServiceThatDoesNotFitBesideIsRefused) {
  world.run_unit("gpumod-chat.service");
  auto machine = make(only("embed", Residency::running));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::refused);
  EXPECT_TRUE(world.runs("chat"));
}

TEST_F(SwitchTest, ARestartStopsAndStartsOneService) {
  world.run_unit("gpumod-chat.service");
  world.run_unit("gpumod-small.service");
  world.knowledge.distrusted.insert("gpumod-small.service");
  auto machine = make(only("small", Residency::running));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("stop_unit small", "start_unit small"));
}

TEST_F(SwitchTest, ARollbackLeavesAloneWhatTheSwitchNeverTouched) {
  world.run_unit("gpumod-small.service");
  world.run_unit("gpumod-cpu.service");
  world.break_unit("gpumod-cpu.service");  // alive, but it does not answer just now
  world.start_fails.insert("embed");
  auto machine = make(only("embed", Residency::running));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::rolled_back);
  EXPECT_THAT(world.history, ElementsAre("start_unit embed", "stop_unit embed", "record_failure"));
  for (const auto& line : machine.reports())
    EXPECT_EQ(line.service, "embed") << "no other service may even be asked";
}

TEST_F(SwitchTest, OneServiceThatDoesNotComeBackKeepsNoOtherDown) {
  world.run_unit("gpumod-small.service");
  world.run_unit("gpumod-cpu.service");
  world.run_unit("gpumod-embed.service");
  world.start_fails.insert("chat");
  auto machine = make(mode({"chat"}));
  world.run(machine, [&](Switch&, int) {
    if (world.did("start_unit chat")) world.start_fails.insert("embed");
  });
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_FALSE(world.runs("embed"));
  EXPECT_TRUE(world.runs("small"));
  EXPECT_TRUE(world.runs("cpu"));
  EXPECT_THAT(machine.problem()->message, HasSubstr("'embed'"));
  expect_clean();
}

TEST_F(SwitchTest, AServiceIsRestartedOnceAndNotForEver) {
  world.run_unit("gpumod-chat.service");
  world.wrong_model.insert("chat");
  auto machine = make(mode({"chat"}));
  world.run(machine);
  EXPECT_NE(machine.result(), SwitchResult::committed);
  EXPECT_LE(std::count(world.history.begin(), world.history.end(), "start_unit chat"), 3);
  expect_clean();
}

TEST_F(SwitchTest, WhatDoesNotFitAnyMoreKeepsNoOtherDown) {
  world.run_unit("gpumod-chat.service");
  world.run_unit("gpumod-small.service");
  world.start_fails.insert("embed");
  auto machine = make(mode({"embed"}));
  world.run(machine, [&](Switch&, int) {
    if (world.did("start_unit embed")) world.foreign = Bytes::mib(10000);
  });
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_TRUE(world.runs("small"));
  EXPECT_THAT(machine.problem()->message, HasSubstr("could not be restored: 'chat'"));
  expect_clean();
}

TEST_F(SwitchTest, WhoWasLeftOutForWantOfRoomGetsItWhenAnotherStaysDown) {
  world.add(make_service("a", 8300, Bytes::mib(10000)));
  world.add(make_service("b", 8301, Bytes::mib(12000)));
  world.run_unit("gpumod-a.service");
  world.run_unit("gpumod-b.service");
  world.start_fails.insert("embed");
  auto machine = make(mode({"embed"}));
  world.run(machine, [&](Switch&, int) {
    if (!world.did("start_unit embed")) return;
    world.foreign = Bytes::mib(8000);
    world.start_fails.insert("a");
  });
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_FALSE(world.runs("a"));
  EXPECT_TRUE(world.runs("b"));
  EXPECT_THAT(machine.problem()->message, HasSubstr("'a'"));
  EXPECT_EQ(std::count(world.history.begin(), world.history.end(), "start_unit a"), 1);
  expect_clean();
}

TEST_F(SwitchTest, ARollbackDoesNotRestartWhoWasOnlyAsked) {
  world.run_unit("gpumod-small.service");
  world.run_unit("gpumod-forgotten.service");
  world.wrong_model.insert("small");
  auto machine = make(mode({"small"}));
  bool blinded = false;
  world.run(machine, [&](Switch& running, int) {
    const auto& reports = running.reports();
    const bool over = !reports.empty() && std::all_of(reports.begin(), reports.end(), [](const StepReport& line) {
      return line.result == "done" || line.result == "failed";
    });
    if (!over || std::exchange(blinded, true)) return;
    Event nothing;
    nothing.kind = Event::Kind::observed;  // the round is over, and the machine cannot be looked at
    world.issue(running.on(nothing, world.clock));
  });
  EXPECT_TRUE(blinded);
  EXPECT_TRUE(world.did("stop_unit gpumod-forgotten.service"));
  EXPECT_FALSE(world.did("stop_unit small"));
}

TEST_F(SwitchTest, AStopThatTheUnitManagerDidNotConfirmIsOrderedAgain) {
  world.run_unit("gpumod-chat.service");
  world.lost_stops["gpumod-chat.service"] = 1;
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  // Its process is gone after the kill, but a restart loop would bring it back.
  EXPECT_THAT(world.history, ElementsAre("stop_unit chat", "kill_unit chat", "stop_unit chat", "start_unit embed"));
}

TEST_F(SwitchTest, AStopThatIsNeverConfirmedFails) {
  world.run_unit("gpumod-chat.service");
  world.lost_stops["gpumod-chat.service"] = 2;
  auto machine = make(mode({"embed"}), OnFailure::stay);
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_FALSE(world.did("start_unit embed"));
  EXPECT_THAT(machine.problem()->message, HasSubstr("did not confirm"));
}

TEST_F(SwitchTest, ASleeperThatDiesWhileAnotherStartsIsNotCommitted) {
  auto chat = make_service("chat", 7070, Bytes::mib(12000));
  chat.sleep = SleepAbility::level1;
  world.add(chat);
  world.run_unit("gpumod-chat.service");
  auto goal = mode({"embed"});
  goal.wanted["chat"] = Residency::sleeping1;
  auto machine = make(goal);
  bool killed = false;
  world.run(machine, [&](Switch&, int) {
    if (!killed && world.did("start_unit embed")) killed = true, world.break_unit("gpumod-chat.service");
  });
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_TRUE(world.did("start_unit chat"));
  expect_clean();
}

TEST_F(SwitchTest, ASleeperThatDoesNotComeBackKeepsNoOtherDown) {
  auto chat = make_service("chat", 7070, Bytes::mib(5000));
  chat.sleep = SleepAbility::level1;
  world.add(chat);
  world.run_unit("gpumod-chat.service");
  world.sleep("chat");
  world.run_unit("gpumod-small.service");
  world.foreign = Bytes::mib(17000);  // not beside each other
  world.wrong_model.insert("chat");   // it wakes, and what it says is wrong
  world.never_ready.insert("cpu");
  auto machine = make(mode({"chat", "cpu"}));
  world.run(machine, [&](Switch&, int) {
    if (world.did("wake_service chat")) world.start_fails.insert("chat");
  });
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_TRUE(world.did("stop_unit small"));
  EXPECT_FALSE(world.did("sleep_service chat"));
  EXPECT_TRUE(world.runs("small"));
}

TEST_F(SwitchTest, APortHeldByAStrangerIsRefusedByName) {
  world.strangers.push_back({8200, "", 4242, "nginx", "www-data"});
  auto machine = make(mode({"embed"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::refused);
  EXPECT_THAT(machine.problem()->message, HasSubstr("pid 4242 (nginx, user www-data)"));
}

TEST_F(SwitchTest, APortChangesHandsInOrder) {
  world.add(make_service("other", 9000, Bytes(0)));
  world.run_unit("gpumod-cpu.service");
  auto machine = make(mode({"other"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("stop_unit cpu", "start_unit other"));
}

TEST(SwitchWithoutGpuTest, AClaimIsRefusedAndCpuServicesRun) {
  World world(Bytes(0));
  world.add(make_service("chat", 7070, Bytes::mib(20000)));
  world.add(make_service("cpu", 9000, Bytes(0)));
  world.run_unit("gpumod-chat.service");
  Switch refused({mode({"chat", "cpu"}), std::nullopt, OnFailure::rollback, world.knowledge});
  world.run(refused);
  EXPECT_EQ(refused.result(), SwitchResult::committed);  // chat runs already: nothing of it has to be started
  Switch stops({mode({"cpu"}), std::nullopt, OnFailure::rollback, world.knowledge});
  world.run(stops);
  EXPECT_EQ(stops.result(), SwitchResult::committed);
  Switch starts({mode({"chat"}), std::nullopt, OnFailure::rollback, world.knowledge});
  world.run(starts);
  EXPECT_EQ(starts.result(), SwitchResult::refused);
  EXPECT_EQ(starts.problem()->code, ErrorCode::environment);
  EXPECT_TRUE(world.runs("cpu"));
}

TEST_F(SwitchTest, WhoIsKnownToBeSlowGetsMoreTime) {
  const auto patience = [&] {
    World other;
    other.knowledge = world.knowledge;
    Switch machine({mode({"embed"}), std::nullopt, OnFailure::rollback, other.knowledge});
    Duration given{};
    auto commands = machine.begin(other.clock);
    Event seen;
    seen.kind = Event::Kind::observed;
    seen.snapshot = other.observe();
    commands = machine.on(seen, other.clock);
    for (const auto kind : {Event::Kind::preflight_ok, Event::Kind::memory_ok, Event::Kind::job_done}) {
      Event event;
      event.kind = kind;
      event.step = 0;
      commands = machine.on(event, other.clock);
    }
    for (const auto& command : commands)
      if (command.kind == Command::Kind::await_ready) given = command.deadline - other.clock;
    return given;
  };
  EXPECT_EQ(patience(), 60s) << "people's startup_timeout";
  auto& ready = world.knowledge.footprints["embed"].measured["Simulated"].phases[Phase::ready];
  ready = {10s, 1s, 5};
  EXPECT_EQ(patience(), 60s) << "it is never less";
  ready = {70s, 5s, 5};
  EXPECT_EQ(patience(), 125s);
}

TEST_F(SwitchTest, WhoIsOnItsWayUpGetsTheTimeThatItIsKnownToNeed) {
  world.add(make_router_service("a", "llama", 7071, Bytes::mib(2000)));
  world.knowledge.footprints["a"].measured["Simulated"].phases[Phase::load] = {70s, 5s, 5};
  world.knowledge.footprints["cpu"].measured[""].phases[Phase::ready] = {100s, 0s, 5};
  const auto patience_with = [&](const ServiceId& id, Residency residency) {
    World other;
    other.knowledge = world.knowledge;
    other.run_unit(other.knowledge.services.at(id).unit_name(), {id});
    Switch machine({mode({id}), std::nullopt, OnFailure::rollback, other.knowledge});
    machine.begin(other.clock);
    Event seen;
    seen.kind = Event::Kind::observed;
    seen.snapshot = other.observe();
    seen.snapshot->services[id].residency = residency;
    const auto commands = machine.on(seen, other.clock);
    EXPECT_EQ(commands.size(), 1u);
    return commands.empty() ? Duration{} : commands.front().deadline - other.clock;
  };
  EXPECT_EQ(patience_with("a", Residency::starting), 125s);
  EXPECT_EQ(patience_with("a", Residency::running), 125s) << "nobody says where it runs";
  EXPECT_EQ(patience_with("cpu", Residency::starting), 150s);
  EXPECT_EQ(patience_with("small", Residency::starting), 60s);
}

}  // namespace
}  // namespace gpumod
