// For tests of the switch: goals in a word, and a machine with services that fit beside each other or do not.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "switching/world_testing.h"

namespace gpumod::testing_world {

inline Goal mode(std::vector<ServiceId> services, std::string id = "mode") {
  Goal goal;
  goal.mode = std::move(id);
  for (auto& service : services)
    goal.wanted[std::move(service)] = Residency::running;
  return goal;
}

inline Goal only(ServiceId service, Residency residency) {
  Goal goal;
  goal.exclusive = false;
  goal.wanted[std::move(service)] = residency;
  return goal;
}

/// "chat" (20000 MiB) and "embed" (5000 MiB) cannot run beside each other; "small" (2500 MiB) fits beside both.
struct SwitchTest : ::testing::Test {
  SwitchTest() {
    world.add(make_service("chat", 7070, Bytes::mib(20000)));
    world.add(make_service("embed", 8200, Bytes::mib(5000)));
    world.add(make_service("small", 8210, Bytes::mib(2500)));
    world.add(make_service("cpu", 9000, Bytes(0)));
  }

  Switch make(Goal goal, OnFailure policy = OnFailure::rollback) {
    return Switch({std::move(goal), std::nullopt, policy, world.knowledge});
  }
  void expect_clean() { EXPECT_THAT(world.violations, ::testing::IsEmpty()); }
  long times(const std::string& what) const { return std::count(world.history.begin(), world.history.end(), what); }
  static bool done(const Switch& machine, const std::string& subject, Action action = Action::start) {
    return std::any_of(machine.reports().begin(), machine.reports().end(), [&](const StepReport& line) {
      return line.subject == subject && line.action == action && line.result == "done";
    });
  }

  World world;
};

}  // namespace gpumod::testing_world
