// The systemd user manager as gpumod listens to it, against a real one: changes, logs, surveys.
#include "systemd_testing.h"

namespace gpumod {
namespace {

// --- watching
// ---------------------------------------------------------------------------------------------------------

TEST_F(SystemdTest, ChangesAreToldWithTheProcessesOfTheMoment) {
  const auto spec = spec_of({"/bin/sleep", "1000"});
  std::vector<UnitStatus> told;
  auto watching = manager->on_change(spec.name, [&](const UnitStatus& s) { told.push_back(s); });
  started(spec);
  ASSERT_TRUE(loop_until([&] { return !told.empty() && told.back().sub_state == "running"; }));
  EXPECT_EQ(told.back().active, ActiveState::active);
  EXPECT_EQ(told.back().pids, status_of(spec.name).pids);
  EXPECT_EQ(told.back().tag, "chat");
  ASSERT_TRUE(await(manager->kill(spec.name, SIGKILL)));
  ASSERT_TRUE(loop_until([&] { return told.back().active == ActiveState::failed; }));
  EXPECT_EQ(told.back().result, "signal");
  EXPECT_EQ(told.back().exit_code, SIGKILL);
  EXPECT_THAT(told.back().pids, IsEmpty());
  for (std::size_t i = 1; i < told.size(); ++i)
    EXPECT_FALSE(told[i].active == told[i - 1].active && told[i].sub_state == told[i - 1].sub_state &&
                 told[i].result == told[i - 1].result)
        << "told twice: " << told[i].sub_state;

  watching.release();
  const auto count = told.size();
  ASSERT_TRUE(await(manager->reset_failed(spec.name)));
  started(spec);
  status_of(spec.name);
  EXPECT_EQ(told.size(), count);
}

TEST_F(SystemdTest, TheConnectionComesBackWhenTheManagerReexecutesItself) {
  const auto spec = spec_of({"/bin/sleep", "1000"});
  started(spec);
  const auto before = status_of(spec.name);
  std::vector<UnitStatus> told;
  const auto watching = manager->on_change(spec.name, [&](const UnitStatus& s) { told.push_back(s); });
  output_of({"systemctl", "--user", "daemon-reexec"});
  // The manager is away for a moment; until it is back, calls fail and say so, none hangs.
  status_once(spec.name, [&](const auto& s) { return s.main_pid == before.main_pid && !s.pids.empty(); });
  ASSERT_TRUE(loop_until([&] { return !told.empty(); }));  // taken up again
  ASSERT_TRUE(await(manager->kill(spec.name, SIGKILL)));
  EXPECT_TRUE(loop_until([&] { return told.back().active == ActiveState::failed; }));
}

TEST_F(SystemdTest, WithoutThePrivateSocketTheSessionBusServes) {
  ASSERT_FALSE(environment_variable("DBUS_SESSION_BUS_ADDRESS").empty())
      << "no session bus: run these tests under tests/e2e/user-systemd.sh";
  const auto runtime = environment_variable("XDG_RUNTIME_DIR");
  ::setenv("XDG_RUNTIME_DIR", scratch.c_str(), 1);
  auto connected = connect_systemd(loop, paths);
  ::setenv("XDG_RUNTIME_DIR", runtime.c_str(), 1);
  ASSERT_TRUE(connected) << connected.error().message;
  manager = std::move(*connected);
  const auto spec = spec_of({"/bin/sleep", "1000"});
  std::vector<UnitStatus> told;
  const auto watching = manager->on_change(spec.name, [&](const UnitStatus& s) { told.push_back(s); });
  started(spec);
  const auto status = status_of(spec.name);
  EXPECT_EQ(status.sub_state, "running");
  stopped_and_gone(spec.name, status.pids);
  EXPECT_TRUE(loop_until([&] { return !told.empty() && told.back().active == ActiveState::inactive; }));
}

// --- logs
// -------------------------------------------------------------------------------------------------------------

TEST_F(SystemdTest, TheLogIsOfOneRunAndNeverOfAnOlder) {
  auto spec = spec_of(shell("echo first run says out of memory; exit 1"));
  const auto first = await(manager->start(spec));
  ASSERT_TRUE(first);
  status_once(spec.name, [](const auto& s) { return s.active == ActiveState::failed; });
  EXPECT_THAT(texts(await(manager->log_tail(spec.name, first->invocation, 100))), HasSubstr("out of memory"));

  spec.argv = shell("echo second run is well; exec sleep 1000");
  const auto second = started(spec);
  std::string log;
  const auto arrived = [&] {
    log = texts(await(manager->log_tail(spec.name, second.invocation, 100)));
    return log.find("second run is well") != std::string::npos;
  };
  const auto deadline = now() + patience;
  while (!arrived() && now() < deadline)
    ::usleep(10'000);
  EXPECT_THAT(log, AllOf(HasSubstr("second run is well"), Not(HasSubstr("out of memory"))));
  EXPECT_THAT(texts(await(manager->log_tail(spec.name, "", 100))),
              AllOf(HasSubstr("second run is well"), Not(HasSubstr("out of memory"))));
  // Of an older run, lines that journald could not attribute (journal.h) are left out rather than guessed.
  EXPECT_THAT(texts(await(manager->log_tail(spec.name, first->invocation, 100))),
              AllOf(HasSubstr("Failed with result 'exit-code'"), Not(HasSubstr("second run"))));
}

TEST_F(SystemdTest, TheLastWordsOfAServerThatCrashesAtOnceAreThere) {
  auto spec = spec_of({"/bin/sh", "-c", "echo \"last words $0\"; exit 1"});
  spec.argv.push_back("");
  for (int i = 0; i < 40; ++i) {
    spec.argv.back() = std::to_string(i);
    const auto outcome = await(manager->start(spec));
    ASSERT_TRUE(outcome);
    status_once(spec.name, [](const auto& s) { return s.active == ActiveState::failed; });
    const auto log = texts(await(manager->log_tail(spec.name, outcome->invocation, 100)));
    ASSERT_THAT(log, HasSubstr(fmt::format("last words {}\n", i)));
    ASSERT_THAT(log, Not(HasSubstr(fmt::format("last words {}\n", i - 1))));
  }
}

TEST_F(SystemdTest, TheTailHasTheLastLinesOldestFirst) {
  const auto spec = spec_of(shell("for i in $(seq 500); do echo line $i; done; exit 1"));
  const auto outcome = await(manager->start(spec));
  ASSERT_TRUE(outcome);
  status_once(spec.name, [](const auto& s) { return s.active == ActiveState::failed; });
  const auto all = await(manager->log_tail(spec.name, outcome->invocation, 10'000));
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_EQ(std::count_if(all->begin(), all->end(), [](const auto& l) { return l.text.starts_with("line "); }), 500);
  EXPECT_TRUE(std::is_sorted(all->begin(), all->end(), [](const auto& a, const auto& b) { return a.time < b.time; }));
  const auto tail = await(manager->log_tail(spec.name, outcome->invocation, 20));
  ASSERT_TRUE(tail);
  ASSERT_EQ(tail->size(), 20u);
  EXPECT_EQ(tail->back().text, all->back().text);
  EXPECT_THAT(texts(tail), AllOf(HasSubstr("line 490\n"), Not(HasSubstr("line 100\n"))));
}

TEST_F(SystemdTest, AnEmptyLogIsAnErrorThatSaysSo) {
  const auto log = await(manager->log_tail(unit_name(), "", 10));
  ASSERT_FALSE(log);
  EXPECT_THAT(log.error().code, testing::AnyOf(ErrorCode::not_found, ErrorCode::environment));
  EXPECT_NE(log.error().hint, "");
}

TEST_F(SystemdTest, TheLogIsFollowedFromNowOnUntilTheRegistrationGoes) {
  auto spec = spec_of(shell("echo old news; exit 1"));
  const auto old = await(manager->start(spec));
  ASSERT_TRUE(old);
  status_once(spec.name, [](const auto& s) { return s.active == ActiveState::failed; });
  ASSERT_THAT(texts(await(manager->log_tail(spec.name, old->invocation, 10))), HasSubstr("old news"));

  std::vector<std::string> heard;
  auto following = manager->follow_log(spec.name, [&](const LogLine& line) { heard.push_back(line.text); });
  ASSERT_TRUE(following) << following.error().message;
  const auto pipe = scratch / "say";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  spec.argv = shell("echo first words; exec <> \"$0\"; while read -r word; do echo \"$word\"; done");
  spec.argv.push_back(pipe);
  started(spec);
  const auto has = [&](const std::string& text) { return std::find(heard.begin(), heard.end(), text) != heard.end(); };
  ASSERT_TRUE(loop_until([&] { return has("first words"); })) << testing::PrintToString(heard);
  std::ofstream(pipe) << "and more\n";
  ASSERT_TRUE(loop_until([&] { return has("and more"); }));
  EXPECT_FALSE(has("old news"));
  EXPECT_EQ(std::count(heard.begin(), heard.end(), "and more"), 1);

  following->release();
  const auto count = heard.size();
  std::ofstream(pipe) << "unheard\n";
  const auto deadline = now() + patience;
  std::string log;
  while (log.find("unheard") == std::string::npos && now() < deadline)
    log = texts(await(manager->log_tail(spec.name, "", 10)));
  EXPECT_THAT(log, HasSubstr("unheard"));
  EXPECT_EQ(heard.size(), count);
}

TEST_F(SystemdTest, FollowersMayOutliveTheManagerAndTheLoop) {
  auto other = std::make_unique<Loop>();
  auto connected = connect_systemd(*other, paths);
  ASSERT_TRUE(connected);
  auto following = (*connected)->follow_log(unit_name(), [](const LogLine&) {});
  ASSERT_TRUE(following);
  auto watching = (*connected)->on_change(unit_name(), [](const UnitStatus&) {});
  const auto soon = []() -> Task<int> {
    co_await wait_for(30ms);
    co_return 0;
  };
  other->run_until_done(soon());
  connected->reset();
  other->run_until_done(soon());
  watching.release();
  other.reset();
  following->release();
}

// --- survey
// -----------------------------------------------------------------------------------------------------------

const UnitStatus* find(const std::vector<UnitStatus>& statuses, const std::string& name) {
  for (const auto& status : statuses)
    if (status.name == name) return &status;
  return nullptr;
}

TEST_F(SystemdTest, ASurveyTellsOfWhatIsNamedAndOfWhatIsOurs) {
  const auto ours = spec_of({"/bin/sleep", "1000"});
  started(ours);
  auto crashed = spec_of(shell("exit 5"));
  ASSERT_TRUE(await(manager->start(crashed)));
  status_once(crashed.name, [](const auto& s) { return s.active == ActiveState::failed; });
  const auto adopted = unit_name("e2e-adopted");
  write_fragment(adopted, "[Service]\nExecStart=/bin/sleep 1000\n");
  const auto tagged = unit_name("e2e-tagged");
  write_fragment(tagged, "[Service]\nEnvironment=A=B \"GPUMOD_SERVICE=two words\" C=D\nExecStart=/bin/sleep 1000\n");
  const auto foreign = unit_name("e2e-foreign");
  write_fragment(foreign, "[Service]\nEnvironment=NOT_GPUMOD_SERVICE=x\nExecStart=/bin/sleep 1000\n");
  write_fragment("gpumod.service", "[Service]\nEnvironment=GPUMOD_SERVICE=daemon\nExecStart=/bin/sleep 1000\n");
  for (const char* name : {tagged.c_str(), foreign.c_str(), "gpumod.service"})
    output_of({"systemctl", "--user", "start", name});
  const auto missing = unit_name("e2e-missing");

  const auto surveyed = await(manager->survey({missing, adopted, "gpumod.service"}, SurveyDepth::everything));
  output_of({"systemctl", "--user", "stop", "gpumod.service"});
  ASSERT_TRUE(surveyed) << surveyed.error().message;
  const auto& all = *surveyed;
  ASSERT_GE(all.size(), 2u);
  EXPECT_EQ(all[0].name, missing);
  EXPECT_FALSE(all[0].exists);
  EXPECT_EQ(all[1].name, adopted);
  EXPECT_TRUE(all[1].exists);
  EXPECT_EQ(all[1].active, ActiveState::inactive);
  EXPECT_EQ(all[1].fragment, fragments[0]);
  const auto* running = find(all, ours.name);
  ASSERT_TRUE(running);
  EXPECT_EQ(running->tag, "chat");
  EXPECT_EQ(running->pids.size(), 1u);
  const auto* failed = find(all, crashed.name);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->exit_code, 5);
  const auto* discovered = find(all, tagged);
  ASSERT_TRUE(discovered);
  EXPECT_EQ(discovered->tag, "two words");
  EXPECT_EQ(discovered->sub_state, "running");
  EXPECT_EQ(discovered->pids.size(), 1u);
  EXPECT_FALSE(find(all, foreign));
  EXPECT_FALSE(find(all, "gpumod.service"));
  // Nothing was touched by being looked at.
  EXPECT_EQ(output_of({"systemctl", "--user", "is-active", foreign}), "active\n");
}

TEST_F(SystemdTest, AnAliasIsOneUnitUnderTheNameThatPeopleUse) {
  const auto real = unit_name("e2e-real");
  const auto alias = unit_name("e2e-alias");
  write_fragment(real, "[Service]\nEnvironment=GPUMOD_SERVICE=x\nExecStart=/bin/sleep 1000\n");
  fragments.push_back(fragments.back().parent_path() / alias);
  fs::create_symlink(real, fragments.back());
  output_of({"systemctl", "--user", "daemon-reload"});
  ASSERT_TRUE(await(manager->start_existing(alias)));
  const auto surveyed = await(manager->survey({alias}, SurveyDepth::everything));
  ASSERT_TRUE(surveyed);
  ASSERT_TRUE(find(*surveyed, alias));
  EXPECT_EQ(find(*surveyed, alias)->sub_state, "running");
  EXPECT_FALSE(find(*surveyed, real));
}

TEST_F(SystemdTest, MeasuredOnce) {
  std::vector<std::string> names;
  std::vector<double> starts;
  for (int i = 0; i < 20; ++i) {
    const auto spec = spec_of({"/bin/sleep", "1000"});
    const auto begin = now();
    started(spec);
    starts.push_back(seconds(now() - begin) * 1000);
    names.push_back(spec.name);
  }
  std::vector<double> surveys;
  for (int i = 0; i < 20; ++i) {
    const auto begin = now();
    const auto surveyed = await(manager->survey(names, SurveyDepth::everything));
    surveys.push_back(seconds(now() - begin) * 1000);
    ASSERT_TRUE(surveyed);
    ASSERT_GE(surveyed->size(), 20u);
    for (const auto& status : *surveyed) {
      if (!std::count(names.begin(), names.end(), status.name)) continue;
      ASSERT_EQ(status.sub_state, "running");
      ASSERT_EQ(status.pids.size(), 1u);
    }
  }
  std::vector<std::string> command{"systemctl", "--user", "is-active"};
  command.insert(command.end(), names.begin(), names.end());
  std::vector<double> systemctl;
  for (int i = 0; i < 5; ++i) {
    const auto begin = now();
    output_of(command);
    systemctl.push_back(seconds(now() - begin) * 1000);
  }
  const auto median = [](std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  };
  std::cout << fmt::format(
      "start to done {:.1f} ms, survey of 20 units {:.1f} ms (first {:.1f}), systemctl is-active {:.1f} ms\n",
      median(starts), median(surveys), surveys.front(), median(systemctl));
}

}  // namespace
}  // namespace gpumod
