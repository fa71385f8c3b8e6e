// The systemd user manager as gpumod drives it, against a real one. Run under tests/e2e/user-systemd.sh.
//
// What a process really got is read from /proc (arguments, environment), not from what it prints. Each test's units
// have names of their own and are gone when it ends, so these tests may also run under a person's real manager.
#include <algorithm>
#include <fstream>
#include <iostream>

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/folder_testing.h"
#include "base/paths.h"
#include "host/processes.h"
#include "host/unit_manager.h"

extern char** environ;

namespace gpumod {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAreArray;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr Duration patience = 20s;

/// Runs a program and returns what it wrote to standard output.
std::string output_of(std::vector<std::string> argv) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {};
  Fd reading(ends[0]);
  Fd writing(ends[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, writing.get(), STDOUT_FILENO);
  std::vector<char*> pointers;
  for (auto& argument : argv)
    pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  pid_t pid = 0;
  const int failed = ::posix_spawnp(&pid, pointers[0], &actions, nullptr, pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  writing.reset();
  if (failed != 0) return "cannot run " + argv[0];
  std::string output;
  char buffer[4096];
  for (ssize_t n; (n = ::read(reading.get(), buffer, sizeof buffer)) > 0;)
    output.append(buffer, static_cast<std::size_t>(n));
  ::waitpid(pid, nullptr, 0);
  return output;
}

std::vector<std::string> split_at_nul(const std::string& block) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at < block.size();) {
    const auto end = block.find('\0', at);
    parts.push_back(block.substr(at, end - at));
    at = end == std::string::npos ? block.size() : end + 1;
  }
  return parts;
}

std::vector<std::string> proc_block(pid_t pid, const char* file) {
  const auto block = read_pseudo_file(fmt::format("/proc/{}/{}", pid, file), 16 << 20);
  return block ? split_at_nul(*block) : std::vector<std::string>{"unreadable: " + block.error().message};
}

/// A zombie has ended: it only waits for its parent to take note.
bool alive(pid_t pid) {
  const auto info = process_info(pid);
  return info && info->alive();
}

std::string texts(const Result<std::vector<LogLine>>& lines) {
  if (!lines) return "error: " + lines.error().message;
  std::string all;
  for (const auto& line : *lines)
    all += line.text + "\n";
  return all;
}

class SystemdTest : public testing::Test {
 protected:
  void SetUp() override {
    auto from_environment = Paths::from_environment();
    ASSERT_TRUE(from_environment);
    paths = *from_environment;
    paths.runtime = scratch / "runtime";
    auto connected = connect_systemd(loop, paths);
    ASSERT_TRUE(connected) << connected.error().message
                           << "\nThese tests need a user manager: run them under tests/e2e/user-systemd.sh";
    manager = std::move(*connected);
  }

  void TearDown() override {
    if (manager) {
      for (const auto& name : used) {
        (void)await(manager->kill(name, SIGKILL));
        (void)await(manager->stop(name));
        (void)await(manager->reset_failed(name));
      }
    }
    if (!fragments.empty()) {
      for (const auto& file : fragments)
        fs::remove(file);
      output_of({"systemctl", "--user", "daemon-reload"});
    }
  }

  template <typename T>
  T await(Task<T> task) {
    return loop.run_until_done(std::move(task));
  }
  /// Runs the loop until the condition holds; false when patience ends first.
  bool loop_until(std::function<bool()> condition) {
    const auto poll = [](std::function<bool()> holds) -> Task<bool> {
      const auto deadline = now() + patience;
      bool held = holds();
      while (!held && now() < deadline) {
        co_await wait_for(2ms);
        held = holds();
      }
      co_return held;
    };
    return await(poll(std::move(condition)));
  }

  /// A name that no other test uses, cleaned up at the end.
  std::string unit_name(const std::string& prefix = "gpumod-e2e") {
    static int number = 0;
    used.push_back(fmt::format("{}-{}-{}.service", prefix, ::getpid(), ++number));
    return used.back();
  }
  UnitSpec spec_of(std::vector<std::string> argv) {
    UnitSpec spec;
    spec.name = unit_name();
    spec.tag = "chat";
    spec.description = "a test of gpumod";
    spec.argv = std::move(argv);
    spec.stop_timeout = 5s;
    return spec;
  }
  static std::vector<std::string> shell(const std::string& script) { return {"/bin/sh", "-c", script}; }

  UnitManager::StartOutcome started(const UnitSpec& spec) {
    auto outcome = await(manager->start(spec));
    EXPECT_TRUE(outcome) << outcome.error().message;
    if (!outcome) return {};
    EXPECT_TRUE(outcome->job.ok) << outcome->job.result;
    return *outcome;
  }
  UnitStatus status_of(const std::string& name) {
    auto status = await(manager->status(name));
    EXPECT_TRUE(status) << status.error().message;
    return status ? *status : UnitStatus{};
  }
  UnitStatus status_once(const std::string& name, std::function<bool(const UnitStatus&)> holds) {
    UnitStatus status;
    const auto poll = [this, &status, &name, &holds]() {
      return [](UnitManager& units, std::string unit, UnitStatus& out,
                std::function<bool(const UnitStatus&)> condition) -> Task<bool> {
        const auto deadline = now() + patience;
        while (now() < deadline) {
          auto seen = co_await units.status(unit);
          if (seen) out = *seen;
          if (condition(out)) co_return true;
          co_await wait_for(5ms);
        }
        co_return false;
      }(*manager, name, status, holds);
    };
    EXPECT_TRUE(await(poll())) << name << " is " << to_string(status.active) << " (" << status.sub_state << ")";
    return status;
  }
  void stopped_and_gone(const std::string& name, std::vector<pid_t> pids) {
    const auto job = await(manager->stop(name));
    ASSERT_TRUE(job) << job.error().message;
    EXPECT_TRUE(job->ok) << job->result;
    const auto left = await(manager->wait_gone(name, pids, now() + patience));
    ASSERT_TRUE(left) << left.error().message;
    EXPECT_THAT(*left, IsEmpty());
    for (const pid_t pid : pids)
      EXPECT_FALSE(alive(pid)) << pid;
  }

  /// A unit file of the user's, below the runtime directory so that nothing outlives the session.
  void write_fragment(const std::string& name, const std::string& text) {
    const auto folder = fs::path(environment_variable("XDG_RUNTIME_DIR")) / "systemd/user";
    fs::create_directories(folder);
    fragments.push_back(folder / name);
    std::ofstream(fragments.back()) << text;
    output_of({"systemctl", "--user", "daemon-reload"});
  }

  Loop loop;
  Paths paths;
  const TestFolder own;
  const fs::path& scratch = own.path();
  std::unique_ptr<UnitManager> manager;
  std::vector<std::string> used;
  std::vector<fs::path> fragments;
};

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
  if (environment_variable("DBUS_SESSION_BUS_ADDRESS").empty()) GTEST_SKIP() << "no session bus here";
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
