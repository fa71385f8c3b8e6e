// The simulated llama-server as processes on a simulated GPU: what it takes, when it gives back, what can be wrong.
// Whether it answers as the real one is asked elsewhere, with the real one beside it: tests/e2e/test_sim_llama.py.
#include <set>

#include "sim/llama_testing.h"

namespace gpumod::sim {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using namespace testing;

constexpr const char* usual = "weights=8GiB\nkv-per-1k=64MiB\ncompute=256MiB\ncuda=100MiB\nload=4s\nlayers=32\n";
const Bytes all_of_it = Bytes::mib(8192 + 4096 / 1024 * 64 + 256 + 100);

TEST_F(LlamaTest, ALoadTakesItsMemoryStepByStepAndTheEndGivesItBack) {
  start({"-m", model("m", usual)});
  std::set<std::int64_t> seen;
  ASSERT_TRUE(until([&] {
    seen.insert(held().count());
    return status_of("GET", "/health") == 200;
  })) << server_->log();
  EXPECT_GE(seen.size(), 5u);
  EXPECT_EQ(held(), all_of_it);
  EXPECT_THAT(broker_.ask("state"), HasSubstr(fmt::format("\"pid\":{}", server_->pid())));
  server_->kill(SIGTERM);
  EXPECT_EQ(server_->end(), 0);
  EXPECT_EQ(held(), Bytes());
}

TEST_F(LlamaTest, LayersAndContextSayHowMuch) {
  start({"-m", model("m", usual), "-ngl", "16", "-c", "8192"});
  ASSERT_TRUE(becomes_ready());
  EXPECT_EQ(held(), Bytes::mib(4096 + 256 + 256 + 100));
  const auto slow = answer("POST", "/v1/chat/completions", chat());
  EXPECT_LT(slow.at("timings").at("predicted_per_second").to_number<double>(), 10);
}

TEST_F(LlamaTest, WithoutGpuNothingIsTaken) {
  const auto file = model("m", usual);
  start({"-m", file}, {"CUDA_VISIBLE_DEVICES="});
  ASSERT_TRUE(becomes_ready());
  EXPECT_EQ(held(), Bytes());
}

TEST_F(LlamaTest, WhatIsNotPinnedShrinksSilentlyAndStaysSlow) {
  const Holder other({"--as", "game", "--holds", "20GiB"});
  start({"-m", model("m", usual)});
  ASSERT_TRUE(becomes_ready()) << server_->log();
  const auto mine = held() - Bytes::gib(20);
  EXPECT_GT(mine, Bytes::mib(500));
  EXPECT_LT(mine, Bytes::gib(3));
  EXPECT_EQ(server_->log().find("fit"), std::string::npos) << "nothing is said at the usual verbosity";
  const auto reply = answer("POST", "/v1/chat/completions", chat());
  EXPECT_LT(reply.at("timings").at("predicted_per_second").to_number<double>(), 5);
}

TEST_F(LlamaTest, AtAHigherVerbosityTheShrinkIsSaid) {
  const Holder other({"--as", "game", "--holds", "20GiB"});
  start({"-m", model("m", usual), "-lv", "4"});
  ASSERT_TRUE(becomes_ready());
  EXPECT_THAT(server_->log(), HasSubstr("cannot meet free memory target of 1024 MiB"));
  EXPECT_THAT(server_->log(), HasSubstr("/32 layers to GPU"));
}

TEST_F(LlamaTest, WhatIsPinnedAndDoesNotFitFailsWithItsReason) {
  const Holder other({"--as", "game", "--holds", "15400MiB"});  // 8664 MiB are left
  const auto fails = [&](const std::string& options, const std::string& why) {
    start({"-m", model("m", options), "-c", "4096", "-ngl", "all"});
    EXPECT_EQ(server_->end(), 1);
    EXPECT_THAT(server_->log(), HasSubstr("cudaMalloc failed: out of memory"));
    EXPECT_THAT(server_->log(), HasSubstr(why));
    EXPECT_TRUE(becomes_held(Bytes::mib(15400)));
    server_.reset();
    std::filesystem::remove(directory_.path() / "log");
  };
  fails("weights=9GiB", "error loading model: unable to allocate CUDA0 buffer");
  fails("weights=8GiB\nkv-per-1k=200MiB", "failed to allocate buffer for kv cache");
  fails("weights=8GiB\nkv-per-1k=50MiB\ncompute=400MiB", "failed to allocate compute pp buffers");
}

TEST_F(LlamaTest, MemoryThatIsTakenAwayUnderWayFailsTheLoadInTheMiddle) {
  start({"-m", model("m", "weights=16GiB\nload=40s"), "--fit", "off"});
  ASSERT_TRUE(until([&] { return held() > Bytes::gib(3); }));
  const Holder other({"--as", "game", "--holds", "12GiB"});
  EXPECT_EQ(server_->end(), 1);
  EXPECT_THAT(server_->log(), HasSubstr("error loading model: unable to allocate CUDA0 buffer"));
  EXPECT_TRUE(becomes_held(Bytes::gib(12)));
}

TEST_F(LlamaTest, AnUnloadAnswersBeforeTheMemoryIsBack) {
  model("m", std::string(usual) + "unload=4s\n");
  start_router();
  ASSERT_TRUE(load("m"));
  EXPECT_EQ(held(), all_of_it);
  EXPECT_EQ(status_of("POST", "/models/unload", named("m")), 200);
  EXPECT_EQ(held(), all_of_it);
  EXPECT_EQ(state("m"), "loaded");
  ASSERT_TRUE(becomes("m", "unloaded"));
  EXPECT_TRUE(becomes_held(Bytes()));
}

TEST_F(LlamaTest, AChildThatEndsTooSlowlyIsKilled) {
  model("m", std::string(usual) + "fault=slow-unload\n");
  start_router();
  ASSERT_TRUE(load("m"));
  EXPECT_EQ(status_of("POST", "/models/unload", named("m")), 200);
  ASSERT_TRUE(becomes("m", "unloaded (failed, 1)"));
  EXPECT_THAT(server_->log(), HasSubstr("force-killing model instance name=m after timeout"));
  EXPECT_TRUE(becomes_held(Bytes()));
}

TEST_F(LlamaTest, AWedgedChildKeepsItsMemoryUntilItIsKilled) {
  model("m", std::string(usual) + "fault=wedged-child\n");
  start_router();
  ASSERT_TRUE(load("m"));
  EXPECT_FALSE(ask("POST", "/v1/chat/completions", chat("m"), 300ms));
  EXPECT_EQ(status_of("GET", "/health"), 200);
  EXPECT_EQ(status_of("GET", "/props?model=m"), 200);
  const pid_t wedged = child();
  ::kill(wedged, SIGTERM);
  // The router asks it to end, too, and waits: ten simulated seconds.
  EXPECT_EQ(status_of("POST", "/models/unload", named("m")), 200);
  std::this_thread::sleep_for(200ms);  // nothing may happen in this time, so nothing can be waited on
  EXPECT_EQ(state("m"), "loaded");
  EXPECT_EQ(held(), all_of_it);
  ASSERT_TRUE(becomes("m", "unloaded (failed, 1)"));
  EXPECT_TRUE(becomes_held(Bytes()));
}

TEST_F(LlamaTest, AWedgedChildMayAnswerFirst) {
  model("m", std::string(usual) + "fault=wedged-child\nwedge-after=2\n");
  start_router();
  ASSERT_TRUE(load("m"));
  for (int question = 0; question < 2; ++question)
    EXPECT_EQ(status_of("POST", "/v1/chat/completions", chat("m")), 200);
  EXPECT_FALSE(ask("POST", "/v1/chat/completions", chat("m"), 300ms));
}

TEST_F(LlamaTest, AWedgedChildOutlivesItsRouter) {
  model("m", std::string(usual) + "fault=wedged-child\n");
  start_router();
  ASSERT_TRUE(load("m"));
  const pid_t wedged = child();
  server_->kill(SIGKILL);
  (void)server_->end();
  std::this_thread::sleep_for(200ms);  // as above
  EXPECT_EQ(held(), all_of_it);
  ::kill(wedged, SIGKILL);
  EXPECT_TRUE(becomes_held(Bytes()));
}

TEST_F(LlamaTest, ChildrenFollowAKilledRouterOnceTheyHaveLoaded) {
  model("quick", "weights=1GiB\nload=0s\n");
  model("slow", "weights=2GiB\nload=8s\n");
  start_router();
  ASSERT_TRUE(load("quick"));
  EXPECT_EQ(status_of("POST", "/models/load", named("slow")), 200);
  ASSERT_TRUE(until([&] { return held() > Bytes::gib(1); }));
  server_->kill(SIGKILL);
  (void)server_->end();
  std::set<std::int64_t> seen;
  EXPECT_TRUE(until([&] {
    seen.insert(held().count());
    return held() == Bytes();
  }));
  EXPECT_TRUE(seen.contains(Bytes::gib(2).count())) << "the one that loaded went on to the end of its load";
}

TEST_F(LlamaTest, SleepGivesTheModelsMemoryBackAndAQuestionTakesItAgain) {
  start({"-m", model("m", usual), "--sleep-idle-seconds", "4"});
  ASSERT_TRUE(becomes_ready());
  EXPECT_EQ(held(), all_of_it);
  ASSERT_TRUE(becomes_held(Bytes::mib(100))) << "what CUDA itself takes stays";
  EXPECT_TRUE(answer("GET", "/props").at("is_sleeping").as_bool());
  EXPECT_EQ(status_of("POST", "/v1/chat/completions", chat()), 200);
  EXPECT_EQ(held(), all_of_it);
}

TEST_F(LlamaTest, ASleeperThatFindsNoRoomDies) {
  start({"-m", model("m", usual), "-c", "4096", "-ngl", "all", "--sleep-idle-seconds", "4"});
  ASSERT_TRUE(becomes_ready());
  ASSERT_TRUE(becomes_held(Bytes::mib(100)));
  const Holder other({"--as", "game", "--holds", "20GiB"});
  EXPECT_FALSE(ask("POST", "/v1/chat/completions", chat()));
  EXPECT_EQ(server_->end(), -SIGABRT);
  EXPECT_THAT(server_->log(), HasSubstr("cudaMalloc failed: out of memory"));
}

TEST_F(LlamaTest, ALoadMayCrash) {
  model("m", std::string(usual) + "fault=crash-load\n");
  start_router();
  EXPECT_EQ(status_of("POST", "/models/load", named("m")), 200);
  ASSERT_TRUE(becomes("m", "unloaded (failed, 1)"));
  EXPECT_THAT(server_->log(), HasSubstr("terminate called"));
  EXPECT_TRUE(becomes_held(Bytes()));
}

TEST_F(LlamaTest, ALoadMayHangWithHalfOfTheMemory) {
  start({"-m", model("m", std::string(usual) + "fault=hang-load\n")});
  ASSERT_TRUE(becomes_held(Bytes::mib(4096 + 100)));
  std::this_thread::sleep_for(200ms);  // as above
  EXPECT_EQ(held(), Bytes::mib(4096 + 100));
  EXPECT_EQ(status_of("GET", "/health"), 503);
  server_->kill(SIGTERM);
  EXPECT_EQ(server_->end(), -SIGTERM);
}

TEST_F(LlamaTest, HealthMayLie) {
  start({"-m", model("m", std::string(usual) + "fault=hang-load,health-lies\n")});
  ASSERT_TRUE(becomes_ready());
  EXPECT_LT(held(), all_of_it);
  EXPECT_EQ(status_of("POST", "/v1/chat/completions", chat()), 503);
}

TEST_F(LlamaTest, AnotherModelMayAnswer) {
  start({"-m", model("m", std::string(usual) + "fault=wrong-model\n"), "--alias", "m"});
  ASSERT_TRUE(becomes_ready());
  const auto props = answer("GET", "/props");
  EXPECT_THAT(std::string(props.at("model_path").as_string()), HasSubstr("another-model.gguf"));
  EXPECT_EQ(answer("POST", "/v1/chat/completions", chat()).at("model").as_string(), "another-model");
}

TEST_F(LlamaTest, SigtermMayBeIgnored) {
  start({"-m", model("m", std::string(usual) + "fault=ignore-sigterm\n")});
  ASSERT_TRUE(becomes_ready());
  server_->kill(SIGTERM);
  EXPECT_EQ(status_of("POST", "/v1/chat/completions", chat()), 200);
  server_->kill(SIGTERM);
  EXPECT_EQ(status_of("GET", "/health"), 200);
  EXPECT_EQ(held(), all_of_it);
}

TEST_F(LlamaTest, ABusyServerMayEndInsteadOfStaying) {
  start({"-m", model("m", "loop=yes\nbusy-stop=end\n")});
  ASSERT_TRUE(becomes_ready());
  loop_.spawn([](HttpClient& client, HttpRequest request) -> Task<void> {
    (void)co_await client.request(std::move(request));
  }(*client_, endless()));
  ASSERT_TRUE(until([&] { return answer("GET", "/slots").at(0).at("is_processing").as_bool(); }));
  server_->kill(SIGTERM);
  EXPECT_EQ(server_->end(), 0);
}

TEST_F(LlamaTest, WhatIsMisspeltIsSaid) {
  start({"-m", model("m", "wieghts=8GiB\n")});
  EXPECT_EQ(server_->end(), 1);
  EXPECT_THAT(server_->log(), HasSubstr("llama-server has no option 'wieghts' Did you mean 'weights'?"));
}

}  // namespace
}  // namespace gpumod::sim
