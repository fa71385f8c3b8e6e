// For the tests of the systemd user manager: a private manager's units, and what a process really got, read from /proc.
#pragma once

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
inline std::string output_of(std::vector<std::string> argv) {
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

inline std::vector<std::string> split_at_nul(const std::string& block) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at < block.size();) {
    const auto end = block.find('\0', at);
    parts.push_back(block.substr(at, end - at));
    at = end == std::string::npos ? block.size() : end + 1;
  }
  return parts;
}

inline std::vector<std::string> proc_block(pid_t pid, const char* file) {
  const auto block = read_pseudo_file(fmt::format("/proc/{}/{}", pid, file), 16 << 20);
  return block ? split_at_nul(*block) : std::vector<std::string>{"unreadable: " + block.error().message};
}

/// A zombie has ended: it only waits for its parent to take note.
inline bool alive(pid_t pid) {
  const auto info = process_info(pid);
  return info && info->alive();
}

inline std::string texts(const Result<std::vector<LogLine>>& lines) {
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

}  // namespace gpumod
