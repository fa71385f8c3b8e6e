#include "engines/testing.h"

namespace gpumod {
namespace {

using namespace testing_engines;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const Engine& engine = engine_for(EngineKind::llamacpp);

TEST(LlamaLaunch, OneModel) {
  auto service = llama_service();
  service.model.served_name = "qwen";
  auto& options = llama_of(service);
  options.context_size = 8192;
  options.gpu_layers = 99;
  options.threads = 6;
  options.n_cpu_moe = 4;
  options.flash_attention = "on";
  options.pooling = "mean";
  options.jinja = true;
  options.embeddings = true;
  service.extra_args = {"--metrics"};
  const auto unit = engine.launch(service, context("/opt/llama/llama-server"));
  ASSERT_TRUE(unit) << unit.error().message;
  EXPECT_THAT(unit->argv, ElementsAre("/opt/llama/llama-server", "--model", "/models/qwen-8b.gguf", "--alias", "qwen",
                                      "--port", "8080", "--host", "127.0.0.1", "--offline", "--ctx-size", "8192",
                                      "--n-gpu-layers", "99", "--threads", "6", "--n-cpu-moe", "4", "--flash-attn",
                                      "on", "--pooling", "mean", "--jinja", "--embeddings", "--metrics"));
  EXPECT_EQ(variable(*unit, "GGML_NO_BACKTRACE"), "1");
  EXPECT_EQ(variable(*unit, "GPUMOD_SERVICE"), "bge");
}

TEST(LlamaLaunch, NeedsAModel) {
  auto service = llama_service();
  service.model.path.clear();
  EXPECT_EQ(engine.launch(service, context("/x/llama-server")).error().code, ErrorCode::configuration);
  service.model.id = "ggml-org/gemma:Q4_K_M";
  const auto unit = engine.launch(service, context("/x/llama-server"));
  ASSERT_TRUE(unit);
  EXPECT_EQ(after(unit->argv, "--hf-repo"), "ggml-org/gemma:Q4_K_M");
}

TEST(LlamaReadiness, LoadingIsNotReady) {
  const auto service = llama_service();
  using State = ReadinessVerdict::State;
  EXPECT_EQ(engine.readiness_request(service)->target, "/health");
  EXPECT_EQ(engine.judge_readiness(service, reply(503, R"({"error":{"message":"Loading model"}})")).state,
            State::not_yet);
  EXPECT_EQ(engine.judge_readiness(service, reply(200, R"({"status":"ok"})")).state, State::ready);
}

TEST(LlamaResidency, OfOneModel) {
  const auto service = llama_service();
  EXPECT_EQ(engine.residency_request(service)->target, "/props");
  EXPECT_EQ(engine.judge_residency(service, reply(503, "")).value(), Residency::starting);
  EXPECT_EQ(engine.judge_residency(service, reply(200, R"({"is_sleeping":true})")).value(), Residency::sleeping1);
  EXPECT_EQ(engine.judge_residency(service, reply(200, R"({"is_sleeping":false})")).value(), Residency::running);
  EXPECT_EQ(engine.judge_residency(service, reply(401, "")).value(), Residency::running);
  EXPECT_FALSE(engine.load_request(service));
  EXPECT_FALSE(engine.unload_request(service));
  EXPECT_FALSE(engine.judge_load(service, reply(200, "{}")));
}

TEST(LlamaIdentity, IsTheFileItLoaded) {
  auto service = llama_service();
  const auto props = [](const char* path, const char* alias) {
    return reply(200, fmt::format(R"({{"model_path":"{}","model_alias":"{}"}})", path, alias));
  };
  EXPECT_TRUE(engine.judge_identity(service, props("/models/qwen-8b.gguf", "x")));
  const auto wrong = engine.judge_identity(service, props("/models/old.gguf", "x"));
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().message, "port 8080 serves /models/old.gguf, not /models/qwen-8b.gguf");
  EXPECT_FALSE(engine.judge_identity(service, props("/elsewhere/qwen-8b.gguf", "x")));
  service.unit = "mine.service";
  EXPECT_TRUE(engine.judge_identity(service, props("/elsewhere/qwen-8b.gguf", "x")));
  EXPECT_THAT(engine.judge_identity(service, reply(200, R"({"role":"router","model_path":"none"})")).error().message,
              HasSubstr("as a router"));
  EXPECT_FALSE(engine.judge_identity(service, reply(200, R"({"hello":1})")));
  EXPECT_FALSE(engine.judge_identity(service, reply(200, "[]")));
}

TEST(LlamaIdentity, WithoutAFileTheNameDecides) {
  auto service = llama_service();
  service.model.path.clear();
  service.model.id = "ggml-org/gemma-3:Q4_K_M";
  const auto props = [](const char* path, const char* alias) {
    return reply(200, fmt::format(R"({{"model_path":"{}","model_alias":"{}"}})", path, alias));
  };
  EXPECT_TRUE(engine.judge_identity(service, props("/c/ggml-org_gemma-3_q4.gguf", "")));
  EXPECT_TRUE(engine.judge_identity(service, props("/c/models--ggml-org--gemma-3/s/q4.gguf", "")));
  EXPECT_FALSE(engine.judge_identity(service, props("/c/other.gguf", "other")));
  service.model.served_name = "gemma";
  EXPECT_TRUE(engine.judge_identity(service, props("/c/x.gguf", "gemma")));
}

TEST(LlamaProbe, OnlyADeclaredNameIsHeldAgainstIt) {
  auto service = llama_service();
  const auto answer = reply(200, R"({"model":"/models/qwen-8b.gguf","choices":[{"message":{"content":"OK"}}]})");
  EXPECT_TRUE(engine.judge_probe(service, answer).ok);
  service.model.served_name = "qwen";
  EXPECT_FALSE(engine.judge_probe(service, answer).ok);
  llama_of(service).embeddings = true;
  EXPECT_EQ(engine.probe_request(service)->target, "/v1/embeddings");
}

// --- router ---

TEST(RouterName, IsTheRoutersOwn) {
  auto service = router_service("a");
  EXPECT_EQ(model_name(service), "a");
  service.model.served_name.clear();
  EXPECT_EQ(model_name(service), "a");
  service.model.id = "org/name";
  EXPECT_EQ(model_name(service), "org/name");
  service.model.path = "/models/qwen.Q4.gguf";
  EXPECT_EQ(model_name(service), "qwen.Q4");
  service.model.path = "/models/big/part-00001-of-00002.gguf";
  EXPECT_EQ(model_name(service), "big");
  service.model.path = "/other/deep/x.gguf";
  EXPECT_EQ(model_name(service), "x");
}

TEST(RouterLaunch, OneMember) {
  auto service = router_service("qwen");
  llama_of(service).models_max = 1;
  llama_of(service).context_size = 4096;
  const auto unit = engine.launch(service, context("/x/llama-server"));
  ASSERT_TRUE(unit) << unit.error().message;
  EXPECT_THAT(unit->argv,
              ElementsAre("/x/llama-server", "--models-dir", "/models", "--models-max", "1", "--no-models-autoload",
                          "--port", "7070", "--host", "127.0.0.1", "--offline", "--ctx-size", "4096"));
  EXPECT_EQ(unit->name, "gpumod-router-big.service");
  EXPECT_EQ(unit->tag, "big");
  EXPECT_EQ(variable(*unit, "GPUMOD_SERVICE"), "big");
}

TEST(RouterLaunch, MembersThatAgreeNeedNoPreset) {
  auto a = router_service("a");
  auto b = router_service("b");
  for (auto* service : {&a, &b}) {
    llama_of(*service).context_size = 4096;
    service->extra_args = {"--metrics"};
  }
  llama_of(a).models_max = 1;
  llama_of(b).models_max = 2;
  llama_of(a).no_models_autoload = false;
  a.environment.emplace("A", Secret("1"));
  b.environment.emplace("B", Secret("2"));
  a.stop_timeout = 5s;
  b.stop_timeout = 40s;
  const std::vector<const Service*> members{&a, &b};
  EXPECT_EQ(router_preset(members).value(), std::nullopt);
  auto launch = context("/x/llama-server");
  launch.router_members = members;
  const auto unit = engine.launch(a, launch);
  ASSERT_TRUE(unit) << unit.error().message;
  EXPECT_EQ(after(unit->argv, "--models-max"), "2");
  EXPECT_EQ(after(unit->argv, "--ctx-size"), "4096");
  EXPECT_THAT(unit->argv, Contains("--no-models-autoload"));
  EXPECT_THAT(unit->argv, Contains("--metrics").Times(1));
  EXPECT_EQ(variable(*unit, "A"), "1");
  EXPECT_EQ(variable(*unit, "B"), "2");
  EXPECT_EQ(unit->stop_timeout, 40s);
}

TEST(RouterLaunch, WhatDiffersGoesIntoAPresetAndNotOnTheCommandLine) {
  auto chat = router_service("chat");
  llama_of(chat).context_size = 32768;
  llama_of(chat).gpu_layers = 99;
  auto embed = router_service("embed");
  llama_of(embed).context_size = 512;
  llama_of(embed).gpu_layers = 99;
  llama_of(embed).embeddings = true;
  auto outside = router_service("outside");
  llama_of(outside).gpu_layers = 99;
  outside.model.path = "/elsewhere/x.gguf";
  const std::vector<const Service*> members{&chat, &embed, &outside};
  const auto preset = router_preset(members);
  ASSERT_TRUE(preset) << preset.error().message;
  EXPECT_EQ(*preset,
            "version = 1\n\n[chat]\nctx-size = 32768\n\n[embed]\nctx-size = 512\nembeddings = true\n\n"
            "[outside]\nmodel = /elsewhere/x.gguf\n");
  auto launch = context("/x/llama-server");
  launch.router_members = members;
  EXPECT_FALSE(engine.launch(chat, launch));  // the preset was not written
  launch.router_preset = "/run/big.ini";
  const auto unit = engine.launch(chat, launch);
  ASSERT_TRUE(unit) << unit.error().message;
  EXPECT_EQ(after(unit->argv, "--models-preset"), "/run/big.ini");
  EXPECT_EQ(after(unit->argv, "--n-gpu-layers"), "99");
  EXPECT_THAT(unit->argv, Not(Contains("--ctx-size")));
  EXPECT_THAT(unit->argv, Not(Contains("--embeddings")));
}

TEST(RouterLaunch, WhatOneProcessCannotGiveIsRefused) {
  auto launch = context("/x/llama-server");
  const auto a = router_service("a");
  const auto refuse = [&](const Service& b) {
    launch.router_members = {&a, &b};
    const auto unit = engine.launch(a, launch);
    EXPECT_FALSE(unit);
    return unit                                            ? std::string()
           : unit.error().code == ErrorCode::configuration ? unit.error().message
                                                           : "not configuration";
  };
  auto b = router_service("b");
  b.port = 7071;
  EXPECT_EQ(refuse(b), "services 'a' and 'b' share the router 'big' but differ in port");
  b = router_service("b");
  llama_of(b).models_dir = "/other";
  EXPECT_THAT(refuse(b), HasSubstr("models_dir"));
  b = router_service("b");
  llama_of(b).models_dir.clear();
  EXPECT_THAT(refuse(b), HasSubstr("no router's model"));
  b = router_service("b");
  llama_of(b).models_preset = "/people.ini";
  llama_of(b).context_size = 5;
  EXPECT_THAT(refuse(b), HasSubstr("models_preset of its own"));
  b = router_service("b");
  llama_of(b).flash_attention = "on\nload-on-startup = true";
  EXPECT_THAT(refuse(b), HasSubstr("cannot stand in a models preset"));
  b = router_service("b");
  b.model.served_name = "x]\n[y";
  llama_of(b).context_size = 5;
  EXPECT_THAT(refuse(b), HasSubstr("cannot stand in a models preset"));
}

TEST(RouterLaunch, TwoValuesOfOneVariableAreRefusedWithoutShowingThem) {
  auto a = router_service("a");
  auto b = router_service("b");
  a.environment.emplace("TOKEN", Secret("one"));
  b.environment.emplace("TOKEN", Secret("two"));
  auto launch = context("/x/llama-server");
  launch.router_members = {&a, &b};
  const auto unit = engine.launch(a, launch);
  ASSERT_FALSE(unit);
  EXPECT_THAT(unit.error().message, HasSubstr("TOKEN"));
  EXPECT_THAT(unit.error().message, Not(HasSubstr("two")));
}

TEST(RouterLoad, AsksForItsModel) {
  const auto service = router_service("qwen");
  const auto load = engine.load_request(service);
  ASSERT_TRUE(load);
  EXPECT_EQ(load->method, "POST");
  EXPECT_EQ(load->target, "/models/load");
  EXPECT_EQ(load->body, R"({"model":"qwen"})");
  EXPECT_EQ(engine.unload_request(service)->target, "/models/unload");
}

TEST(RouterLoad, Judged) {
  const auto service = router_service("qwen");
  const auto error = [](int code, const char* text) {
    return reply(code, fmt::format(R"({{"error":{{"code":{},"message":"{}"}}}})", code, text));
  };
  EXPECT_TRUE(engine.judge_load(service, reply(200, R"({"success":true})")));
  EXPECT_FALSE(engine.judge_load(service, reply(200, R"({"success":false})")));
  EXPECT_TRUE(engine.judge_load(service, error(400, "model is already running")));
  EXPECT_EQ(engine.judge_load(service, error(404, "File Not Found")).error().code, ErrorCode::configuration);
  EXPECT_EQ(engine.judge_load(service, error(400, "model 'qwen' not found")).error().code, ErrorCode::configuration);
  EXPECT_THAT(engine.judge_load(service, error(500, "model limit reached, try again later")).error().hint,
              HasSubstr("models_max"));
  EXPECT_EQ(engine.judge_load(service, error(400, "bad request")).error().code, ErrorCode::failed);

  EXPECT_TRUE(engine.judge_unload(service, reply(200, R"({"success":true})")));
  EXPECT_TRUE(engine.judge_unload(service, error(400, "model is not running")));
  EXPECT_TRUE(engine.judge_unload(service, error(400, "model is not loaded")));
  EXPECT_FALSE(engine.judge_unload(service, error(404, "File Not Found")));
  EXPECT_FALSE(engine.judge_unload(service, error(500, "no")));
}

TEST(RouterResidency, EveryStatus) {
  const auto service = router_service("qwen");
  EXPECT_EQ(engine.residency_request(service)->target, "/models");
  const auto with = [&](const std::string& status) {
    return reply(
        200, fmt::format(R"({{"data":[{{"id":"other","status":{{"value":"loaded"}}}},{{"id":"qwen","status":{}}}]}})",
                         status));
  };
  const auto residency = [&](const std::string& status) { return engine.judge_residency(service, with(status)); };
  EXPECT_EQ(residency(R"({"value":"loaded"})").value(), Residency::running);
  EXPECT_EQ(residency(R"({"value":"loading"})").value(), Residency::starting);
  EXPECT_EQ(residency(R"({"value":"unloaded"})").value(), Residency::unloaded);
  EXPECT_EQ(residency(R"({"value":"sleeping"})").value(), Residency::sleeping1);
  EXPECT_EQ(residency(R"("loaded")").value(), Residency::running);
  EXPECT_FALSE(residency(R"({"value":"dreaming"})"));
  EXPECT_FALSE(residency("null"));
  const auto failed = R"({"value":"unloaded","failed":true,"exit_code":1})";
  EXPECT_EQ(residency(failed).value(), Residency::failed);
  EXPECT_THAT(engine.failure_reason(service, with(failed)), HasSubstr("exit code 1"));
  EXPECT_EQ(engine.failure_reason(service, with(R"({"value":"unloaded"})")), "");
}

TEST(RouterResidency, AnUnknownModelIsAMatterOfConfigurationWithTheNearestNames) {
  const auto service = router_service("qwne");
  const auto residency = engine.judge_residency(
      service, reply(200, R"({"data":[{"id":"qwen","status":{"value":"loaded"}},{"id":"bge"}]})"));
  ASSERT_FALSE(residency);
  EXPECT_EQ(residency.error().code, ErrorCode::configuration);
  EXPECT_EQ(residency.error().message, "the router on port 7070 has no model 'qwne'");
  EXPECT_EQ(residency.error().hint, "Did you mean 'qwen'?");
}

TEST(RouterResidency, HostileAnswers) {
  const auto service = router_service("qwen");
  for (const char* body :
       {"", "null", "[]", "7", R"({"data":7})", R"({"data":[7,null,[],"x"]})", R"({"data":[{"id":7}]})",
        R"({"data":[{"id":"qwen"}]})", R"({"data":[{"id":"qwen","status":7}]})", "<html></html>",
        R"({"data":[{"id":"qwen","status":{"value":{}}}]})"}) {
    EXPECT_FALSE(engine.judge_residency(service, reply(200, body))) << body;
    EXPECT_FALSE(engine.judge_identity(service, reply(200, body))) << body;
    EXPECT_EQ(engine.failure_reason(service, reply(200, body)), "");
  }
  EXPECT_FALSE(engine.judge_residency(service, reply(200, std::string(100'000, '['))));
  EXPECT_FALSE(engine.judge_residency(service, reply(500, "{}")));
}

TEST(RouterIdentity, IsTheLoadedModelFromItsFile) {
  auto service = router_service("qwen");
  const auto listed = [](const char* value, const char* file) {
    return reply(
        200, fmt::format(R"({{"data":[{{"id":"qwen","status":{{"value":"{}","args":["x","--model","{}"]}}}}]}})", value,
                         file));
  };
  EXPECT_TRUE(engine.judge_identity(service, listed("loaded", "any.gguf")));
  EXPECT_FALSE(engine.judge_identity(service, listed("unloaded", "any.gguf")));
  service.model.path = "/models/qwen.gguf";
  EXPECT_TRUE(engine.judge_identity(service, listed("loaded", "models/qwen.gguf")));
  EXPECT_THAT(engine.judge_identity(service, listed("loaded", "/models/other.gguf")).error().message,
              HasSubstr("other.gguf"));
}

TEST(RouterProbe, NamesItsModel) {
  const auto service = router_service("qwen");
  EXPECT_THAT(engine.probe_request(service)->body, HasSubstr(R"("model":"qwen")"));
  EXPECT_FALSE(
      engine.judge_probe(service, reply(200, R"({"model":"bge","choices":[{"message":{"content":"OK"}}]})")).ok);
}

}  // namespace
}  // namespace gpumod
