#include "engines/launching.h"

#include "engines/hub.h"
#include "engines/testing.h"

namespace gpumod {
namespace {

using namespace testing_engines;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Service command_service() {
  Service service;
  service.id = "tts";
  service.engine = EngineKind::command;
  service.port = 9100;
  CommandOptions options;
  options.cmd = {"server", "--listen=${HOST}:${PORT}", "${PORT}${PORT}", "$PORT", "a b;c"};
  options.cmd_stop = {"docker", "stop", "tts-${PORT}"};
  service.options = options;
  return service;
}

TEST(CommandLaunch, EachElementIsOneArgument) {
  const auto& engine = engine_for(EngineKind::command);
  auto launch = context("/opt/server");
  launch.stop_binary = "/usr/bin/docker";
  const auto unit = engine.launch(command_service(), launch);
  ASSERT_TRUE(unit) << unit.error().message;
  EXPECT_THAT(unit->argv, ElementsAre("/opt/server", "--listen=127.0.0.1:9100", "91009100", "$PORT", "a b;c"));
  EXPECT_THAT(unit->stop_argv, ElementsAre("/usr/bin/docker", "stop", "tts-9100"));
  EXPECT_EQ(variable(*unit, "GPUMOD_SERVICE"), "tts");
  EXPECT_EQ(engine.binary_name(command_service()), "");
}

TEST(CommandLaunch, RefusesWhatCannotRun) {
  const auto& engine = engine_for(EngineKind::command);
  EXPECT_THAT(engine.launch(command_service(), context("/opt/server")).error().message, HasSubstr("cmd_stop"));
  auto service = command_service();
  service.port = 0;
  EXPECT_THAT(engine.launch(service, context("/opt/server")).error().message, HasSubstr("${PORT}"));
  service.options = CommandOptions{};
  EXPECT_THAT(engine.launch(service, context("/opt/server")).error().message, HasSubstr("no cmd"));
  service = command_service();
  EXPECT_FALSE(engine.launch(service, context("server")));
}

TEST(CommandReadiness, OnlyADeclaredPathIsAsked) {
  const auto& engine = engine_for(EngineKind::command);
  auto service = command_service();
  EXPECT_FALSE(engine.readiness_request(service));
  EXPECT_FALSE(engine.probe_request(service));
  EXPECT_FALSE(engine.identity_request(service));
  service.health_path = "/up";
  EXPECT_EQ(engine.readiness_request(service)->target, "/up");
  EXPECT_EQ(engine.judge_readiness(service, reply(204, "")).state, ReadinessVerdict::State::ready);
  const auto verdict = engine.judge_readiness(service, reply(500, "no"));
  EXPECT_EQ(verdict.state, ReadinessVerdict::State::not_yet);
  EXPECT_EQ(verdict.reason, "/up answers status 500: no");
  service.probe.kind = ProbeKind::chat;
  EXPECT_EQ(engine.probe_request(service)->target, "/v1/chat/completions");
  EXPECT_THAT(engine.help_arguments(service), IsEmpty());
}

TEST(FastapiLaunch, Uvicorn) {
  const auto& engine = engine_for(EngineKind::fastapi);
  Service service;
  service.id = "asr";
  service.engine = EngineKind::fastapi;
  service.port = 8203;
  service.working_directory = "/srv/asr";
  FastapiOptions options;
  options.app = "asr.main:app";
  options.workers = 2;
  service.options = options;
  const auto unit = engine.launch(service, context("/srv/asr/venv/bin/uvicorn"));
  ASSERT_TRUE(unit) << unit.error().message;
  EXPECT_THAT(unit->argv, ElementsAre("/srv/asr/venv/bin/uvicorn", "asr.main:app", "--port", "8203", "--host",
                                      "127.0.0.1", "--workers", "2"));
  EXPECT_EQ(unit->working_directory, "/srv/asr");
  EXPECT_EQ(variable(*unit, "VIRTUAL_ENV"), "/srv/asr/venv");
  service.options = FastapiOptions{};
  EXPECT_EQ(engine.launch(service, context("/usr/bin/uvicorn")).error().code, ErrorCode::configuration);
}

TEST(VirtualEnvironment, IsTheFolderAboveItsBin) {
  EXPECT_EQ(virtual_environment_of("/home/u/v/bin/vllm"), "/home/u/v");
  for (const char* none :
       {"/usr/bin/vllm", "/usr/local/bin/vllm", "/bin/vllm", "/home/u/.local/bin/vllm", "/opt/llama/server"})
    EXPECT_EQ(virtual_environment_of(none), "") << none;
}

TEST(ConnectHost, NeverAWildcard) {
  Service service;
  EXPECT_EQ(connect_host(service), "127.0.0.1");
  service.host = "0.0.0.0";
  EXPECT_EQ(connect_host(service), "127.0.0.1");
  service.host = "::";
  EXPECT_EQ(connect_host(service), "::1");
  service.host = "192.168.1.7";
  EXPECT_EQ(connect_host(service), "192.168.1.7");
}

TEST(ModelName, OfOtherEngines) {
  auto service = vllm_service();
  EXPECT_EQ(model_name(service), "Qwen/Qwen3-8B");
  service.model.path = "/data/qwen";
  EXPECT_EQ(model_name(service), "/data/qwen");
  service.model.served_name = "q";
  EXPECT_EQ(model_name(service), "q");
  EXPECT_EQ(model_name(command_service()), "tts");
}

TEST(Hub, NamesAndPlaces) {
  EXPECT_EQ(hub_model_dir("Qwen/Qwen3-8B", "/c/hub"), "/c/hub/models--Qwen--Qwen3-8B");
  EXPECT_EQ(hub_snapshot_dir("gpt2", "/c/hub"), "/c/hub/models--gpt2/snapshots");
  for (const char* bad : {"", "../x", "a/b/c", "/abs/path", "a/", "a b/c", "a--b/c", ".hidden/x"})
    EXPECT_EQ(hub_snapshot_dir(bad, "/c"), "") << bad;
  EXPECT_EQ(hub_root_from("", "", "", "/home/u"), "/home/u/.cache/huggingface/hub");
  EXPECT_EQ(hub_root_from("", "", "/x", "/home/u"), "/x/huggingface/hub");
  EXPECT_EQ(hub_root_from("", "/hf", "/x", "/home/u"), "/hf/hub");
  EXPECT_EQ(hub_root_from("/direct", "/hf", "/x", "/home/u"), "/direct");
  EXPECT_TRUE(is_hub_offline("Yes"));
  EXPECT_FALSE(is_hub_offline("0"));
  EXPECT_EQ(download_command("Qwen/Qwen3-8B"), "hf download Qwen/Qwen3-8B");
  EXPECT_EQ(download_command("Org/M", {"q4.gguf", "a b.gguf", "$(reboot).gguf", "it's"}),
            R"(hf download Org/M q4.gguf 'a b.gguf' '$(reboot).gguf' 'it'\''s')");
}

TEST(Requests, CarryTheKeyThatTheServerAsksFor) {
  Service service;
  service.id = "chat";
  service.port = 7070;
  service.engine = EngineKind::llamacpp;
  service.options = LlamaOptions();
  const auto key = [&] { return engine_for(service.engine).identity_request(service)->bearer; };
  EXPECT_EQ(key(), "");
  service.inherited_environment["LLAMA_API_KEY"] = Secret("of-all");
  EXPECT_EQ(key(), "of-all");
  service.environment["LLAMA_API_KEY"] = Secret("first,second");
  EXPECT_EQ(key(), "first");
  service.extra_args = {"--api-key", "a", "--api-key=b", "--api-key-file", "/etc/keys"};
  EXPECT_EQ(key(), "b") << "the command line has the last word, and its last word counts";
  EXPECT_EQ(engine_for(service.engine).probe_request(service)->bearer, "b");

  service.engine = EngineKind::vllm;
  service.options = VllmOptions();
  service.extra_args.clear();
  EXPECT_EQ(key(), "") << "not its variable";
  service.environment["VLLM_API_KEY"] = Secret("v");
  EXPECT_EQ(key(), "v");
}

TEST(Requests, WhoRefusesForWantOfAKeySaysWhereItBelongs) {
  Service service;
  service.engine = EngineKind::llamacpp;
  service.options = LlamaOptions();
  const auto refused =
      engine_for(service.engine).judge_identity(service, reply(401, R"({"error":{"message":"Invalid API Key"}})"));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("401"));
  EXPECT_THAT(refused.error().hint, HasSubstr("LLAMA_API_KEY"));
}

}  // namespace
}  // namespace gpumod
