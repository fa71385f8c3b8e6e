// The systemd user manager as gpumod drives it, against a real one: units start, run and end. Run under
// tests/e2e/user-systemd.sh.
//
// What a process really got is read from /proc (arguments, environment), not from what it prints. Each test's units
// have names of their own and are gone when it ends, so these tests may also run under a person's real manager.
#include "systemd_testing.h"

namespace gpumod {
namespace {

// --- transient units
// --------------------------------------------------------------------------------------------------

TEST_F(SystemdTest, ATransientUnitStartsIsSeenAndStops) {
  auto spec = spec_of({"/bin/sleep", "1000"});
  spec.environment = {{"TOKEN", Secret("hush")}};
  spec.working_directory = scratch;
  const auto outcome = started(spec);
  EXPECT_FALSE(outcome.used_fragment);
  EXPECT_EQ(outcome.invocation.size(), 32u);

  const auto status = status_of(spec.name);
  EXPECT_TRUE(status.exists);
  EXPECT_TRUE(status.transient);
  EXPECT_EQ(status.fragment, "");
  EXPECT_EQ(status.active, ActiveState::active);
  EXPECT_EQ(status.sub_state, "running");
  EXPECT_EQ(status.result, "success");
  EXPECT_EQ(status.invocation, outcome.invocation);
  EXPECT_EQ(status.tag, "chat");
  EXPECT_EQ(status.restarts, 0u);
  EXPECT_THAT(status.control_group, testing::EndsWith("/" + spec.name));
  ASSERT_GT(status.main_pid, 0);
  EXPECT_THAT(status.pids, ElementsAreArray({status.main_pid}));
  EXPECT_EQ(fs::read_symlink(fmt::format("/proc/{}/cwd", status.main_pid)), scratch);
  EXPECT_EQ(output_of({"systemctl", "--user", "show", "-P", "Description", spec.name}), "a test of gpumod\n");

  stopped_and_gone(spec.name, status.pids);
  const auto after = status_of(spec.name);
  EXPECT_TRUE(after.gone());
  EXPECT_FALSE(after.exists);
  EXPECT_THAT(fs::directory_iterator(paths.runtime / "env"), testing::Eq(fs::directory_iterator()));
}

TEST_F(SystemdTest, ArgumentsArriveByteForByte) {
  auto spec = spec_of(shell("while :; do sleep 1000; done"));
  const std::vector<std::string> nasty{"argument zero",
                                       "",
                                       " ",
                                       "two words ",
                                       "%n",
                                       "%%",
                                       "%h/x",
                                       "$HOME",
                                       "${HOME}",
                                       "$$",
                                       "$",
                                       "\"quoted\"",
                                       "it's",
                                       "back\\slash",
                                       "\\n",
                                       "line\nbreak",
                                       "tab\there",
                                       ";",
                                       "; exit 1",
                                       "#no comment",
                                       "-dash",
                                       "@at",
                                       "!bang",
                                       "*",
                                       "~",
                                       "ünïcödé 模型",
                                       "{\"json\": [1, \"$x\"]}",
                                       "\x01\x7f",
                                       std::string(20000, 'x')};
  spec.argv.insert(spec.argv.end(), nasty.begin(), nasty.end());
  started(spec);
  const auto status = status_of(spec.name);
  EXPECT_THAT(proc_block(status.main_pid, "cmdline"), ElementsAreArray(spec.argv));
  // A daemon-reload reads the unit again from the file that systemd wrote for it.
  output_of({"systemctl", "--user", "daemon-reload"});
  EXPECT_EQ(status_of(spec.name).main_pid, status.main_pid);
  stopped_and_gone(spec.name, status.pids);
}

TEST_F(SystemdTest, ArgumentsThatCannotArriveAreRefused) {
  auto spec = spec_of({"/bin/sleep", "1000\xff"});
  auto outcome = await(manager->start(spec));
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, ErrorCode::configuration);
  EXPECT_THAT(outcome.error().message, HasSubstr("argument 1"));
  spec.argv = {"sleep", "1000"};
  outcome = await(manager->start(spec));
  ASSERT_FALSE(outcome);
  EXPECT_THAT(outcome.error().message, HasSubstr("not an absolute path"));
}

TEST_F(SystemdTest, EnvironmentArrivesByteForByteAndIsNoProperty) {
  // The runtime directory may have any name; systemd expands globs in the paths of environment files.
  paths.runtime = scratch / "run [a-z]* ?%n\\ $HOME 模";
  auto connected = connect_systemd(loop, paths);
  ASSERT_TRUE(connected);
  manager = std::move(*connected);

  std::string every_byte;
  for (int c = 1; c < 128; ++c)
    every_byte += static_cast<char>(c);
  const std::map<std::string, std::string> nasty{{"EMPTY", ""},
                                                 {"BLANKS", "  leading and trailing  "},
                                                 {"TABS", "\t\t"},
                                                 {"NEWLINES", "\none\n\ntwo\n"},
                                                 {"CR", "a\r\nb\r"},
                                                 {"DOUBLE", "\"x\" \"\""},
                                                 {"SINGLE", "'x' ''"},
                                                 {"BACKSLASH", "\\ \\\\ \\n \\\" end\\"},
                                                 {"BEFORE_NEWLINE", "x\\\ny"},
                                                 {"DOLLAR", "$HOME ${HOME} $$ $(id) `id` %n %%"},
                                                 {"COMMENT", "# no ; comment"},
                                                 {"EQUALS", "A=B=C"},
                                                 {"UNICODE", "ünïcödé 模型 🦙"},
                                                 {"EVERY_BYTE", every_byte},
                                                 {"LONG", std::string(128 * 1024 - 1 - 5, 'l')},
                                                 {"HF_TOKEN", "hf_very_secret"}};
  auto spec = spec_of({"/bin/sleep", "1000"});
  for (const auto& [name, value] : nasty)
    spec.environment.emplace(name, Secret(value));
  started(spec);
  const auto status = status_of(spec.name);
  const auto got = proc_block(status.main_pid, "environ");
  for (const auto& [name, value] : nasty)
    EXPECT_THAT(got, Contains(name + "=" + value)) << name;
  EXPECT_THAT(got, Contains("GPUMOD_SERVICE=chat"));

  const auto file = paths.runtime / "env" / (spec.name + ".env");
  struct stat info {};
  ASSERT_EQ(::stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_THAT(output_of({"systemctl", "--user", "show", spec.name}),
              AllOf(HasSubstr(spec.name), Not(HasSubstr("hf_very_secret"))));
  EXPECT_THAT(output_of({"systemctl", "--user", "cat", spec.name}),
              AllOf(HasSubstr("ExecStart"), Not(HasSubstr("hf_very_secret"))));
  stopped_and_gone(spec.name, status.pids);
  EXPECT_FALSE(fs::exists(file));
}

TEST_F(SystemdTest, EnvironmentThatCannotArriveIsRefusedBeforeTheStart) {
  auto spec = spec_of({"/bin/sleep", "1000"});
  spec.environment = {{"TOKEN", Secret("caf\xe9")}};
  const auto outcome = await(manager->start(spec));
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, ErrorCode::configuration);
  EXPECT_THAT(outcome.error().message, AllOf(HasSubstr("TOKEN"), Not(HasSubstr("caf"))));
  EXPECT_FALSE(status_of(spec.name).exists);
}

TEST_F(SystemdTest, TheStopCommandRunsFirstWithTheSameEnvironment) {
  auto spec = spec_of({"/bin/sleep", "1000"});
  spec.environment = {{"OUT", Secret((scratch / "stopped by").string())}};
  spec.stop_argv = shell("printf '%s' \"$1 $MAINPID\" > \"$OUT\"");
  spec.stop_argv.insert(spec.stop_argv.end(), {"sh", "%n $HOME"});
  started(spec);
  const auto pids = status_of(spec.name).pids;
  stopped_and_gone(spec.name, pids);
  EXPECT_EQ(read_file(scratch / "stopped by", 1000).value_or("nothing"), fmt::format("%n $HOME {}", pids.at(0)));
}

// --- failures
// ---------------------------------------------------------------------------------------------------------

TEST_F(SystemdTest, AMissingProgramFailsTheJobAndTheLogSaysWhy) {
  auto spec = spec_of({(scratch / "no-such-server").string(), "--port", "1"});
  spec.environment = {{"TOKEN", Secret("hush")}};
  const auto outcome = await(manager->start(spec));
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_FALSE(outcome->job.ok);
  EXPECT_EQ(outcome->job.result, "failed");
  EXPECT_EQ(outcome->invocation.size(), 32u);
  const auto status = status_of(spec.name);
  EXPECT_EQ(status.active, ActiveState::failed);
  EXPECT_EQ(status.result, "exit-code");
  EXPECT_EQ(status.exit_code, 203);
  EXPECT_FALSE(status.killed_by_signal);
  EXPECT_THAT(texts(await(manager->log_tail(spec.name, outcome->invocation, 50))),
              HasSubstr("no-such-server: No such file or directory"));
  EXPECT_THAT(fs::directory_iterator(paths.runtime / "env"), testing::Eq(fs::directory_iterator()));
}

TEST_F(SystemdTest, AnExitCodeIsReportedAndTheNextStartBeginsAfresh) {
  auto spec = spec_of(shell("echo bad flag; exit 7"));
  const auto first = await(manager->start(spec));
  ASSERT_TRUE(first);
  const auto failed = status_once(spec.name, [](const auto& s) { return s.active == ActiveState::failed; });
  EXPECT_EQ(failed.result, "exit-code");
  EXPECT_EQ(failed.exit_code, 7);
  EXPECT_FALSE(failed.killed_by_signal);
  EXPECT_EQ(failed.invocation, first->invocation);
  EXPECT_THAT(failed.pids, IsEmpty());
  EXPECT_TRUE(failed.gone());

  spec.argv = {"/bin/sleep", "1000"};
  const auto second = started(spec);
  EXPECT_NE(second.invocation, first->invocation);
  const auto again = status_of(spec.name);
  EXPECT_EQ(again.active, ActiveState::active);
  EXPECT_EQ(again.result, "success");
}

TEST_F(SystemdTest, AnEndBySignalIsReported) {
  const auto spec = spec_of({"/bin/sleep", "1000"});
  started(spec);
  ASSERT_TRUE(await(manager->kill(spec.name, SIGSEGV)));
  const auto status = status_once(spec.name, [](const auto& s) { return s.active == ActiveState::failed; });
  EXPECT_THAT(status.result, testing::AnyOf("signal", "core-dump"));
  EXPECT_TRUE(status.killed_by_signal);
  EXPECT_EQ(status.exit_code, SIGSEGV);
  ASSERT_TRUE(await(manager->reset_failed(spec.name)));
  EXPECT_FALSE(status_of(spec.name).exists);
}

TEST_F(SystemdTest, ARunningUnitIsNotStartedASecondTime) {
  const auto spec = spec_of({"/bin/sleep", "1000"});
  const auto first = started(spec);
  const auto second = await(manager->start(spec));
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("already active (running)"));
  EXPECT_EQ(status_of(spec.name).invocation, first.invocation);
}

