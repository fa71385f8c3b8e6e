// What the local supervisor tells of its units: changes, logs, surveys.
#include "host/local_supervisor_testing.h"

namespace gpumod {
namespace {

TEST_F(LocalSupervisor, SaysWhenSomethingChanges) {
  std::vector<std::string> seen;
  auto registration =
      manager_->on_change(unit, [&](const UnitStatus& now_seen) { seen.push_back(now_seen.sub_state); });
  start_well(shell("trap '' TERM; echo up; while :; do sleep 0.01; done"));
  ASSERT_TRUE(until_logged("up"));
  ASSERT_TRUE(until([&] { return ::testing::Value(seen, Contains("running")); }));
  ::kill(state().shim.pid, SIGTERM);
  ASSERT_TRUE(until([&] { return seen.back() == "stop-sigterm"; }));
  EXPECT_TRUE(loop_.run_until_done(manager_->kill(unit, SIGKILL)));
  ASSERT_TRUE(until([&] { return seen.back() == "failed"; }));
  ASSERT_TRUE(until([&] { return status().gone(); })) << "its last `sleep` dies after the shell";

  start_well(shell("exec sleep 1000"));
  ASSERT_TRUE(until([&] { return seen.back() == "running"; }));
  ::kill(state().shim.pid, SIGKILL);
  ASSERT_TRUE(until([&] { return seen.back() == "failed"; })) << "no file changes then: the pidfd tells";
  ASSERT_TRUE(until([&] { return status().gone(); })) << "what it started dies after it";

  const auto count = seen.size();
  registration.release();
  start_well(shell("exec sleep 1000"));
  EXPECT_TRUE(stop().ok);
  EXPECT_EQ(seen.size(), count);
}

TEST_F(LocalSupervisor, AChangeCallbackMayEndItsOwnRegistration) {
  int calls = 0;
  Registration registration;
  registration = manager_->on_change(unit, [&](const UnitStatus&) {
    ++calls;
    registration.release();
  });
  start_well(shell("exec sleep 1000"));
  ASSERT_TRUE(until([&] { return calls > 0; }));
  EXPECT_TRUE(stop().ok);
  EXPECT_EQ(calls, 1);
}

TEST_F(LocalSupervisor, FollowsTheLogAndKeepsRunsApart) {
  start_well(shell("echo old"));
  ASSERT_TRUE(until([&] { return status().gone(); }));
  std::vector<std::string> followed;
  auto registration = manager_->follow_log(unit, [&](const LogLine& line) {
    followed.push_back(line.text);
    EXPECT_LT(wall_now() - line.time, patience);
  });
  ASSERT_TRUE(registration);
  const auto old_run = status().invocation;
  start_well(shell("for i in 1 2 3; do echo line $i; done; exec sleep 1000"));
  ASSERT_TRUE(until([&] { return followed.size() == 3; }));
  EXPECT_THAT(followed, ElementsAre("line 1", "line 2", "line 3"));
  EXPECT_THAT(log(), ElementsAre("line 1", "line 2", "line 3"));
  EXPECT_THAT(log(old_run), ElementsAre("old"));
  EXPECT_THAT(log("", 2), ElementsAre("line 2", "line 3"));
}

TEST_F(LocalSupervisor, AFloodOfOutputHoldsNothingUp) {
  start_well(shell("exec cat /dev/urandom"));
  const auto directory = paths().runtime / "local" / unit;
  ASSERT_TRUE(until([&] { return fs::exists(directory / "log.1"); }));
  EXPECT_TRUE(stop().ok);
  EXPECT_EQ(status().result, "success");
  EXPECT_LE(fs::file_size(directory / "log"), std::uintmax_t{6} << 20);
  EXPECT_LE(fs::file_size(directory / "log.1"), std::uintmax_t{6} << 20);
}

TEST_F(LocalSupervisor, ASurveyListsWhatIsAskedAndWhatRuns) {
  start_well(shell("exec sleep 1000"));
  auto second = shell("exit 0");
  second.name = "gpumod-done.service";
  second.tag = "done";
  start_well(second);
  ASSERT_TRUE(until([&] { return status("gpumod-done.service").gone(); }));
  std::vector<std::string> names;
  const auto statuses =
      loop_.run_until_done(manager_->survey({"glm-code.service", "gpumod.service"}, SurveyDepth::everything)).value();
  for (const auto& found : statuses) {
    names.push_back(found.name);
    EXPECT_EQ(found.exists, found.name == unit);
  }
  EXPECT_THAT(names, UnorderedElementsAre("glm-code.service", unit));
}

}  // namespace
}  // namespace gpumod
