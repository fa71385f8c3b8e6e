// The simulated vLLM as processes on a simulated GPU: its way up and down, its refusals, its sleep.
#include "sim/vllm_testing.h"

namespace gpumod::sim {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using namespace testing;

constexpr const char* up = "Application startup complete";
constexpr Bytes context = Bytes::mib(500);
constexpr Bytes total = Bytes::mib(24 * 1024 - 512);

/// What 0.9 of the big card claims, in whole blocks of the cache: a little less than the claim.
bool is_full_claim(Bytes held) {
  const Bytes claimed(static_cast<std::int64_t>(static_cast<double>(total.count()) * 0.9));
  return held <= claimed + context && held > claimed + context - Bytes::mib(8);
}

TEST_F(VllmTest, StartsServesAndEnds) {
  auto vllm = start("weights=8GiB;load=40s");
  ASSERT_TRUE(vllm.says("Loading safetensors checkpoint shards:  50%"));
  EXPECT_FALSE(ask("GET", "/health")) << "it listens only when its engine is up";
  ASSERT_TRUE(vllm.says(up)) << vllm.log();

  EXPECT_EQ(engine_.judge_readiness(service_, *send(*engine_.readiness_request(service_))).state,
            ReadinessVerdict::State::ready);
  EXPECT_TRUE(engine_.judge_identity(service_, *send(*engine_.identity_request(service_))));
  const auto verdict = probe();
  EXPECT_TRUE(verdict.ok && !verdict.unproven) << verdict.reason;
  EXPECT_EQ(verdict.text, "I am Qwen/Qwen3-8B.");
  EXPECT_EQ(verdict.generated_tokens, 3);

  ASSERT_EQ(holders().size(), 1u);
  EXPECT_NE(holders()[0].pid, vllm.pid()) << "the engine is a process of its own";
  EXPECT_EQ(holders()[0].command, "VLLM::EngineCor");
  EXPECT_TRUE(is_full_claim(held())) << to_string(held());

  vllm.kill(SIGTERM);
  EXPECT_EQ(vllm.end(), 0) << vllm.log();
  EXPECT_TRUE(holders().empty());
}

TEST_F(VllmTest, AnswersInTheRealShapes) {
  service_.model.served_name = "qwen";
  auto vllm = start("answer=You said {prompt}, I am {model}");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  auto reply = ask("GET", "/nope");
  EXPECT_EQ(reply->status, 404);
  EXPECT_EQ(reply->body, R"({"detail":"Not Found"})");
  EXPECT_EQ(status_of("GET", "/v1/chat/completions"), 405);
  EXPECT_EQ(status_of("GET", "/ping"), 200);
  EXPECT_EQ(ask("GET", "/version")->body, R"({"version":"0.15.1"})");
  EXPECT_THAT(ask("GET", "/metrics")->body, HasSubstr("vllm:num_requests_running{"));

  reply = ask("GET", "/v1/models");
  const auto models = boost::json::parse(reply->body);
  const auto& model = models.at("data").at(0);
  EXPECT_EQ(model.at("id"), "qwen");
  EXPECT_EQ(model.at("root"), "Qwen/Qwen3-8B");
  EXPECT_EQ(model.at("owned_by"), "vllm");
  EXPECT_EQ(model.at("max_model_len").to_number<int>(), 40960);

  reply = ask("POST", "/v1/chat/completions", R"({"model":"x","messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(reply->status, 404);
  EXPECT_THAT(reply->body, HasSubstr(R"("message":"The model `x` does not exist.","type":"NotFoundError")"));
  EXPECT_EQ(status_of("POST", "/v1/chat/completions", "{"), 400);
  EXPECT_EQ(status_of("POST", "/v1/chat/completions", R"({"messages":[]})"), 400);

  reply = ask("POST", "/v1/completions", R"({"model":"qwen","prompt":"so","max_tokens":2})");
  const auto completion = boost::json::parse(reply->body);
  EXPECT_EQ(completion.at("choices").at(0).at("text"), "You said");
  EXPECT_EQ(completion.at("choices").at(0).at("finish_reason"), "length");
  EXPECT_EQ(completion.at("usage").at("completion_tokens").to_number<int>(), 2);

  reply = ask("POST", "/v1/chat/completions",
              R"({"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stream":true,
                  "stream_options":{"include_usage":true}})");
  EXPECT_THAT(reply->content_type, HasSubstr("text/event-stream"));
  EXPECT_THAT(reply->body, EndsWith("data: [DONE]\n\n"));
  std::string text;
  int usages = 0;
  for (std::string_view rest = reply->body; rest.starts_with("data: {");) {
    const auto end = rest.find("\n\n");
    const auto chunk = boost::json::parse(rest.substr(6, end - 6));
    rest.remove_prefix(end + 2);
    if (chunk.as_object().contains("usage")) ++usages;
    if (chunk.at("choices").as_array().empty()) continue;
    const auto& delta = chunk.at("choices").at(0).at("delta").as_object();
    if (const auto* piece = delta.if_contains("content")) text += std::string_view(piece->as_string());
  }
  EXPECT_EQ(text, "You said hi, I am qwen");
  EXPECT_EQ(usages, 1);

  const auto unable = ask("POST", "/v1/embeddings", R"({"input":"x"})");
  EXPECT_EQ(unable->status, 400);
  EXPECT_THAT(unable->body, HasSubstr("The model does not support Embeddings API"));
}

TEST_F(VllmTest, AReasoningModelThinksFirst) {
  service_.extra_args = {"--reasoning-parser", "qwen3"};
  auto vllm = start("think=Let me see.;answer=OK");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  auto message = boost::json::parse(chat()->body).at("choices").at(0).at("message");
  EXPECT_EQ(message.at("content"), "OK");
  EXPECT_EQ(message.at("reasoning"), "Let me see.");
  const auto cut =
      ask("POST", "/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}],"max_completion_tokens":2})");
  const auto verdict = engine_.judge_probe(service_, *cut);
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  EXPECT_TRUE(verdict.reasoning_only);
}

TEST_F(VllmTest, AKeyGuardsTheModelAndNotItsHealth) {
  service_.extra_args = {"--api-key", "secret"};
  auto vllm = start();
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  EXPECT_EQ(status_of("GET", "/health"), 200);
  EXPECT_EQ(status_of("GET", "/v1/models"), 401);
  HttpRequest request;
  request.port = service_.port;
  request.target = "/v1/models";
  request.headers["Authorization"] = "Bearer secret";
  EXPECT_EQ(send(request)->status, 200);
}

TEST_F(VllmTest, AnEmbeddingModelEmbedsAndDoesNotChat) {
  options().runner = "pooling";
  service_.probe.kind = ProbeKind::embedding;
  service_.probe.dimensions = 384;
  auto vllm = start("dims=384");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  const auto verdict = probe();
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  EXPECT_EQ(verdict.dimensions, 384u);
  const auto two = boost::json::parse(ask("POST", "/v1/embeddings", R"({"input":["a","b"]})")->body);
  EXPECT_EQ(two.at("data").as_array().size(), 2u);
  EXPECT_NE(two.at("data").at(0).at("embedding"), two.at("data").at(1).at("embedding"));

  service_.probe = {};
  options().runner = "";
  EXPECT_TRUE(probe().unproven) << "a server that takes no chat is neither proven nor broken";
}

TEST_F(VllmTest, RefusesToStartBesideAnother) {
  Holder other({"--as", "game", "--holds", "4GiB"});
  auto vllm = start("weights=8GiB");
  EXPECT_EQ(vllm.end(), 1);
  EXPECT_EQ(vllm.cause().kind, FailureCause::Class::transient);
  EXPECT_THAT(vllm.cause().cause, HasSubstr("19.01 of 23.5 GiB were free at start"));
  EXPECT_THAT(vllm.log(), HasSubstr("Engine core initialization failed. See root cause above"));
  EXPECT_TRUE(until([&] { return held() == Bytes(0); }));
}

TEST_F(VllmTest, RefusesAModelThatLeavesNoCache) {
  auto vllm = start("weights=22GiB");
  EXPECT_EQ(vllm.end(), 1);
  EXPECT_EQ(vllm.cause().kind, FailureCause::Class::configuration);
  EXPECT_THAT(vllm.cause().cause, HasSubstr("no memory for the KV cache"));
}

TEST_F(VllmTest, RefusesALengthThatDoesNotFitAndNamesOneThatDoes) {
  options().max_model_len = 40000;
  const std::string simulated = "weights=18GiB";
  auto refused = start(simulated);
  EXPECT_EQ(refused.end(), 1);
  const auto cause = refused.cause();
  EXPECT_EQ(cause.kind, FailureCause::Class::configuration);
  EXPECT_THAT(cause.cause, HasSubstr("max_model_len 40000 needs"));
  const auto at = cause.remedy.find_first_of("0123456789");
  ASSERT_NE(at, std::string::npos) << cause.remedy;
  options().max_model_len = std::stoi(cause.remedy.substr(at));
  auto good = start(simulated);
  EXPECT_TRUE(good.says(up)) << good.log();
}

TEST_F(VllmTest, GivesUpWhenSomebodyFreesMemoryWhileItMeasures) {
  // More than vLLM itself has taken by then: it compares with what was free before its weights.
  options().gpu_memory_utilization = 0.5;
  Holder other({"--as", "game", "--holds", "8GiB"});
  auto vllm = start("weights=2GiB;profile=50s");
  ASSERT_TRUE(vllm.says("torch.compile")) << vllm.log();  // it measures for a second now
  other.kill();
  EXPECT_EQ(vllm.end(), 1);
  EXPECT_EQ(vllm.cause().kind, FailureCause::Class::transient);
  EXPECT_THAT(vllm.cause().cause, HasSubstr("another process freed memory while vLLM measured it"));
}

TEST_F(VllmTest, RunsOutOfMemoryWhenSomebodyTakesItMeanwhile) {
  auto vllm = start("weights=16GiB;load=100s");
  ASSERT_TRUE(vllm.says("25% Completed")) << vllm.log();
  Holder other({"--as", "game", "--holds", "14GiB"});
  EXPECT_EQ(vllm.end(), 1);
  EXPECT_THAT(vllm.log(), HasSubstr("torch.OutOfMemoryError: CUDA out of memory"));
}

TEST_F(VllmTest, RefusesAPortThatIsTaken) {
  options().max_model_len = 4096;
  auto first = start("", {"CUDA_VISIBLE_DEVICES=1"});
  ASSERT_TRUE(first.says(up)) << first.log();
  auto second = start();
  EXPECT_EQ(second.end(), 1);
  EXPECT_EQ(second.cause().kind, FailureCause::Class::transient);
  EXPECT_EQ(held(0), Bytes(0)) << "before it took a GPU";
}

TEST_F(VllmTest, SplitsItsModelOverGpus) {
  options().tensor_parallel_size = 2;
  options().gpu_memory_utilization = 0.5;
  options().max_model_len = 4096;
  auto vllm = start("weights=4GiB;activations=0B");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  EXPECT_EQ(held(0), held(1)) << "the cache has as many blocks on each, so the smaller card decides";
  EXPECT_LE(held(1), Bytes::mib(4096 - 256) + context);
  EXPECT_GT(held(1), Bytes::mib(4096 - 256 - 8) + context);

  options().tensor_parallel_size = 3;
  service_.port = free_port();
  auto third = start();
  EXPECT_EQ(third.end(), 1);
  EXPECT_THAT(third.cause().cause, HasSubstr("tensor_parallel_size 3 asks for more GPUs than the 2"));
}

TEST_F(VllmTest, SleepsAndWakesAtBothLevels) {
  service_.sleep = SleepAbility::level2;
  auto vllm = start("weights=8GiB;residual1=1100MiB;residual2=16GiB");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  const Bytes awake = held();
  const auto residency = [&] {
    return engine_.judge_residency(service_, *send(*engine_.residency_request(service_))).value();
  };
  EXPECT_EQ(residency(), Residency::running);

  ASSERT_TRUE(all_succeed(engine_.sleep_requests(service_, Residency::sleeping1)));
  EXPECT_EQ(held(), Bytes::mib(1100));
  EXPECT_EQ(residency(), Residency::sleeping2);  // it does not tell the level
  EXPECT_EQ(status_of("GET", "/health"), 200) << "health does not tell sleep";
  ASSERT_TRUE(all_succeed(engine_.wake_requests(service_, Residency::sleeping1)));
  EXPECT_EQ(held(), awake);
  EXPECT_EQ(probe().text, "I am Qwen/Qwen3-8B.");

  ASSERT_TRUE(all_succeed(engine_.sleep_requests(service_, Residency::sleeping2)));
  EXPECT_EQ(held(), Bytes::gib(16)) << "some builds keep much";
  ASSERT_TRUE(all_succeed(engine_.wake_requests(service_, Residency::sleeping2)));
  EXPECT_EQ(held(), awake);
  EXPECT_EQ(residency(), Residency::running);
  EXPECT_EQ(probe().text, "I am Qwen/Qwen3-8B.");
}

TEST_F(VllmTest, TalksGibberishWithoutItsWeights) {
  service_.sleep = SleepAbility::level2;
  auto vllm = start();
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  EXPECT_EQ(status_of("POST", "/sleep?level=2"), 200);
  EXPECT_EQ(status_of("POST", "/wake_up"), 200);
  const auto reply = send(*engine_.probe_request(service_));
  EXPECT_EQ(reply->status, 200);
  service_.probe.expect = "I am";
  EXPECT_FALSE(engine_.judge_probe(service_, *reply).ok) << reply->body;
  EXPECT_EQ(status_of("POST", "/collective_rpc", R"({"method":"nonsense"})"), 500);
  EXPECT_EQ(status_of("POST", "/collective_rpc", R"({"method":"reload_weights"})"), 200);
  EXPECT_TRUE(probe().ok);
}

TEST_F(VllmTest, StaysAsleepWhenItsMemoryIsTaken) {
  service_.sleep = SleepAbility::level1;
  auto vllm = start();
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  ASSERT_TRUE(all_succeed(engine_.sleep_requests(service_, Residency::sleeping1)));
  {
    Holder other({"--as", "game", "--holds", "10GiB"});
    const auto refused = ask("POST", "/wake_up");
    EXPECT_EQ(refused->status, 500);
    EXPECT_THAT(refused->body, HasSubstr("out of memory"));
    EXPECT_EQ(ask("GET", "/is_sleeping")->body, R"({"is_sleeping":true})");
  }
  EXPECT_EQ(status_of("POST", "/wake_up"), 200);
  EXPECT_EQ(ask("GET", "/is_sleeping")->body, R"({"is_sleeping":false})");
  EXPECT_TRUE(probe().ok);
}

TEST_F(VllmTest, ARequestToASleeperWaitsUntilItWakes) {
  service_.sleep = SleepAbility::level1;
  auto vllm = start();
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  EXPECT_EQ(status_of("POST", "/sleep"), 200);
  EXPECT_FALSE(chat(200ms)) << "it was answered asleep";
  auto waiting = engine_.probe_request(service_);
  std::optional<Result<HttpReply>> answer;
  loop_.spawn([](HttpClient& client, HttpRequest request, std::optional<Result<HttpReply>>& out) -> Task<void> {
    out.emplace(co_await client.request(std::move(request)));
  }(*client_, *waiting, answer));
  EXPECT_EQ(status_of("POST", "/wake_up"), 200);
  loop_.run();
  ASSERT_TRUE(answer && *answer);
  EXPECT_TRUE(engine_.judge_probe(service_, **answer).ok);
}

TEST_F(VllmTest, SleepEndsWhatIsBeingGenerated) {
  service_.sleep = SleepAbility::level1;
  auto vllm = start("tokens-per-second=0.01");
  ASSERT_TRUE(vllm.says(up)) << vllm.log();
  auto request = engine_.probe_request(service_);
  std::optional<Result<HttpReply>> answer;
  loop_.spawn([](HttpClient& client, HttpRequest asked, std::optional<Result<HttpReply>>& out) -> Task<void> {
    out.emplace(co_await client.request(std::move(asked)));
  }(*client_, *request, answer));
  ASSERT_TRUE(until([&] { return ask("GET", "/load")->body == R"({"server_load":1})"; }));
  EXPECT_EQ(status_of("POST", "/sleep"), 200);
  loop_.run();
  ASSERT_TRUE(answer && *answer);
  EXPECT_THAT((*answer)->body, HasSubstr(R"("finish_reason":"abort")"));
}

TEST_F(VllmTest, SleepNeedsTheModeAndTheFlag) {
  {
    auto plain = start();
    ASSERT_TRUE(plain.says(up)) << plain.log();
    EXPECT_EQ(status_of("POST", "/sleep"), 404);
    service_.sleep = SleepAbility::level1;
    const auto reply = send(*engine_.residency_request(service_));
    EXPECT_EQ(reply->body, R"({"detail":"Not Found"})");
    EXPECT_EQ(engine_.judge_residency(service_, *reply).value(), Residency::running);
    plain.kill(SIGTERM);
    EXPECT_EQ(plain.end(), 0);
  }
  // Without the flag it says yes and keeps everything: the bare 200 proves nothing.
  service_.sleep = SleepAbility::none;
  auto unable = start("", {"VLLM_SERVER_DEV_MODE=1"});
  ASSERT_TRUE(unable.says(up)) << unable.log();
  const Bytes before = held();
  EXPECT_EQ(status_of("POST", "/sleep"), 200);
  EXPECT_EQ(held(), before);
}

}  // namespace
}  // namespace gpumod::sim
