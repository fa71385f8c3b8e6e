// For the tests of the local supervisor: one with real shims, in a folder of its own, and a unit to start.
#pragma once

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "host/local.h"
#include "host/local_processes.h"
#include "host/local_state.h"
#include "host/local_testing.h"
#include "host/processes.h"

namespace gpumod {

namespace fs = std::filesystem;
using testing::ChildProcess;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::helper;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::patience;
using ::testing::UnorderedElementsAre;

inline const std::string unit = "gpumod-chat.service";

class LocalSupervisor : public ::testing::Test {
 protected:
  void SetUp() override { manager_ = open(); }
  void TearDown() override {
    // Whatever a failed test left behind.
    const auto statuses = loop_.run_until_done(manager_->survey({}, SurveyDepth::everything));
    ASSERT_TRUE(statuses);
    for (const auto& status : *statuses) {
      (void)loop_.run_until_done(manager_->kill(status.name, SIGKILL));
      (void)loop_.run_until_done(manager_->stop(status.name));
    }
  }

  Paths paths() const {
    Paths made;
    made.home = directory_.path();
    made.runtime = directory_.path() / "run";
    return made;
  }
  std::unique_ptr<UnitManager> open() {
    auto manager = local::open_supervisor(loop_, paths(), helper({"shim"}));
    EXPECT_TRUE(manager) << manager.error().message;
    return manager ? std::move(*manager) : nullptr;
  }
  static UnitSpec shell(const std::string& script) {
    UnitSpec spec;
    spec.name = unit;
    spec.tag = "chat";
    spec.argv = {"/bin/sh", "-c", script};
    spec.stop_timeout = 20s;
    return spec;
  }
  Result<UnitManager::StartOutcome> start(UnitSpec spec) {
    return loop_.run_until_done(manager_->start(std::move(spec)));
  }
  void start_well(UnitSpec spec) {
    const auto outcome = start(std::move(spec));
    ASSERT_TRUE(outcome) << outcome.error().message;
    ASSERT_TRUE(outcome->job.ok);
    EXPECT_EQ(outcome->job.result, "done");
    EXPECT_EQ(outcome->invocation.size(), 32u);
  }
  UnitStatus status(const std::string& name = unit) { return loop_.run_until_done(manager_->status(name)).value(); }
  JobOutcome stop(const std::string& name = unit) { return loop_.run_until_done(manager_->stop(name)).value(); }
  std::vector<std::string> log(const std::string& invocation = "", std::size_t limit = 1000) {
    std::vector<std::string> texts;
    const auto lines = loop_.run_until_done(manager_->log_tail(unit, invocation, limit));
    for (const auto& line : lines.value())
      texts.push_back(line.text);
    return texts;
  }
  /// Processes are not ours to be told about by anything but looking.
  bool until(const std::function<bool()>& condition) {
    const TimePoint deadline = now() + patience;
    while (!condition()) {
      if (now() > deadline || HasFatalFailure()) return false;
      loop_.run_until_done(pause());
    }
    return true;
  }
  static Task<int> pause() {
    co_await wait_for(5ms);
    co_return 0;
  }
  bool until_logged(const std::string& text) {
    return until([&] { return ::testing::Value(log(), Contains(text)); });
  }
  local::RunState state() const { return local::read_state(paths().runtime / "local" / unit).value(); }
  static bool alive(pid_t pid) { return local::start_ticks_of(pid) != 0; }

  TestFolder directory_;
  Loop loop_;
  std::unique_ptr<UnitManager> manager_;
};

}  // namespace gpumod
