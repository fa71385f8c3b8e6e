// The local supervisor with real shims: every test starts processes, some of them unwilling.
#include "host/local_supervisor_testing.h"

namespace gpumod {
namespace {

TEST_F(LocalSupervisor, RunsAProgramInItsDirectoryWithItsEnvironment) {
  auto spec = shell("echo \"$GPUMOD_SERVICE|$GREETING|$(pwd)|$LEAK|$HOME\"; echo error >&2; exec sleep 1000");
  spec.environment["GREETING"] = Secret("hello 'world'\nand more");
  spec.working_directory = "/usr";
  ::setenv("LEAK", "leaked", 1);
  start_well(spec);
  ::unsetenv("LEAK");
  ASSERT_TRUE(until_logged("error"));
  EXPECT_THAT(log(), ElementsAre("chat|hello 'world'", fmt::format("and more|/usr||{}", ::getenv("HOME")), "error"));

  const auto seen = status();
  EXPECT_TRUE(seen.exists);
  EXPECT_TRUE(seen.transient);
  EXPECT_EQ(seen.active, ActiveState::active);
  EXPECT_EQ(seen.sub_state, "running");
  EXPECT_EQ(seen.tag, "chat");
  EXPECT_EQ(seen.invocation, state().invocation);
  EXPECT_THAT(seen.pids, ElementsAre(seen.main_pid));
  EXPECT_EQ(environment_of(seen.main_pid, "GPUMOD_LOCAL"), fs::canonical(paths().runtime).string());

  const pid_t shim = state().shim.pid;
  EXPECT_EQ(process_info(shim)->command, "gpumod-shim");
  for (const char* file : {"cmdline", "environ"}) {
    const auto text = read_pseudo_file(fmt::format("/proc/{}/{}", shim, file));
    EXPECT_THAT(text.value(), Not(HasSubstr("hello"))) << file;
    EXPECT_THAT(text.value(), Not(HasSubstr("GPUMOD_SERVICE"))) << file;
  }
  for (const auto& entry : fs::recursive_directory_iterator(paths().runtime)) {
    if (entry.is_regular_file() && entry.path().filename() != "log") {
      EXPECT_THAT(read_file(entry.path(), 1 << 20).value(), Not(HasSubstr("hello"))) << entry.path();
    }
  }
}

TEST_F(LocalSupervisor, TellsHowTheProgramEnded) {
  start_well(shell("exit 3"));
  ASSERT_TRUE(until([&] { return status().gone(); }));
  EXPECT_EQ(status().active, ActiveState::failed);
  EXPECT_EQ(status().result, "exit-code");
  EXPECT_EQ(status().exit_code, 3);
  EXPECT_FALSE(status().killed_by_signal);

  start_well(shell("kill -KILL $$"));
  ASSERT_TRUE(until([&] { return status().gone(); }));
  EXPECT_EQ(status().result, "signal");
  EXPECT_EQ(status().exit_code, SIGKILL);
  EXPECT_TRUE(status().killed_by_signal);

  start_well(shell("exit 0"));
  ASSERT_TRUE(until([&] { return status().gone(); }));
  EXPECT_EQ(status().active, ActiveState::inactive);
  EXPECT_EQ(status().result, "success");
}

TEST_F(LocalSupervisor, StopsPolitely) {
  start_well(shell("trap 'echo goodbye; exit 0' TERM; echo up; while :; do sleep 0.01; done"));
  ASSERT_TRUE(until_logged("up"));
  const auto pids = status().pids;
  const auto outcome = stop();
  EXPECT_TRUE(outcome.ok);
  EXPECT_EQ(outcome.result, "done");
  EXPECT_TRUE(status().gone());
  EXPECT_EQ(status().active, ActiveState::inactive);
  EXPECT_EQ(status().result, "success");
  EXPECT_THAT(log(), Contains("goodbye"));
  for (const pid_t pid : pids)
    EXPECT_FALSE(alive(pid));
  EXPECT_TRUE(stop().ok) << "a stopped unit is stopped";
  EXPECT_TRUE(stop("gpumod-never-was.service").ok);
}

TEST_F(LocalSupervisor, KillsWhatIgnoresSigterm) {
  auto spec = shell("trap '' TERM; echo up; while :; do sleep 0.01; done");
  spec.stop_timeout = 200ms;
  start_well(spec);
  ASSERT_TRUE(until_logged("up"));
  const auto before = now();
  EXPECT_TRUE(stop().ok);
  EXPECT_GE(now() - before, 200ms);
  EXPECT_TRUE(status().gone());
  EXPECT_EQ(status().active, ActiveState::failed);
  EXPECT_EQ(status().result, "timeout");
  EXPECT_THAT(log(), Contains(HasSubstr("did not end within")));
}

TEST_F(LocalSupervisor, ADaemonizedGrandchildEndsWithTheUnit) {
  // Its own session, its parent gone: only the shim's subreaping keeps it in the family.
  start_well(shell("(setsid sh -c 'sleep 1000 & echo grandchild $!' &) ; echo up; sleep 1000 & wait"));
  ASSERT_TRUE(until([&] { return log().size() == 2; }));
  pid_t grandchild = 0;
  for (const auto& line : log())
    if (line.starts_with("grandchild ")) grandchild = std::stoi(line.substr(11));
  ASSERT_GT(grandchild, 0);
  ASSERT_TRUE(until([&] { return process_info(grandchild)->parent == state().shim.pid; }));
  EXPECT_THAT(status().pids, Contains(grandchild));
  EXPECT_TRUE(stop().ok);
  EXPECT_FALSE(alive(grandchild));
}

TEST_F(LocalSupervisor, WhatSurvivesTheMainProcessIsEnded) {
  auto spec = shell("setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.01; done' & sleep 0.2; exit 7");
  spec.stop_timeout = 100ms;
  start_well(spec);
  ASSERT_TRUE(until([&] { return !log().empty(); }));
  const pid_t survivor = std::stoi(log().front());
  ASSERT_TRUE(until([&] { return status().gone(); }));
  EXPECT_FALSE(alive(survivor));
  EXPECT_EQ(status().result, "exit-code");
  EXPECT_EQ(status().exit_code, 7);
}

TEST_F(LocalSupervisor, AStoppedProcessIsContinuedSoThatItCanEnd) {
  start_well(shell("echo up; kill -STOP $$; sleep 1000"));
  ASSERT_TRUE(until_logged("up"));
  ASSERT_TRUE(until([&] { return process_info(status().main_pid)->state == 'T'; }));
  EXPECT_TRUE(stop().ok);
  EXPECT_EQ(status().result, "success");
}

TEST_F(LocalSupervisor, TheStopCommandComesFirst) {
  auto spec = shell(
      "trap 'echo asked kindly' USR1; trap 'echo terminated; exit 0' TERM; echo up; while :; do sleep 0.01; done");
  spec.stop_argv = {"/bin/sh", "-c", "kill -USR1 $MAINPID; sleep 0.1; echo stop command in $GPUMOD_SERVICE"};
  start_well(spec);
  ASSERT_TRUE(until_logged("up"));
  EXPECT_TRUE(stop().ok);
  auto lines = log();
  std::erase(lines, "Terminated");  // what a shell may say of its child
  EXPECT_THAT(lines, ElementsAre("up", "asked kindly", "stop command in chat", "terminated"));
}

TEST_F(LocalSupervisor, AStopCommandThatHangsOrIsMissingDoesNotHoldTheStop) {
  auto spec = shell("echo up; exec sleep 1000");
  spec.stop_timeout = 150ms;
  spec.stop_argv = {"/bin/sleep", "1000"};
  start_well(spec);
  ASSERT_TRUE(until_logged("up"));
  EXPECT_TRUE(stop().ok);
  EXPECT_EQ(status().result, "timeout");

  spec.stop_argv = {"/nonexistent/stop"};
  spec.stop_timeout = 20s;
  start_well(spec);
  EXPECT_TRUE(stop().ok);
  EXPECT_EQ(status().result, "success");
  EXPECT_THAT(log(), Contains(HasSubstr("cannot execute /nonexistent/stop: No such file or directory")));
}

TEST_F(LocalSupervisor, AProgramThatCannotRunIsAFailedStart) {
  auto spec = shell("");
  spec.argv = {"/nonexistent/llama-server", "--port", "1"};
  auto outcome = start(spec);
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_FALSE(outcome->job.ok);
  EXPECT_EQ(outcome->job.result, "failed");
  EXPECT_EQ(status().active, ActiveState::failed);
  EXPECT_EQ(status().exit_code, 203);
  EXPECT_THAT(log(outcome->invocation),
              ElementsAre("gpumod: cannot execute /nonexistent/llama-server: No such file or directory"));

  spec.argv = {"/etc/passwd"};
  outcome = start(spec);
  ASSERT_TRUE(outcome);
  EXPECT_FALSE(outcome->job.ok);
  EXPECT_THAT(log(outcome->invocation), ElementsAre("gpumod: cannot execute /etc/passwd: Permission denied"));

  spec.argv = {"/bin/true"};
  spec.working_directory = "/nonexistent";
  outcome = start(spec);
  ASSERT_TRUE(outcome);
  EXPECT_FALSE(outcome->job.ok);
  EXPECT_EQ(status().exit_code, 200);
  EXPECT_THAT(log(outcome->invocation),
              ElementsAre("gpumod: cannot enter the directory /nonexistent: No such file or directory"));
}

TEST_F(LocalSupervisor, RefusesWhatIsNoUnit) {
  auto spec = shell("true");
  const std::vector<std::string> names = {"", "../x.service", "a/b.service", ".service", "chat", {"a\0.service", 10}};
  for (const auto& name : names) {
    spec.name = name;
    EXPECT_FALSE(start(spec)) << name;
  }
  spec = shell("true");
  spec.argv = {"sh"};
  EXPECT_FALSE(start(spec));
  spec.argv = {};
  EXPECT_FALSE(start(spec));
  const auto existing = loop_.run_until_done(manager_->start_existing("glm-code.service"));
  ASSERT_FALSE(existing);
  EXPECT_EQ(existing.error().code, ErrorCode::environment);
  EXPECT_FALSE(existing.error().hint.empty());
}

TEST_F(LocalSupervisor, AKilledShimTakesTheMainProcessAlongAndItsOrphansAreFound) {
  auto spec = shell("(setsid sh -c 'trap \"\" TERM; echo orphan $$; while :; do sleep 0.01; done' &); exec sleep 1000");
  spec.stop_timeout = 100ms;
  start_well(spec);
  ASSERT_TRUE(until([&] { return !log().empty(); }));
  const pid_t orphan = std::stoi(log().front().substr(7));
  const pid_t main = status().main_pid;
  ::kill(state().shim.pid, SIGKILL);
  ASSERT_TRUE(until([&] { return !alive(main); }));
  ASSERT_TRUE(until([&] { return status().active == ActiveState::failed; }));
  EXPECT_EQ(status().result, "shim-lost");
  EXPECT_THAT(status().pids, Contains(orphan));
  EXPECT_FALSE(status().gone());

  const auto all = loop_.run_until_done(manager_->survey({}, SurveyDepth::everything)).value();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_THAT(all[0].pids, Contains(orphan));
  const auto refused = start(shell("sleep 1000"));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr(std::to_string(orphan)));

