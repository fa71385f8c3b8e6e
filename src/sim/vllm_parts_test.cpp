// The simulated vLLM's pure parts: command line, options, memory, answers.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engines/engine.h"
#include "sim/vllm_answers.h"
#include "sim/vllm_command.h"
#include "sim/vllm_memory.h"
#include "sim/vllm_options.h"
#include "sim/vllm_process.h"

namespace gpumod::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

VllmCommand command_of(const std::vector<std::string>& words) {
  std::vector<std::string> arguments = {"serve"};
  arguments.insert(arguments.end(), words.begin(), words.end());
  auto parsed = parse_vllm(arguments);
  if (const auto* last = std::get_if<VllmLastWords>(&parsed)) {
    ADD_FAILURE() << last->text;
    return {};
  }
  return std::get<VllmCommand>(parsed);
}

VllmLastWords last_words_of(const std::vector<std::string>& arguments) {
  auto parsed = parse_vllm(arguments);
  if (std::holds_alternative<VllmCommand>(parsed)) {
    ADD_FAILURE() << "was understood";
    return {};
  }
  return std::get<VllmLastWords>(parsed);
}

FailureCause judged(const std::string& line) {
  LogLine entry;
  entry.text = line;
  return engine_for(EngineKind::vllm).classify({entry});
}

TEST(SimulatedVllmCommand, ReadsWhatTheRealOneReads) {
  auto command = command_of({"Qwen/Qwen3-8B"});
  EXPECT_EQ(command.model, "Qwen/Qwen3-8B");
  EXPECT_EQ(command.served_name(), "Qwen/Qwen3-8B");
  EXPECT_EQ(command.port, 8000);
  EXPECT_EQ(command.gpu_memory_utilization, 0.9);
  EXPECT_FALSE(command.max_model_len);
  EXPECT_FALSE(command.enable_sleep_mode);

  command = command_of({"/models/q",
                        "--port=7071",
                        "--host",
                        "127.0.0.1",
                        "--gpu_memory_utilization",
                        "0.35",
                        "--max-model-len",
                        "12k",
                        "-tp",
                        "2",
                        "--runner",
                        "pooling",
                        "--hf-overrides.a.b",
                        "1",
                        "--enforce-eager",
                        "--enable-sleep-mode",
                        "--no-enable-sleep-mode",
                        "--served-model-name",
                        "a",
                        "b",
                        "--kv-cache-memory-bytes",
                        "2G",
                        "--api-key",
                        "secret",
                        "--swap-space",
                        "0"});
  EXPECT_EQ(command.model, "/models/q");
  EXPECT_EQ(command.port, 7071);
  EXPECT_EQ(command.host, "127.0.0.1");
  EXPECT_EQ(command.gpu_memory_utilization, 0.35);
  EXPECT_EQ(command.max_model_len, 12000);
  EXPECT_EQ(command.tensor_parallel_size, 2);
  EXPECT_EQ(command.runner, "pooling");
  EXPECT_TRUE(command.enforce_eager);
  EXPECT_FALSE(command.enable_sleep_mode);
  EXPECT_THAT(command.served_names, ElementsAre("a", "b"));
  EXPECT_EQ(command.kv_cache_memory, Bytes::gib(2));
  EXPECT_THAT(command.api_keys, ElementsAre("secret"));

  EXPECT_EQ(command_of({"m", "--max-model-len", "-1"}).max_model_len, -1);
  EXPECT_EQ(command_of({"m", "--max-model-len", "2.5k"}).max_model_len, 2500);
  EXPECT_EQ(command_of({"m", "--max-model-len", "2K"}).max_model_len, 2048);
}

TEST(SimulatedVllmCommand, ComplainsAsArgparseDoes) {
  auto words = last_words_of({"serve", "m", "--gpu-memory-utilisation", "0.5"});
  EXPECT_EQ(words.exit_code, 2);
  EXPECT_THAT(words.text, EndsWith("vllm: error: unrecognized arguments: --gpu-memory-utilisation 0.5\n"));
  EXPECT_EQ(judged("vllm: error: unrecognized arguments: --gpu-memory-utilisation 0.5").kind,
            FailureCause::Class::configuration);
  EXPECT_THAT(last_words_of({"serve", "m", "--port", "x"}).text, HasSubstr("argument --port: invalid int value: 'x'"));
  EXPECT_THAT(last_words_of({"serve", "m", "--port"}).text, HasSubstr("argument --port: expected one argument"));
  EXPECT_THAT(last_words_of({"serve", "m", "--port", "--host", "a"}).text, HasSubstr("expected one argument"));
  EXPECT_THAT(last_words_of({"serve", "m", "--max-model-len", "2.5K"}).text, HasSubstr("invalid human_readable_int"));
  EXPECT_THAT(last_words_of({"serve", "m", "--dtype", "int8"}).text, HasSubstr("invalid choice: 'int8'"));
  EXPECT_THAT(last_words_of({"serve", "m", "n"}).text, EndsWith("unrecognized arguments: n\n"));
  EXPECT_EQ(last_words_of({"server", "m"}).exit_code, 2);
}

