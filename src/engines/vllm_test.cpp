#include "engines/testing.h"

namespace gpumod {
namespace {

using namespace testing_engines;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const Engine& engine = engine_for(EngineKind::vllm);

TEST(VllmLaunch, SaysOnlyWhatPeopleSet) {
  const auto unit = engine.launch(vllm_service(), context("/usr/bin/vllm"));
  ASSERT_TRUE(unit) << unit.error().message;
  EXPECT_THAT(unit->argv,
              ElementsAre("/usr/bin/vllm", "serve", "Qwen/Qwen3-8B", "--port", "7071", "--host", "127.0.0.1"));
  EXPECT_EQ(unit->name, "gpumod-chat.service");
  EXPECT_EQ(unit->tag, "chat");
  EXPECT_EQ(variable(*unit, "HF_HUB_OFFLINE"), "1");
  EXPECT_EQ(variable(*unit, "GPUMOD_SERVICE"), "chat");
  EXPECT_EQ(variable(*unit, "CUDA_DEVICE_ORDER"), "PCI_BUS_ID");
  EXPECT_EQ(variable(*unit, "CUDA_VISIBLE_DEVICES"), "<unset>");
  EXPECT_EQ(variable(*unit, "VLLM_SERVER_DEV_MODE"), "<unset>");
  EXPECT_EQ(variable(*unit, "VIRTUAL_ENV"), "<unset>");
}

TEST(VllmLaunch, PassesEveryOption) {
  auto service = vllm_service();
  auto& options = vllm_of(service);
  options.gpu_memory_utilization = 0.35;
  options.max_model_len = 12288;
  options.max_num_seqs = 4;
  options.tensor_parallel_size = 2;
  options.dtype = "half";
  options.runner = "pooling";
  options.hf_overrides = R"({"a": [1]})";
  options.enforce_eager = true;
  options.trust_remote_code = true;
  service.model.served_name = "qwen";
  service.host = "0.0.0.0";
  service.extra_args = {"--swap-space", "0"};
  EngineSettings settings;
  settings.extra_args = {"--disable-log-requests"};
  auto launch = context("/usr/bin/vllm");
  launch.settings = &settings;
  const auto unit = engine.launch(service, launch);
  ASSERT_TRUE(unit);
  EXPECT_THAT(unit->argv,
              ElementsAre("/usr/bin/vllm", "serve", "Qwen/Qwen3-8B", "--port", "7071", "--host", "0.0.0.0",
                          "--served-model-name", "qwen", "--gpu-memory-utilization", "0.35", "--max-model-len", "12288",
                          "--max-num-seqs", "4", "--tensor-parallel-size", "2", "--dtype", "half", "--runner",
                          "pooling", "--hf-overrides", R"({"a": [1]})", "--enforce-eager", "--trust-remote-code",
                          "--disable-log-requests", "--swap-space", "0"));
}

TEST(VllmLaunch, SleepNeedsTheFlagAndTheDevelopmentMode) {
  auto service = vllm_service();
  service.sleep = SleepAbility::level1;
  service.environment.emplace("VLLM_SERVER_DEV_MODE", Secret("0"));
  const auto unit = engine.launch(service, context("/usr/bin/vllm"));
  ASSERT_TRUE(unit);
  EXPECT_THAT(unit->argv, Contains("--enable-sleep-mode"));
  EXPECT_EQ(variable(*unit, "VLLM_SERVER_DEV_MODE"), "1");
}

TEST(VllmLaunch, PeoplesEnvironmentWinsOverOursButNotOverTheTag) {
  auto service = vllm_service();
  service.environment.emplace("HF_HUB_OFFLINE", Secret("0"));
  service.environment.emplace("GPUMOD_SERVICE", Secret("forged"));
  service.environment.emplace("SHARED", Secret("service"));
  service.environment.emplace("CUDA_VISIBLE_DEVICES", Secret("7"));
  EngineSettings settings;
  settings.environment.emplace("SHARED", Secret("engine"));
  settings.environment.emplace("ENGINE", Secret("engine"));
  auto launch = context("/usr/bin/vllm");
  launch.settings = &settings;
  launch.cuda_devices = {"GPU-a", "GPU-b"};
  const auto unit = engine.launch(service, launch);
  ASSERT_TRUE(unit);
  EXPECT_EQ(variable(*unit, "HF_HUB_OFFLINE"), "0");
  EXPECT_EQ(variable(*unit, "GPUMOD_SERVICE"), "chat");
  EXPECT_EQ(variable(*unit, "SHARED"), "service");
  EXPECT_EQ(variable(*unit, "ENGINE"), "engine");
  EXPECT_EQ(variable(*unit, "CUDA_VISIBLE_DEVICES"), "GPU-a,GPU-b");
}

TEST(VllmLaunch, AVirtualEnvironmentIsEntered) {
  auto launch = context("/home/u/vllm/.venv/bin/vllm");
  launch.inherited_path = "/opt/cuda/bin:/usr/bin";
  auto unit = engine.launch(vllm_service(), launch);
  ASSERT_TRUE(unit);
  EXPECT_EQ(variable(*unit, "VIRTUAL_ENV"), "/home/u/vllm/.venv");
  EXPECT_EQ(variable(*unit, "PATH"), "/home/u/vllm/.venv/bin:/opt/cuda/bin:/usr/bin");

  auto service = vllm_service();
  service.environment.emplace("PATH", Secret("/my/bin"));
  unit = engine.launch(service, launch);
  ASSERT_TRUE(unit);
  EXPECT_EQ(variable(*unit, "PATH"), "/home/u/vllm/.venv/bin:/my/bin");

  unit = engine.launch(vllm_service(), context("/home/u/.local/bin/vllm"));
  ASSERT_TRUE(unit);
  EXPECT_EQ(variable(*unit, "VIRTUAL_ENV"), "<unset>");
}

TEST(VllmLaunch, RefusesWhatCannotRun) {
  auto service = vllm_service();
  service.model.id = "";
  EXPECT_EQ(engine.launch(service, context("/usr/bin/vllm")).error().code, ErrorCode::configuration);
  service = vllm_service();
  service.model.id = "--help";
  EXPECT_FALSE(engine.launch(service, context("/usr/bin/vllm")));
  service = vllm_service();
  service.port = 0;
  EXPECT_THAT(engine.launch(service, context("/usr/bin/vllm")).error().message, HasSubstr("no port"));
  EXPECT_THAT(engine.launch(vllm_service(), context("vllm")).error().message, HasSubstr("absolute"));
}

TEST(VllmReadiness, AsksHealth) {
  auto service = vllm_service();
  service.host = "0.0.0.0";
  const auto request = engine.readiness_request(service);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->host, "127.0.0.1");
  EXPECT_EQ(request->port, 7071);
  EXPECT_EQ(request->target, "/health");
  using State = ReadinessVerdict::State;
  EXPECT_EQ(engine.judge_readiness(service, reply(200, "")).state, State::ready);
  EXPECT_EQ(engine.judge_readiness(service, reply(503, "")).state, State::failed);
  EXPECT_EQ(engine.judge_readiness(service, reply(404, "<html>")).state, State::not_yet);
}

TEST(VllmSleep, LevelsAndTheWayBack) {
  auto service = vllm_service();
  EXPECT_TRUE(engine.sleep_requests(service, Residency::sleeping1).empty());
  EXPECT_FALSE(engine.residency_request(service));

  service.sleep = SleepAbility::level1;
  auto requests = engine.sleep_requests(service, Residency::sleeping1);
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].method, "POST");
  EXPECT_EQ(requests[0].target, "/sleep?level=1");
  EXPECT_TRUE(engine.sleep_requests(service, Residency::sleeping2).empty());
  requests = engine.wake_requests(service, Residency::sleeping1);
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].target, "/wake_up");

  service.sleep = SleepAbility::level2;
  requests = engine.sleep_requests(service, Residency::sleeping2);
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].target, "/sleep?level=2");
  requests = engine.wake_requests(service, Residency::sleeping2);
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].target, "/wake_up?tags=weights");
  EXPECT_EQ(requests[1].target, "/collective_rpc");
  EXPECT_EQ(requests[1].body, R"({"method":"reload_weights"})");
  EXPECT_EQ(requests[2].target, "/wake_up?tags=kv_cache");
}