  EXPECT_TRUE(stop().ok);
  EXPECT_FALSE(alive(orphan));
  EXPECT_TRUE(status().gone());
  start_well(shell("exec sleep 1000"));
  EXPECT_EQ(status().active, ActiveState::active);
}

TEST_F(LocalSupervisor, OrphansAreFoundEvenWithoutAnyState) {
  start_well(shell("(setsid sleep 1000 &); echo up; exec sleep 1000"));
  ASSERT_TRUE(until([&] { return status().pids.size() == 2; }));
  ::kill(state().shim.pid, SIGKILL);
  ASSERT_TRUE(until([&] { return status().pids.size() == 1; }));
  fs::remove_all(paths().runtime / "local" / unit);
  const auto all = loop_.run_until_done(manager_->survey({}, SurveyDepth::everything)).value();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].name, unit);
  EXPECT_EQ(all[0].pids.size(), 1u);
  EXPECT_TRUE(loop_.run_until_done(manager_->kill(unit, SIGKILL)));
  EXPECT_TRUE(until([&] { return status().gone(); }));
}

TEST_F(LocalSupervisor, AServiceOutlivesWhoeverStartedIt) {
  pid_t main = 0;
  {
    ChildProcess starter({"/usr/bin/setsid", helper({})[0], "starter", paths().runtime.string()});
    const auto line = starter.read_line();
    ASSERT_THAT(line, ::testing::StartsWith("started ")) << line;
    main = std::stoi(line.substr(8));
    // What a closed terminal sends to everything in it, and what nothing can refuse.
    ::kill(-starter.pid(), SIGHUP);
    ::kill(-starter.pid(), SIGKILL);
    starter.wait();
  }
  ASSERT_TRUE(until_logged("still here"));
  EXPECT_TRUE(alive(main));
  EXPECT_EQ(status().main_pid, main);
  EXPECT_EQ(status().active, ActiveState::active);
  // Nothing of the starter is held: no descriptor but the standard ones, no working directory.
  std::vector<std::string> descriptors;
  for (const auto& entry : fs::directory_iterator(fmt::format("/proc/{}/fd", main)))
    descriptors.push_back(entry.path().filename());
  EXPECT_THAT(descriptors, UnorderedElementsAre("0", "1", "2"));
  EXPECT_EQ(fs::read_symlink(fmt::format("/proc/{}/fd/0", main)), "/dev/null");
  for (const int descriptor : {0, 1, 2})
    EXPECT_EQ(fs::read_symlink(fmt::format("/proc/{}/fd/{}", state().shim.pid, descriptor)), "/dev/null");
  EXPECT_EQ(fs::read_symlink(fmt::format("/proc/{}/cwd", state().shim.pid)), "/");
  EXPECT_TRUE(stop().ok);
  EXPECT_FALSE(alive(main));
}