TEST_F(SystemdTest, FiftyCrashesInARowAreFiftyStartsOfOneName) {
  auto spec = spec_of({"/bin/false"});
  for (int i = 0; i < 50; ++i) {
    const auto outcome = await(manager->start(spec));
    ASSERT_TRUE(outcome) << i << ": " << outcome.error().message;
    status_once(spec.name, [](const auto& s) { return s.active == ActiveState::failed; });
  }
}

TEST_F(SystemdTest, WhatIsNotThere) {
  const auto name = unit_name();
  const auto stopped = await(manager->stop(name));
  ASSERT_TRUE(stopped) << stopped.error().message;
  EXPECT_TRUE(stopped->ok);
  EXPECT_TRUE(await(manager->reset_failed(name)));
  EXPECT_EQ(await(manager->kill(name, SIGTERM)).error().code, ErrorCode::not_found);
  EXPECT_EQ(await(manager->start_existing(name)).error().code, ErrorCode::not_found);
  const auto gone = await(manager->wait_gone(name, {}, now() + patience));
  ASSERT_TRUE(gone);
  EXPECT_THAT(*gone, IsEmpty());
  EXPECT_FALSE(status_of(name).exists);
}

TEST_F(SystemdTest, NamesThatAreNoServiceOrTheDaemonItselfAreRefused) {
  for (const char* name : {"../x.service", "a/b.service", "x.socket", "x", ".service", "a b.service", "%n.service"}) {
    EXPECT_EQ(await(manager->stop(name)).error().code, ErrorCode::usage) << name;
    EXPECT_EQ(await(manager->status(name)).error().code, ErrorCode::usage) << name;
  }
  for (const char* name : {"gpumod.service", "gpumod.socket"}) {
    EXPECT_EQ(await(manager->stop(name)).error().code, ErrorCode::refused) << name;
    EXPECT_EQ(await(manager->kill(name, SIGTERM)).error().code, ErrorCode::refused) << name;
    EXPECT_EQ(await(manager->start_existing(name)).error().code, ErrorCode::refused) << name;
  }
}