TEST(VllmResidency, IsWhatItSays) {
  auto service = vllm_service();
  service.sleep = SleepAbility::level2;
  EXPECT_EQ(engine.residency_request(service)->target, "/is_sleeping");
  EXPECT_EQ(engine.judge_residency(service, reply(200, R"({"is_sleeping":true})")).value(), Residency::sleeping2);
  EXPECT_EQ(engine.judge_residency(service, reply(200, R"({"is_sleeping":false})")).value(), Residency::running);
  EXPECT_EQ(engine.judge_residency(service, reply(404, R"({"detail":"Not Found"})")).value(), Residency::running);
  EXPECT_FALSE(engine.judge_residency(service, reply(200, R"({"is_sleeping":"yes"})")));
  EXPECT_FALSE(engine.judge_residency(service, reply(500, "")));
  service.sleep = SleepAbility::level1;
  EXPECT_EQ(engine.judge_residency(service, reply(200, R"({"is_sleeping":true})")).value(), Residency::sleeping1);
}

TEST(VllmIdentity, IsAmongTheServedModels) {
  auto service = vllm_service();
  const auto good = reply(200, R"({"data":[{"id":"other"},{"id":"Qwen/Qwen3-8B","root":"Qwen/Qwen3-8B"}]})");
  EXPECT_TRUE(engine.judge_identity(service, good));
  const auto wrong = engine.judge_identity(service, reply(200, R"({"data":[{"id":"Qwen/Qwen3-0.6B"}]})"));
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().message, "port 7071 serves Qwen/Qwen3-0.6B, not Qwen/Qwen3-8B");
  service.model.served_name = "qwen";
  EXPECT_TRUE(engine.judge_identity(service, reply(200, R"({"data":[{"id":"qwen"}]})")));
  EXPECT_FALSE(engine.judge_identity(service, reply(200, R"({"data":[{"id":"other","root":"Qwen/Qwen3-0.6B"}]})")));
  EXPECT_FALSE(engine.judge_identity(service, reply(200, "<html>")));
  EXPECT_FALSE(engine.judge_identity(service, reply(200, R"({"data":[]})")));
}

