// What can be wrong with a simulated vLLM, each as seen from outside.
#include "sim/vllm_testing.h"

namespace gpumod::sim {
namespace {

using ::testing::HasSubstr;
using namespace testing;

constexpr const char* up = "Application startup complete";

bool is_alive(pid_t pid) {
  const auto info = process_info(pid);
  return info && info->alive();
}

class VllmFaults : public VllmTest {};

TEST_F(VllmFaults, AKilledServerLeavesAnEngineThatHoldsTheGpu) {
  auto vllm = start();
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  const auto before = held();
  const pid_t engine = engine_pid();
  vllm.kill(SIGKILL);
  EXPECT_EQ(vllm.status(), -SIGKILL);
  std::this_thread::sleep_for(100ms);  // five simulated seconds: nothing may happen, so nothing can be waited on
  EXPECT_TRUE(is_alive(engine));
  EXPECT_EQ(held(), before);
  EXPECT_FALSE(ask("GET", "/health"));
  ::kill(engine, SIGTERM);
  EXPECT_TRUE(until([&] { return held() == Bytes(0); }));
}

TEST_F(VllmFaults, AnOrphanMayEndByItselfLater) {
  auto vllm = start("orphan=5s");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  vllm.kill(SIGKILL);
  EXPECT_TRUE(until([&] { return held() == Bytes(0); }));
}

TEST_F(VllmFaults, AnEngineMaySurviveEvenAGracefulEnd) {
  auto vllm = start("fault=engine-survives");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  const auto before = held();
  const pid_t engine = engine_pid();
  EXPECT_EQ(::getsid(engine), engine) << "in a session of its own";
  vllm.kill(SIGTERM);
  EXPECT_EQ(vllm.status(), 0);
  ::kill(engine, SIGTERM);
  std::this_thread::sleep_for(50ms);  // as above
  EXPECT_TRUE(is_alive(engine));
  EXPECT_EQ(held(), before);
}

TEST_F(VllmFaults, ItMayIgnoreSigterm) {
  auto vllm = start("fault=ignore-sigterm");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  vllm.kill(SIGTERM);
  ::kill(engine_pid(), SIGTERM);
  std::this_thread::sleep_for(50ms);  // as above
  EXPECT_TRUE(probe().ok);
}

TEST_F(VllmFaults, ItMayStopInTheMiddleOfLoading) {
  auto vllm = start("fault=hang-load;weights=8GiB;shards=4;load=4s");
  ASSERT_TRUE(until([&] { return held() == Bytes::gib(4) + Bytes::mib(500); }));
  std::this_thread::sleep_for(100ms);  // as above
  EXPECT_EQ(held(), Bytes::gib(4) + Bytes::mib(500));
  EXPECT_FALSE(ask("GET", "/health"));
  vllm.kill(SIGTERM);
  EXPECT_EQ(vllm.end(), 130);
  EXPECT_EQ(vllm.log().find("100% Completed"), std::string::npos);
  EXPECT_TRUE(until([&] { return held() == Bytes(0); }));
}

TEST_F(VllmFaults, ItMayCompileForLongInSilence) {
  auto vllm = start("fault=slow-compile;compile=15s");
  const auto compiles = [&] {
    for (const pid_t pid : descendants_of(vllm.pid()))
      if (const auto info = process_info(pid); info && info->command == "cicc" && info->alive()) return true;
    return false;
  };
  EXPECT_TRUE(until(compiles));
  EXPECT_TRUE(vllm.says(up)) << vllm.log();
  EXPECT_FALSE(compiles());
}

TEST_F(VllmFaults, ItsTokenizerMayNotFit) {
  auto vllm = start("fault=model-error");
  EXPECT_EQ(vllm.end(), 1);
  EXPECT_EQ(vllm.cause().kind, FailureCause::Class::model);
  EXPECT_THAT(vllm.cause().cause, HasSubstr("tokenizer"));
}

TEST_F(VllmFaults, AFolderThatIsNotThereIsAModelError) {
  service_.model.path = directory_.path() / "nowhere";
  auto vllm = start();
  EXPECT_EQ(vllm.end(), 1);
  EXPECT_EQ(vllm.cause().kind, FailureCause::Class::model);
}

TEST_F(VllmFaults, ItMayBeHealthyAndNeverAnswer) {
  auto vllm = start("fault=wedged");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  EXPECT_EQ(status_of("GET", "/health"), 200);
  const auto reply = chat(300ms);
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error().message, HasSubstr("no answer within"));
}

TEST_F(VllmFaults, ItsHealthMayLie) {
  auto vllm = start("fault=health-lies;load=50s");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  EXPECT_EQ(status_of("GET", "/health"), 200);
  EXPECT_EQ(chat()->status, 503);
  ASSERT_TRUE(vllm.says("init engine")) << vllm.log();
  EXPECT_TRUE(until([&] { return chat()->status == 200; }));
}

TEST_F(VllmFaults, ItMayServeAnotherModel) {
  auto vllm = start("fault=wrong-model;serves=meta-llama/Llama-3.2-1B");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  const auto identity = engine_.judge_identity(service_, *send(*engine_.identity_request(service_)));
  ASSERT_FALSE(identity);
  EXPECT_THAT(identity.error().message, HasSubstr("serves meta-llama/Llama-3.2-1B, not Qwen/Qwen3-8B"));
  EXPECT_FALSE(probe().ok);
}

TEST_F(VllmFaults, ADeadEngineTakesItsServerAlong) {
  auto vllm = start("crash-after=50s");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  EXPECT_TRUE(probe().ok);
  EXPECT_EQ(vllm.end(), 0) << "as the real one: it shuts down in order";
  EXPECT_THAT(vllm.log(), HasSubstr("EngineDeadError"));
  EXPECT_EQ(vllm.cause().cause, "torch.AcceleratorError: CUDA error: unspecified launch failure");
}

TEST_F(VllmFaults, AServerMayStayWithoutItsEngine) {
  auto vllm = start("fault=crash-after=10s;tokens-per-second=0.01", {"VLLM_KEEP_ALIVE_ON_ENGINE_DEATH=1"});
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  EXPECT_EQ(chat()->status, 500) << "in the middle of an answer";
  EXPECT_EQ(chat()->status, 500);
  EXPECT_EQ(engine_.judge_readiness(service_, *ask("GET", "/health")).state, ReadinessVerdict::State::failed);
  EXPECT_TRUE(until([&] { return held() == Bytes(0); }));
}

TEST_F(VllmFaults, AnOldEngineDiesOfARequestInItsSleep) {
  service_.sleep = SleepAbility::level1;
  auto vllm = start("fault=dies-asleep");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  EXPECT_EQ(status_of("POST", "/sleep"), 200);
  EXPECT_EQ(chat()->status, 500);
  EXPECT_EQ(vllm.end(), 0);
  EXPECT_THAT(vllm.log(), HasSubstr("illegal memory access"));
}

TEST_F(VllmFaults, OptionsMayStandBesideTheModel) {
  const auto folder = directory_.path() / "model";
  std::filesystem::create_directory(folder);
  ASSERT_TRUE(write_file_atomically(folder.string() + ".sim", "answer=from the file\nweights=2GiB\n"));
  service_.model.path = folder;
  auto vllm = start("answer=from the environment");
  ASSERT_TRUE(vllm.says("Model loading took 2.00 GiB")) << vllm.log();
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  EXPECT_EQ(probe().text, "from the environment");
}

TEST_F(VllmFaults, AMisspeltFaultIsRefused) {
  auto vllm = start("fault=wegded");
  EXPECT_EQ(vllm.end(), 2);
}

}  // namespace
}  // namespace gpumod::sim
