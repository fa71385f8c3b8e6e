// Switches in which several services are models of one router: they share its unit and its port.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "switching/switch_testing.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace testing_world;

struct RouterTest : SwitchTest {
  RouterTest() {
    world.add(make_router_service("coder", "llama", 7071, Bytes::mib(18000)));
    world.add(make_router_service("nemotron", "llama", 7071, Bytes::mib(20000)));
  }
};

TEST_F(RouterTest, ModelsOfOneRouterAreExchangedInsideIt) {
  world.run_unit("gpumod-router-llama.service", {"coder"});
  auto machine = make(mode({"nemotron"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("unload_model coder", "load_model nemotron"));
  EXPECT_TRUE(world.runs("nemotron"));
  EXPECT_FALSE(world.runs("coder"));
}

TEST_F(RouterTest, TheRouterIsStartedBeforeItsModel) {
  auto machine = make(mode({"coder"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("start_unit gpumod-router-llama.service", "load_model coder"));
}

TEST_F(RouterTest, ARouterThatNobodyWantsStops) {
  world.run_unit("gpumod-router-llama.service", {"coder"});
  auto machine = make(mode({"small"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_FALSE(world.unit_runs("gpumod-router-llama.service"));
}

TEST_F(RouterTest, AnUnloadThatDoesNothingRestartsTheRouter) {
  world.run_unit("gpumod-router-llama.service", {"coder"});
  world.unload_does_nothing.insert("coder");
  auto machine = make(mode({"nemotron"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("unload_model coder", "stop_unit gpumod-router-llama.service",
                                         "start_unit gpumod-router-llama.service", "load_model nemotron"));
  expect_clean();
}

TEST_F(RouterTest, TwoStepsThatDistrustTheRouterAtOnceRestartItOnce) {
  world.run_unit("gpumod-router-llama.service", {"coder", "nemotron"});
  world.unload_does_nothing.insert("nemotron");
  world.wrong_model.insert("coder");
  auto machine = make(mode({"coder"}));
  world.run(machine, [&](Switch&, int) {
    if (world.did("start_unit gpumod-router-llama.service")) world.wrong_model.clear();
  });
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_THAT(world.history, ElementsAre("unload_model nemotron", "stop_unit gpumod-router-llama.service",
                                         "start_unit gpumod-router-llama.service", "load_model coder"));
  EXPECT_TRUE(world.runs("coder"));
}

TEST_F(RouterTest, AFailedLoadRestoresTheModelThatWasThere) {
  world.run_unit("gpumod-router-llama.service", {"coder"});
  world.start_fails.insert("nemotron");
  auto machine = make(mode({"nemotron"}));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::rolled_back);
  EXPECT_TRUE(world.runs("coder"));
}

TEST_F(RouterTest, ARouterRestartBesideAnotherStartNeverWaitsForItself) {
  world.run_unit("gpumod-router-llama.service", {"coder"});
  world.break_unit("gpumod-router-llama.service");
  Goal goal = mode({"small"});
  goal.wanted["coder"] = Residency::unloaded;
  auto machine = make(goal);
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_TRUE(world.runs("small"));
  EXPECT_TRUE(world.unit_runs("gpumod-router-llama.service"));
  expect_clean();
}

TEST_F(RouterTest, AFailedLoadIsUnloadedAlsoWhenNothingIsRestored) {
  world.wrong_model.insert("coder");
  auto machine = make(mode({"coder"}), OnFailure::stay);
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_FALSE(world.runs("coder"));
  EXPECT_TRUE(world.did("unload_model coder"));
}

TEST_F(RouterTest, ARouterThatDoesNotComeBackKeepsNoOtherDown) {
  world.add(make_router_service("mini", "llama", 7071, Bytes::mib(3000)));
  world.run_unit("gpumod-router-llama.service", {"mini"});
  world.run_unit("gpumod-small.service");
  world.start_fails.insert("chat");
  auto machine = make(mode({"chat"}));
  world.run(machine, [&](Switch&, int) {
    if (world.did("start_unit chat")) world.start_fails.insert("");  // the router's own start
  });
  EXPECT_EQ(machine.result(), SwitchResult::failed);
  EXPECT_FALSE(world.runs("mini"));
  EXPECT_TRUE(world.runs("small")) << "it only queued behind the model on the same GPU";
  expect_clean();
}

TEST_F(RouterTest, SleepingAModelKeepsItsRouter) {
  world.run_unit("gpumod-router-llama.service", {"coder"});
  auto machine = make(only("coder", Residency::unloaded));
  world.run(machine);
  EXPECT_EQ(machine.result(), SwitchResult::committed);
  EXPECT_TRUE(world.unit_runs("gpumod-router-llama.service"));
  EXPECT_FALSE(world.runs("coder"));
}

}  // namespace
}  // namespace gpumod