TEST(VllmIdentity, PeoplesOwnUnitMayNameItsModelAnotherWay) {
  auto service = vllm_service();
  service.unit = "glm-code.service";
  EXPECT_TRUE(engine.judge_identity(service, reply(200, R"({"data":[{"id":"mine","root":"Qwen/Qwen3-8B"}]})")));
  EXPECT_FALSE(engine.judge_identity(service, reply(200, R"({"data":[{"id":"mine","root":"Qwen/Qwen3-4B"}]})")));
  service.model.path = "/data/qwen";
  EXPECT_TRUE(engine.judge_identity(service, reply(200, R"({"data":[{"id":"./qwen/"}]})")));
}

TEST(VllmProbe, IsChatUnlessItPools) {
  auto service = vllm_service();
  EXPECT_EQ(engine.probe_request(service)->target, "/v1/chat/completions");
  EXPECT_THAT(engine.probe_request(service)->body, HasSubstr(R"("model":"Qwen/Qwen3-8B")"));
  vllm_of(service).runner = "pooling";
  EXPECT_EQ(engine.probe_request(service)->target, "/v1/embeddings");
  service.probe.kind = ProbeKind::none;
  EXPECT_FALSE(engine.probe_request(service));
}

TEST(VllmProbe, AnotherModelsAnswerIsAFailure) {
  const auto service = vllm_service();
  const auto answer = [](const char* model) {
    return reply(200, fmt::format(R"({{"model":"{}","choices":[{{"message":{{"content":"OK"}}}}]}})", model));
  };
  EXPECT_TRUE(engine.judge_probe(service, answer("Qwen/Qwen3-8B")).ok);
  const auto verdict = engine.judge_probe(service, answer("Qwen/Qwen3-0.6B"));
  EXPECT_FALSE(verdict.ok);
  EXPECT_THAT(verdict.reason, HasSubstr("Qwen/Qwen3-0.6B"));
}

TEST(VllmProbe, AModelWithoutThatApiIsUnprovenWhenNobodyDeclaredAProbe) {
  auto service = vllm_service();
  vllm_of(service).runner = "pooling";
  const auto answer = reply(400, R"({"error":{"message":"The model does not support Embeddings API"}})");
  auto verdict = engine.judge_probe(service, answer);
  EXPECT_TRUE(verdict.ok);
  EXPECT_TRUE(verdict.unproven);
  EXPECT_THAT(verdict.reason, HasSubstr("probe:"));
  EXPECT_TRUE(engine.judge_probe(service, reply(404, R"({"detail":"Not Found"})")).unproven);
  // The wrong model is no missing API, and a declared probe is held to.
  EXPECT_FALSE(engine.judge_probe(service, reply(404, R"({"error":{"message":"The model `x` does not exist."}})")).ok);
  service.probe.kind = ProbeKind::embedding;
  EXPECT_FALSE(engine.judge_probe(service, answer).ok);
}

}  // namespace
}  // namespace gpumod