// --- the end of processes
// ---------------------------------------------------------------------------------------------

TEST_F(SystemdTest, AProcessThatIgnoresSigtermIsKilledAfterItsStopTimeout) {
  auto spec = spec_of(shell("trap '' TERM; echo ready; while :; do sleep 1000; done"));
  spec.stop_timeout = 300ms;
  started(spec);
  ASSERT_TRUE(loop_until([&] { return proc_block(status_of(spec.name).main_pid, "cmdline").size() > 1; }));
  const auto pids = status_once(spec.name, [](const auto& s) { return s.pids.size() == 2; }).pids;
  const auto begin = now();
  stopped_and_gone(spec.name, pids);
  EXPECT_GE(now() - begin, 300ms);
  EXPECT_EQ(status_of(spec.name).result, "timeout");
}

TEST_F(SystemdTest, DaemonizedDescendantsStayInTheUnitAndDieWithIt) {
  const auto spec = spec_of(shell("(setsid sh -c 'setsid sleep 1000 & setsid sleep 1000 &' &); exec sleep 1000"));
  started(spec);
  const auto sleeping = [](pid_t pid) {
    const auto info = process_info(pid);
    return info && info->command == "sleep";
  };
  const auto status = status_once(spec.name, [&](const auto& s) {
    return s.pids.size() == 3 && std::all_of(s.pids.begin(), s.pids.end(), sleeping);
  });
  const auto kept = status.pids;
  const auto still = await(manager->wait_gone(spec.name, kept, now() + 50ms));
  ASSERT_TRUE(still);
  EXPECT_THAT(*still, testing::UnorderedElementsAreArray(kept));
  stopped_and_gone(spec.name, kept);
}