TEST_F(LocalSupervisor, TwoSupervisorsSeeTheSame) {
  const auto other = open();
  start_well(shell("exec sleep 1000"));
  const auto theirs = loop_.run_until_done(other->status(unit)).value();
  EXPECT_EQ(theirs.main_pid, status().main_pid);
  EXPECT_FALSE(loop_.run_until_done(other->start(shell("exec sleep 1000")))) << "it runs already";
  EXPECT_TRUE(loop_.run_until_done(other->stop(unit))->ok);
  EXPECT_TRUE(status().gone());
}

Task<void> start_into(UnitManager& manager, UnitSpec spec, std::optional<Result<UnitManager::StartOutcome>>& result) {
  result = co_await manager.start(std::move(spec));
}
Task<int> start_both(std::vector<Task<void>> tasks) {
  co_await run_all(std::move(tasks));
  co_return 0;
}

TEST_F(LocalSupervisor, OfTwoStartsAtOnceOneWins) {
  for (int round = 0; round < 5; ++round) {
    const auto other = open();
    std::optional<Result<UnitManager::StartOutcome>> first;
    std::optional<Result<UnitManager::StartOutcome>> second;
    std::vector<Task<void>> tasks;
    tasks.push_back(start_into(*manager_, shell("exec sleep 1000"), first));
    tasks.push_back(start_into(*other, shell("exec sleep 1000"), second));
    loop_.run_until_done(start_both(std::move(tasks)));
    EXPECT_NE(first->has_value(), second->has_value());
    const auto& loser = first->has_value() ? *second : *first;
    ASSERT_FALSE(loser.has_value());
    // It came while the other was at it, or when the other was done: both are right, and each has its words.
    // Which words it gets depends on how far the other was; that it is told, and that nothing runs twice, does not.
    EXPECT_THAT(loser.error().message, ::testing::HasSubstr("gpumod-chat.service"));
    EXPECT_EQ(status().pids.size(), 1u);
    EXPECT_TRUE(stop().ok);
  }
}