TEST(SimulatedVllmCommand, HelpNamesEveryFlagThatGpumodPasses) {
  const auto help = last_words_of({"serve", "--help=all"});
  EXPECT_EQ(help.exit_code, 0);
  Service service;
  service.id = "chat";
  service.engine = EngineKind::vllm;
  service.port = 7071;
  service.model.id = "Qwen/Qwen3-8B";
  service.model.served_name = "qwen";
  service.sleep = SleepAbility::level2;
  gpumod::VllmOptions options;
  options.gpu_memory_utilization = 0.35;
  options.max_model_len = 12288;
  options.max_num_seqs = 4;
  options.tensor_parallel_size = 2;
  options.dtype = "half";
  options.runner = "pooling";
  options.hf_overrides = "{}";
  options.enforce_eager = options.trust_remote_code = true;
  service.options = options;
  LaunchContext context;
  context.binary = "/usr/bin/vllm";
  const auto unit = engine_for(EngineKind::vllm).launch(service, context);
  ASSERT_TRUE(unit) << unit.error().message;
  EXPECT_TRUE(unknown_flags(unit->argv, help.text).empty());
  const std::vector<std::string> arguments(unit->argv.begin() + 1, unit->argv.end());
  const auto parsed = parse_vllm(arguments);
  ASSERT_TRUE(std::holds_alternative<VllmCommand>(parsed)) << std::get<VllmLastWords>(parsed).text;
  EXPECT_TRUE(std::get<VllmCommand>(parsed).enable_sleep_mode);

  const auto wrong = unknown_flags({"vllm", "serve", "m", "--max-model-length", "1"}, help.text);
  ASSERT_EQ(wrong.size(), 1u);
  EXPECT_EQ(wrong[0].nearest, "--max-model-len");
  EXPECT_THAT(last_words_of({"serve", "--help"}).text, HasSubstr("--help=all"));
  EXPECT_EQ(last_words_of({"--version"}).text, fmt::format("{}\n", vllm_version));
}

Result<VllmBehaviour> behaviour_of(std::string_view text) {
  auto options = Options::parse(text);
  EXPECT_TRUE(options);
  return vllm_behaviour(*options);
}

TEST(SimulatedVllmOptions, AreRead) {
  const auto read = behaviour_of("weights=15GiB;residual=2GiB;residual2=16GiB;fault=wedged, crash-after=5s;dims=384");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->weights, Bytes::gib(15));
  EXPECT_EQ(read->residual1, Bytes::gib(2));
  EXPECT_EQ(read->residual2, Bytes::gib(16));
  EXPECT_EQ(read->dimensions, 384);
  EXPECT_EQ(read->crash_after, 5s);
  EXPECT_TRUE(read->has("wedged"));
  EXPECT_FALSE(read->has("hang-load"));
}

TEST(SimulatedVllmOptions, AMisspeltFaultIsNoAbsentFault) {
  for (const char* text : {"fault=wegded", "weight=1GiB", "weights=lots", "tokens-per-second=0", "shards=0"}) {
    const auto read = behaviour_of(text);
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error().code, ErrorCode::usage);
  }
  EXPECT_THAT(behaviour_of("fault=wegded").error().hint, HasSubstr("wedged"));
}

TEST(SimulatedVllmMemory, TheClaimIsComparedWithWhatIsFree) {
  const Bytes total = Bytes::gib(24);
  EXPECT_EQ(claim(Bytes(1001), 0.5), Bytes(501));
  EXPECT_TRUE(check_free_memory(0, claim(total, 0.9), total, 0.9));
  const auto refused = check_free_memory(0, Bytes::gib(12), total, 0.9);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message,
              HasSubstr("Free memory on device cuda:0 (12.0/24.0 GiB) on startup is less than desired GPU memory "
                        "utilization (0.9, 21.6 GiB)"));
  const auto cause = judged(refused.error().message);
  EXPECT_EQ(cause.kind, FailureCause::Class::transient);
  EXPECT_THAT(cause.cause, HasSubstr("only 12.0 of 24.0 GiB"));
}