TEST_F(SystemdTest, GoneIsProvenForAUnitThatIsForgottenAndForADeadMainProcessWithSurvivors) {
  // KillMode=process leaves what the service forked; the unit then is inactive, and its cgroup is not empty.
  const auto name = unit_name("e2e-survivor");
  write_fragment(name, "[Service]\nKillMode=process\nExecStart=/bin/sh -c 'sleep 1000 & exec sleep 1000'\n");
  ASSERT_TRUE(await(manager->start_existing(name)));
  const auto status = status_once(name, [](const auto& s) { return s.pids.size() == 2; });
  ASSERT_TRUE(await(manager->stop(name)));
  const auto after = status_of(name);
  EXPECT_EQ(after.active, ActiveState::inactive);
  EXPECT_EQ(after.pids.size(), 1u);
  EXPECT_FALSE(after.gone());
  const auto left = await(manager->wait_gone(name, {status.main_pid}, now() + 50ms));
  ASSERT_TRUE(left);
  EXPECT_EQ(*left, after.pids);
  ASSERT_TRUE(await(manager->kill(name, SIGKILL)));
  const auto gone = await(manager->wait_gone(name, status.pids, now() + patience));
  ASSERT_TRUE(gone);
  EXPECT_THAT(*gone, IsEmpty());
}