TEST_F(LocalSupervisor, AStateFileIsNotBelievedAgainstTheKernel) {
  start_well(shell("exec sleep 1000"));
  EXPECT_TRUE(stop().ok);
  ChildProcess stranger({"/bin/sleep", "1000"});
  auto faked = state();
  faked.phase = local::Phase::running;
  faked.main_ended = false;
  faked.shim = faked.main = local::ProcessKey{stranger.pid(), process_info(stranger.pid())->start_ticks + 1};
  ASSERT_TRUE(local::write_state(paths().runtime / "local" / unit, faked));

  EXPECT_EQ(status().active, ActiveState::failed);
  EXPECT_EQ(status().main_pid, 0);
  EXPECT_THAT(status().pids, IsEmpty());
  EXPECT_TRUE(loop_.run_until_done(manager_->kill(unit, SIGKILL)));
  EXPECT_TRUE(stop().ok);
  EXPECT_TRUE(alive(stranger.pid())) << "the pid was reused: a stranger must never be signalled";

  // Even with the right start time: another boot's pids mean nothing.
  faked.shim.start_ticks -= 1;
  faked.main.start_ticks -= 1;
  faked.boot = "00000000-0000-0000-0000-000000000000";
  ASSERT_TRUE(local::write_state(paths().runtime / "local" / unit, faked));
  EXPECT_FALSE(status().exists);
  EXPECT_TRUE(stop().ok);
  EXPECT_TRUE(alive(stranger.pid()));

  std::ofstream(paths().runtime / "local" / unit / "state.json") << "{\"half\": ";
  EXPECT_FALSE(status().exists);
  start_well(shell("exec sleep 1000"));
}

TEST_F(LocalSupervisor, SignalsEveryProcess) {
  start_well(
      shell("trap 'echo main got it' USR1; sh -c 'trap \"echo child got it\" USR1; echo ready; while :; do sleep 0.01; "
            "done' & while :; do wait; done"));
  ASSERT_TRUE(until_logged("ready"));
  EXPECT_TRUE(loop_.run_until_done(manager_->kill(unit, SIGUSR1)));
  EXPECT_TRUE(until_logged("main got it"));
  EXPECT_TRUE(until_logged("child got it"));
  EXPECT_EQ(loop_.run_until_done(manager_->kill("gpumod-none.service", SIGUSR1)).error().code, ErrorCode::not_found);
}