TEST(SimulatedVllmMemory, ARiseWhileItMeasuresIsToldAndAFallIsNot) {
  EXPECT_TRUE(check_profile(Bytes::gib(8), Bytes::gib(8)));
  EXPECT_TRUE(check_profile(Bytes::gib(8), Bytes::gib(7)));
  const auto refused = check_profile(Bytes::gib(8), Bytes::gib(10));
  ASSERT_FALSE(refused);
  const auto cause = judged(refused.error().message);
  EXPECT_EQ(cause.kind, FailureCause::Class::transient);
  EXPECT_THAT(cause.cause, HasSubstr("8.0 GiB, after: 10.0 GiB"));
}

TEST(SimulatedVllmMemory, TheCacheGetsWhatIsLeft) {
  VllmCommand command;
  command.gpu_memory_utilization = 0.5;
  VllmBehaviour behaviour;
  behaviour.weights = Bytes::gib(8);
  behaviour.activations = Bytes::gib(1);
  behaviour.kv_per_token = Bytes::mib(1);
  behaviour.max_len = 2000;
  const auto cache = plan_kv_cache(command, behaviour, Bytes::gib(24));
  ASSERT_TRUE(cache) << cache.error().message;
  EXPECT_EQ(cache->size, Bytes::gib(3));
  EXPECT_EQ(cache->tokens, 3072);
  EXPECT_EQ(cache->max_model_len, 2000);

  command.kv_cache_memory = Bytes::gib(2);
  EXPECT_EQ(plan_kv_cache(command, behaviour, Bytes::gib(24))->size, Bytes::gib(2));

  // Over two GPUs, each has half of the model and half of every token.
  command.kv_cache_memory.reset();
  command.tensor_parallel_size = 2;
  EXPECT_EQ(plan_kv_cache(command, behaviour, Bytes::gib(24))->size, Bytes::mib(7680));
  EXPECT_EQ(plan_kv_cache(command, behaviour, Bytes::gib(24))->tokens, 15360);
}

TEST(SimulatedVllmMemory, WhatDoesNotFitIsRefusedWithTheLengthThatWould) {
  VllmCommand command;
  VllmBehaviour behaviour;
  behaviour.weights = Bytes::gib(22);
  const auto none = plan_kv_cache(command, behaviour, Bytes::gib(24));
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, HasSubstr("No available memory for the cache blocks"));
  EXPECT_EQ(judged(none.error().message).kind, FailureCause::Class::configuration);

  behaviour.weights = Bytes::gib(20);
  command.max_model_len = 32768;
  const auto refused = plan_kv_cache(command, behaviour, Bytes::gib(24));
  ASSERT_FALSE(refused);
  const auto cause = judged(refused.error().message);
  EXPECT_EQ(cause.kind, FailureCause::Class::configuration);
  EXPECT_THAT(cause.cause, HasSubstr("max_model_len 32768 needs 4.50 GiB of KV cache, and 1.35 GiB are left"));
  // The proposal is true: with it, it fits, and with one block more it does not.
  const auto at = cause.remedy.find_first_of("0123456789");
  ASSERT_NE(at, std::string::npos) << cause.remedy;
  command.max_model_len = std::stoll(cause.remedy.substr(at));
  EXPECT_TRUE(plan_kv_cache(command, behaviour, Bytes::gib(24)));
  command.max_model_len = *command.max_model_len + 1;
  EXPECT_FALSE(plan_kv_cache(command, behaviour, Bytes::gib(24)));
  command.max_model_len = -1;
  EXPECT_EQ(plan_kv_cache(command, behaviour, Bytes::gib(24))->max_model_len,
            plan_kv_cache(command, behaviour, Bytes::gib(24))->tokens);
}

TEST(SimulatedVllmAnswers, AreCutIntoTokens) {
  EXPECT_THAT(tokens_of("I am it.\n"), ElementsAre("I", " am", " it.", "\n"));
  EXPECT_THAT(tokens_of(" a  b"), ElementsAre(" a", "  b"));
  EXPECT_TRUE(tokens_of("").empty());
  EXPECT_EQ(filled_answer("{model}: {prompt}", "m", "hi {model}"), "m: hi {model}");
}

double product(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    sum += a[i] * b[i];
  return sum;
}

TEST(SimulatedVllmAnswers, EmbeddingsAreUnitVectorsThatTellTextsApart) {
  const auto cat = embedding_of("a cat sits on the mat", 64);
  ASSERT_EQ(cat.size(), 64u);
  EXPECT_NEAR(product(cat, cat), 1, 1e-9);
  EXPECT_EQ(cat, embedding_of("a cat sits on the mat", 64));
  const auto near = product(cat, embedding_of("the cat sits there", 64));
  const auto far = product(cat, embedding_of("quarterly revenue grew", 64));
  EXPECT_GT(near, far);
  EXPECT_LT(far, 0.9);
  EXPECT_NEAR(product(embedding_of("", 8), embedding_of("", 8)), 1, 1e-9);
}

}  // namespace
}  // namespace gpumod::sim