TEST_F(SystemdTest, WaitingForTheEndReturnsWhenItComes) {
  const auto spec = spec_of({"/bin/sleep", "0.3"});
  started(spec);
  const auto pids = status_of(spec.name).pids;
  ASSERT_EQ(pids.size(), 1u);
  const auto gone = await(manager->wait_gone(spec.name, pids, now() + patience));
  ASSERT_TRUE(gone);
  EXPECT_THAT(*gone, IsEmpty());
  EXPECT_FALSE(alive(pids[0]));
}

// --- people's own units
// -----------------------------------------------------------------------------------------------

TEST_F(SystemdTest, AFragmentOfThatNameIsStartedInstead) {
  auto spec = spec_of({"/bin/sleep", "1000"});
  write_fragment(spec.name, "[Service]\nType=exec\nExecStart=/bin/sleep 2000\n");
  const auto outcome = started(spec);
  EXPECT_TRUE(outcome.used_fragment);
  const auto status = status_of(spec.name);
  EXPECT_EQ(status.fragment, fragments.back());
  EXPECT_FALSE(status.transient);
  EXPECT_EQ(proc_block(status.main_pid, "cmdline").at(1), "2000");
}

TEST_F(SystemdTest, AMaskedOrBrokenUnitIsAConfigurationError) {
  const auto masked = unit_name();
  const auto folder = fs::path(environment_variable("XDG_RUNTIME_DIR")) / "systemd/user";
  write_fragment(masked, "");  // an empty file masks
  const auto outcome = await(manager->start_existing(masked));
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, ErrorCode::configuration);
  EXPECT_THAT(outcome.error().hint, HasSubstr("unmask"));
  const auto broken = unit_name();
  write_fragment(broken, "[Service]\nType=simple\n");
  EXPECT_EQ(await(manager->start_existing(broken)).error().code, ErrorCode::configuration);
}

TEST_F(SystemdTest, ARestartLoopOfAnAdoptedUnitIsSeenAndStoppable) {
  const auto name = unit_name("e2e-adopted");
  write_fragment(name,
                 "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/sh -c 'exit 3'\nRestart=on-failure\n"
                 "RestartSec=300ms\n");
  unsigned restarts_seen = 0;
  const auto watching =
      manager->on_change(name, [&](const UnitStatus& s) { restarts_seen = std::max(restarts_seen, s.restarts); });
  ASSERT_TRUE(await(manager->start_existing(name)));
  const auto status =
      status_once(name, [](const auto& s) { return s.restarts >= 2 && s.restarting() && s.result != "success"; });
  EXPECT_EQ(status.active, ActiveState::activating);
  EXPECT_EQ(status.sub_state, "auto-restart");
  EXPECT_EQ(status.result, "exit-code");
  EXPECT_EQ(status.exit_code, 3);
  EXPECT_TRUE(loop_until([&] { return restarts_seen >= 2; }));
  stopped_and_gone(name, {});
  const auto after = status_of(name);
  EXPECT_FALSE(after.restarting());
  EXPECT_THAT(after.active, testing::AnyOf(ActiveState::inactive, ActiveState::failed));
}

TEST_F(SystemdTest, AnAdoptedUnitThatHadFailedStartsAgain) {
  const auto name = unit_name("e2e-adopted");
  const auto flag = (scratch / "fixed").string();
  write_fragment(name, fmt::format("[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=1\n[Service]\n"
                                   "ExecStart=/bin/sh -c 'test -e {} && exec sleep 1000'\n",
                                   flag));
  ASSERT_TRUE(await(manager->start_existing(name)));
  status_once(name, [](const auto& s) { return s.active == ActiveState::failed; });
  std::ofstream(flag).close();
  // systemd itself would now refuse: start-limit-hit. Resetting the failure also forgives that.
  const auto again = await(manager->start_existing(name));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE(again->job.ok) << again->job.result;
  status_once(name, [](const auto& s) { return s.active == ActiveState::active && s.sub_state == "running"; });
}

}  // namespace
}  // namespace gpumod