TEST_F(LocalSupervisor, WaitsUntilNobodyIsLeft) {
  start_well(shell("trap '' TERM; echo up; while :; do sleep 0.01; done"));
  ASSERT_TRUE(until_logged("up"));
  ChildProcess other({"/bin/sleep", "1000"});
  const auto early = loop_.run_until_done(manager_->wait_gone(unit, {other.pid()}, now() + 50ms)).value();
  EXPECT_THAT(early, Contains(other.pid()));
  EXPECT_THAT(early, Contains(status().main_pid));
  // The shell first: what it starts until then is ended by its shim.
  const pid_t main = status().main_pid;
  loop_.post([&other, main] {
    ::kill(main, SIGKILL);
    ::kill(other.pid(), SIGKILL);
  });
  const auto late = loop_.run_until_done(manager_->wait_gone(unit, {other.pid()}, now() + patience)).value();
  EXPECT_THAT(late, IsEmpty());
  EXPECT_FALSE(local::is_alive(state().shim));
}

TEST_F(LocalSupervisor, ResetForgetsAFailureButNeverARunningUnit) {
  start_well(shell("exit 1"));
  ASSERT_TRUE(until([&] { return !local::is_alive(state().shim); }));
  EXPECT_EQ(loop_.run_until_done(manager_->survey({}, SurveyDepth::everything)).value().size(), 1u)
      << "a failure is shown until it is reset";
  EXPECT_TRUE(loop_.run_until_done(manager_->reset_failed(unit)));
  EXPECT_FALSE(status().exists);
  EXPECT_THAT(loop_.run_until_done(manager_->survey({}, SurveyDepth::everything)).value(), IsEmpty());

  start_well(shell("exec sleep 1000"));
  EXPECT_TRUE(loop_.run_until_done(manager_->reset_failed(unit)));
  EXPECT_EQ(status().active, ActiveState::active);
  EXPECT_TRUE(loop_.run_until_done(manager_->reset_failed("gpumod-never-was.service")));
}

TEST_F(LocalSupervisor, ADirectoryOthersCanWriteToIsRefused) {
  TestFolder shared;
  fs::create_directory(shared.path() / "run");
  fs::permissions(shared.path() / "run", fs::perms::all);
  Paths bad = paths();
  bad.runtime = shared.path() / "run";
  const auto manager = local::open_supervisor(loop_, bad, helper({"shim"}));
  ASSERT_FALSE(manager);
  EXPECT_EQ(manager.error().code, ErrorCode::environment);
  EXPECT_FALSE(manager.error().hint.empty());
}

TEST_F(LocalSupervisor, AShimThatCannotBeStartedIsAnError) {
  const auto manager = local::open_supervisor(loop_, paths(), {"/nonexistent/gpumod", "shim"});
  ASSERT_TRUE(manager);
  const auto outcome = loop_.run_until_done((*manager)->start(shell("true")));
  ASSERT_FALSE(outcome);
  EXPECT_THAT(outcome.error().message, HasSubstr("/nonexistent/gpumod"));
  const auto silent = local::open_supervisor(loop_, paths(), {"/bin/true", "shim"});
  const auto nothing = loop_.run_until_done((*silent)->start(shell("true")));
  ASSERT_FALSE(nothing);
  EXPECT_THAT(nothing.error().message, HasSubstr("the shim ended before"));
}

TEST(LocalState, SurvivesItsTextAndRefusesOthers) {
  local::LaunchSpec spec;
  spec.unit = unit;
  spec.argv = {"/bin/x", "", "a b\n\"c\" \xff"};
  spec.environment = {"A=\xc3\x28", "B="};
  spec.stop_timeout = 1500ms;
  const auto read = local::launch_spec_from(local::to_text(spec));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->argv, spec.argv);
  EXPECT_EQ(read->environment, spec.environment);
  EXPECT_EQ(read->stop_timeout, 1500ms);
  for (const std::string text : {"", "[]", "{}", "null", "{\"unit\": 3}"}) {
    EXPECT_FALSE(local::launch_spec_from(text)) << text;
    EXPECT_FALSE(local::run_state_from(text)) << text;
    EXPECT_FALSE(local::launch_report_from(text)) << text;
  }
}

}  // namespace
}  // namespace gpumod
