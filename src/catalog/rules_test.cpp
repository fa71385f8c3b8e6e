// Every rule of a service, a mode and the settings, as the line that a person would read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"
#include "catalog/test_folder.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

std::optional<std::string> ada(const std::string& name) {
  if (name == "HOME") return "/home/ada";
  return std::nullopt;
}

Catalog service_of(const std::string& text) {
  return read_catalog_text(FileKind::service, "services/x.yaml", text, ada);
}

const std::string command = "engine: command\ncmd: run\n";
const std::string vllm = "engine: vllm\nport: 8000\nmodel: a/b\n";
const std::string llama = "engine: llamacpp\nport: 8080\nmodel: /m/x.gguf\n";
const std::string routed = "engine: llamacpp\nport: 8080\nmodels_dir: /m\nmodel: x\n";

struct Rule {
  std::string text;
  std::string line;  ///< how the only problem begins, after "services/x.yaml:"
};

class Rules : public ::testing::TestWithParam<Rule> {};

TEST_P(Rules, one_problem_at_its_place) {
  const auto& rule = GetParam();
  const auto catalog = service_of(rule.text);
  const auto lines = testing::lines_of(catalog.problems);
  ASSERT_EQ(lines.size(), 1u) << rule.text << join(lines, "\n");
  EXPECT_THAT(lines.front(), StartsWith("services/x.yaml:" + rule.line));
  const bool error = catalog.problems.front().severity == Severity::error;
  EXPECT_EQ(catalog.services.empty(), error);
  EXPECT_EQ(catalog.broken_services.contains("x"), error);
}

INSTANTIATE_TEST_SUITE_P(
    Services, Rules,
    ::testing::Values(
        Rule{"", "1:1: error: the file is empty"},
        Rule{"just words\n", "1:1: error: expected a service: a map of keys, found a"},
        Rule{"- a\n", "1:1: error: expected a service: a map of keys, found a list"},
        Rule{"name: x\n", "1:1: error: the key 'engine' is missing. Expected one of vllm,"},
        Rule{"engine: vlm\n",
             "1:9: error: expected one of vllm, llamacpp, fastapi, command, found 'vlm'. Did you mean 'vllm'?"},
        Rule{"engine: docker\n", "1:9: error: there is no engine docker. Write `engine: command`"},
        Rule{command + "prot: 1\n", "3:1: error: unknown key 'prot'. Did you mean 'port' or 'probe'?"},
        Rule{command + "gpu_layers: 3\n",
             "3:1: error: 'gpu_layers' belongs to engine llamacpp, and this service is command"},
        Rule{command + "id: Big\n", "3:5: error: expected an id:"},
        Rule{command + "id: a..b\n", "3:5: error: expected an id:"},
        Rule{command + "port: 65536\n", "3:7: error: expected a whole number from 0 to 65535, found '65536'"},
        Rule{command + "port: [1]\n", "3:7: error: expected a whole number from 0 to 65535, found a list"},
        Rule{command + "vram: 2 TiB\n", "3:7: error: expected MiB as a whole number"},
        Rule{command + "vram: 20GB\n", "3:7: error: expected MiB as a whole number"},
        Rule{command + "vram: 1\nvram_mb: 1\n", "4:1: error: 'vram_mb' and 'vram' say the same thing. Keep one"},
        Rule{command + "name: \"a\\nb\"\n", "3:7: error: the text holds a line break or a control character"},
        Rule{command + "name: \"a\\0b\"\n", "3:7: error: the text holds a line break or a control character"},
        Rule{command + "startup_timeout: 2 days\n", "3:18: error: expected seconds, or a time such as 90s"},
        Rule{command + "gpu: [0, 0]\n", "3:10: error: the GPU 0 is listed twice"},
        Rule{command + "gpu: []\n", "3:6: error: expected auto, an index, a UUID"},
        Rule{command + "unit: a/b.service\n", "3:7: error: expected the name of a user unit"},
        Rule{command + "unit: a..service\n", "3:7: error: expected the name of a user unit"},
        Rule{command + "unit: chat\n", "3:7: error: expected the name of a user unit"},
        Rule{command + "unit: gpumod.service\n", "3:7: error: expected the name of a user unit"},
        Rule{command + "unit: gpumod.socket\n", "3:7: error: expected the name of a user unit"},
        Rule{command + "unit: chat@.service\n", "3:7: error: expected the name of a user unit"},
        Rule{command + "router: r\n", "3:9: error: only engine llamacpp has routers"},
        Rule{llama + "router: r\n", "4:9: error: a service in a router needs models_dir"},
        Rule{"engine: llamacpp\nport: 1\n", "1:1: error: engine llamacpp needs the path of a model, or models_dir"},
        Rule{"engine: llamacpp\nport: 1\nmodel: org/name\n", "3:8: error: engine llamacpp needs the path of a model"},
        Rule{"engine: llamacpp\nport: 1\nmodels_dir: /m\n",
             "1:1: error: a service in a router needs the name of its model"},
        Rule{"engine: vllm\nport: 1\n", "1:1: error: engine vllm needs a model"},
        Rule{"engine: vllm\nmodel: a/b\n", "1:1: error: engine vllm needs a port"},
        Rule{"engine: vllm\nmodel: a/b\nport: 0\n", "3:7: error: engine vllm needs a port"},
        Rule{"engine: fastapi\nport: 1\n", "1:1: error: engine fastapi needs an app"},
        Rule{"engine: command\n", "1:1: error: engine command needs cmd"},
        Rule{command + "health: /health\n", "3:9: error: a health check needs a port"},
        Rule{command + "check: /health\n", "3:8: error: a health check needs a port"},
        Rule{command + "port: 1\nhealth: /a\ncheck: /b\n", "5:1: error: 'check' and 'health' say the same thing"},
        Rule{command + "port: 1\nhealth: health\n", "4:9: error: expected a path such as /health, or none"},
        Rule{command + "probe: chat\n", "3:8: error: a probe needs a port"},
        Rule{command + "port: 1\nprobe: http\n", "4:8: error: a probe of kind http needs a path"},
        Rule{command + "port: 1\nprobe: {kind: none, expect: hello}\n",
             "4:29: error: 'expect' means nothing to a probe of kind"},
        Rule{command + "port: 1\nprobe: {kind: chat, dimensions: 3}\n", "4:33: error: 'dimensions' means nothing"},
        Rule{command + "port: 1\nprobe: {knd: chat}\n", "4:9: error: unknown key 'knd'. Did you mean 'kind'?"},
        Rule{command + "sleep: l1\n", "3:8: error: only vllm sleeps by levels, and this service is command"},
        Rule{llama + "sleep: router\n", "4:8: error: sleep: router is for a service in a llama.cpp router"},
        Rule{routed + "sleep: l2\n",
             "5:8: error: only vllm sleeps by levels, and this service is llamacpp. Write `sleep: router`"},
        Rule{vllm + "sleep: l1\nenable_sleep_mode: no\n",
             "5:20: error: enable_sleep_mode is false, yet the service is to sleep"},
        Rule{vllm + "host: 0.0.0.0\n", "4:7: warning: listening on 0.0.0.0 puts this service on the network"},
        Rule{vllm + "sleep: l1\nhost: 0.0.0.0\n",
             "5:7: warning: anyone who reaches 0.0.0.0 can put this service to sleep"},
        Rule{vllm + "gpu_memory_utilization: 1.5\n",
             "4:25: error: expected a number above 0 and at most 1, found '1.5'"},
        Rule{vllm + "hf_overrides: '[1]'\n", "4:15: error: expected a JSON object"},
        Rule{vllm + "model: {id: a, pth: /x}\n", "4:1: error: the key 'model' stands twice"},
        Rule{"engine: vllm\nport: 1\nmodel: {pth: /x, id: a}\n", "3:9: error: unknown key 'pth'. Did you mean 'path'?"},
        Rule{llama + "flash_attention: perhaps\n",
             "4:18: error: expected one of on, off, auto, or true or false, found 'perhaps'"},
        Rule{llama + "models_max: 2\n", "4:13: warning: models_max means nothing without models_dir"},
        Rule{"engine: command\ncmd: run 'x\n", "2:6: error: a quote (') opens at character 5 and never ends"},
        Rule{"engine: command\ncmd: [run, $NOPE]\n", "2:12: error: the variable $NOPE is not defined"},
        Rule{"engine: command\ncmd: [run, $HOMES]\n",
             "2:12: error: the variable $HOMES is not defined. Did you mean $HOME?"},
        Rule{"engine: command\ncmd: [run, [x]]\n",
             "2:12: error: expected a list of arguments, or one line of them, found a list"},
        Rule{"engine: command\ncmd: [run, ]\n"
             "binary: ~bob/x\n",
             "3:9: error: only ~/ is understood"},
        Rule{command + "env: {1A: x}\n", "3:7: error: '1A' is no variable name"},
        Rule{command + "env: {A: [x]}\n", "3:10: error: the value of A must be plain text"},
        Rule{command + "env: [A=1]\n", "3:6: error: expected a map of variable names to text, found a list"},
        Rule{command + "unit: mine.service\n", "2:6: warning: cmd has no effect: mine.service is your own unit"},
        Rule{"services: [chat, rag]\n", "1:11: error: this looks like a mode. Modes belong in the folder modes/"},
        Rule{"services: chat\n", "1:11: error: expected a list of services"}));

TEST(Service, takes_every_key) {
  const auto catalog =
      read_catalog_text(FileKind::service, "services/chat.yaml",
                        "name: Chat\n"
                        "engine: vllm\n"
                        "router:\n"  // a key without a value counts as absent
                        "host: localhost\n"
                        "port: 8000\n"
                        "vram: 20 GiB\n"
                        "gpu: [0, GPU-8a3f5c12-1111-2222-3333-444455556666]\n"
                        "health: /ready\n"
                        "startup_timeout: 3m\n"
                        "stop_timeout: 45\n"
                        "sleep: l2\n"
                        "model: {id: a/b, path: ~/models/b, served_name: b}\n"
                        "gpu_memory_utilization: 0.5\n"
                        "tensor_parallel_size: 2\n"
                        "hf_overrides: {dims: [1024], flag: true, text: 'true'}\n"
                        "extra_args: --seed $SEED '--name=two words'\n"
                        "working_dir: work\n"
                        "binary: ./bin/vllm\n"
                        "env: {TOKEN: 's3cret', URL: 'http://$HOST:${PORT}', EMPTY: }\n"
                        "probe: {kind: chat, prompt: Hi, expect: Hello, timeout: 5s}\n",
                        [](const std::string& name) -> std::optional<std::string> {
                          return name == "SEED" ? "7" : name == "HOME" ? "/home/ada" : std::optional<std::string>();
                        });
  EXPECT_THAT(testing::lines_of(catalog.problems), IsEmpty());
  ASSERT_TRUE(catalog.services.contains("chat"));
  const auto& service = catalog.services.at("chat");
  EXPECT_EQ(service.name, "Chat");
  EXPECT_EQ(service.host, "localhost");
  EXPECT_EQ(service.vram, Bytes::gib(20));
  EXPECT_THAT(service.gpu.devices, ElementsAre("0", "GPU-8a3f5c12-1111-2222-3333-444455556666"));
  EXPECT_EQ(service.health_path, "/ready");
  EXPECT_EQ(service.startup_timeout, 180s);
  EXPECT_EQ(service.stop_timeout, 45s);
  EXPECT_EQ(service.sleep, SleepAbility::level2);
  EXPECT_TRUE(service.vllm()->enable_sleep_mode);
  EXPECT_EQ(service.model.id, "a/b");
  EXPECT_EQ(service.model.path, "/home/ada/models/b");
  EXPECT_EQ(service.model.served_name, "b");
  EXPECT_EQ(service.vllm()->tensor_parallel_size, 2);
  EXPECT_EQ(service.vllm()->hf_overrides, R"({"dims":[1024],"flag":true,"text":"true"})");
  EXPECT_THAT(service.extra_args, ElementsAre("--seed", "7", "--name=two words"));
  EXPECT_EQ(service.working_directory, "/config/work");
  EXPECT_EQ(service.binary, "/config/bin/vllm");
  EXPECT_EQ(service.environment.at("TOKEN").reveal(), "s3cret");
  EXPECT_EQ(service.environment.at("URL").reveal(), "http://localhost:8000");
  EXPECT_EQ(service.environment.at("EMPTY").reveal(), "");
  EXPECT_EQ(service.probe.kind, ProbeKind::chat);
  EXPECT_EQ(service.probe.expect, "Hello");
  EXPECT_EQ(service.probe.timeout, 5s);
  EXPECT_EQ(to_string(service.source), "services/chat.yaml:1:1");
}

TEST(Service, defaults_follow_the_engine) {
  const auto router = service_of(routed).services.at("x");
  EXPECT_EQ(router.sleep, SleepAbility::router);
  EXPECT_EQ(router.health_path, "/health");
  EXPECT_EQ(router.model.id, "x");
  EXPECT_TRUE(router.llama()->no_models_autoload);
  EXPECT_EQ(service_of(routed + "sleep: none\n").services.at("x").sleep, SleepAbility::none);
  EXPECT_EQ(service_of(vllm + "health: none\n").services.at("x").health_path, "");
  EXPECT_EQ(service_of(vllm).services.at("x").sleep, SleepAbility::none);
  const auto plain = service_of(command).services.at("x");
  EXPECT_EQ(plain.health_path, "");
  EXPECT_EQ(plain.port, 0);
  EXPECT_EQ(plain.host, "127.0.0.1");
  EXPECT_FALSE(plain.vram.has_value());
  EXPECT_EQ(plain.name, "x");
}

TEST(Service, an_adopted_unit_needs_no_command_and_no_model) {
  for (const char* text :
       {"engine: command\nunit: a.service\n", "engine: vllm\nport: 1\nunit: a.service\n",
        "engine: llamacpp\nport: 1\nunit: a.service\n", "engine: fastapi\nport: 1\nunit: a.service\n"})
    EXPECT_THAT(testing::lines_of(service_of(text).problems), IsEmpty()) << text;
}

TEST(Service, a_model_is_a_path_or_a_name) {
  EXPECT_EQ(service_of("engine: llamacpp\nport: 1\nmodel: x.gguf\n").services.at("x").model.path, "/config/x.gguf");
  EXPECT_EQ(service_of("engine: llamacpp\nport: 1\nmodel: $HOME/x.gguf\n").services.at("x").model.path,
            "/home/ada/x.gguf");
  EXPECT_EQ(service_of("engine: vllm\nport: 1\nmodel: ./local\n").services.at("x").model.path, "/config/local");
  EXPECT_EQ(service_of("engine: vllm\nport: 1\nmodel: org/name\n").services.at("x").model.id, "org/name");
}

TEST(Service, a_command_keeps_its_endpoint_for_the_engine) {
  const auto catalog = service_of(
      "engine: command\nport: 9\ncmd: serve --port ${PORT} --at $HOST --dir '$HOME/a b' $$x\ncmd_stop: [stop, "
      "'${PORT}']\n"
      "check: none\ncontainer: box\n");
  EXPECT_THAT(testing::lines_of(catalog.problems), IsEmpty());
  const auto& options = *catalog.services.at("x").command();
  EXPECT_THAT(options.cmd,
              ElementsAre("serve", "--port", "${PORT}", "--at", "${HOST}", "--dir", "/home/ada/a b", "$x"));
  EXPECT_THAT(options.cmd_stop, ElementsAre("stop", "${PORT}"));
  EXPECT_EQ(options.container, "box");
}

TEST(Service, several_in_one_file) {
  const auto catalog = service_of(
      "services:\n  - {id: a, engine: command, cmd: run}\n  - {id: b, engine: nope}\n  - {engine: command, cmd: run}\n"
      "  - {id: c, engine: command, cmd: run}\n");
  EXPECT_TRUE(catalog.services.contains("a"));
  EXPECT_TRUE(catalog.services.contains("c"));
  EXPECT_TRUE(catalog.broken_services.contains("b"));
  EXPECT_THAT(testing::lines_of(catalog.problems),
              ElementsAre(HasSubstr(":3:21: error: expected one of"), HasSubstr(":4:5: error: the service has no id")));
  EXPECT_EQ(to_string(catalog.services.at("c").source), "services/x.yaml:5:5");
}

TEST(Service, all_problems_at_once_and_at_most_a_hundred) {
  EXPECT_EQ(service_of("engine: vllm\nport: x\nvram: y\nsleep: z\nnope: 1\nmodel: a/b\n").problems.size(), 4u);
  std::string many = command;
  for (int i = 0; i < 5000; ++i)
    many += fmt::format("unknown{}: 1\n", i);
  const auto problems = service_of(many).problems;
  EXPECT_EQ(problems.size(), 101u);
  EXPECT_EQ(problems.back().message, "there are more problems in this file");
}

Catalog mode_of(const std::string& text) {
  return read_catalog_text(FileKind::mode, "modes/m.yaml", text);
}

TEST(Mode, reads_its_keys) {
  const auto catalog =
      mode_of("id: quiet\nname: Quiet\ndescription: |\n  Two\n  lines\nservices: []\non_failure: blank\n");
  EXPECT_THAT(testing::lines_of(catalog.problems), IsEmpty());
  const auto& mode = catalog.modes.at("quiet");
  EXPECT_EQ(mode.name, "Quiet");
  EXPECT_EQ(mode.description, "Two\nlines\n");
  EXPECT_EQ(mode.on_failure, OnFailure::blank);
}

TEST(Mode, problems_at_their_place) {
  const std::pair<const char*, const char*> cases[] = {
      {"name: x\n", "modes/m.yaml:1:1: error: the key 'services' is missing"},
      {"services:\n", "modes/m.yaml:1:1: error: the key 'services' is missing"},
      {"services: chat\n", "modes/m.yaml:1:11: error: expected a list of ids, found 'chat'"},
      {"services: [A b]\n", "modes/m.yaml:1:12: error: 'A b' is no id of a service"},
      {"services: []\non_failure: panic\n", "modes/m.yaml:2:13: error: expected one of rollback, stay, blank"},
      {"services: []\nserivces: []\n", "modes/m.yaml:2:1: error: unknown key 'serivces'. Did you mean 'services'?"},
      {"services: []\noptional: [chat]\n",
       "modes/m.yaml:2:11: error: 'chat' is optional, but no service of the mode. Add it to services"},
      {"services: [nope]\n", "modes/m.yaml:1:12: error: there is no service 'nope'"}};
  for (const auto& [text, line] : cases) {
    const auto lines = testing::lines_of(mode_of(text).problems);
    ASSERT_EQ(lines.size(), 1u) << text << join(lines, "\n");
    EXPECT_THAT(lines.front(), StartsWith(line));
    EXPECT_TRUE(mode_of(text).broken_modes.contains("m"));
  }
}

TEST(Settings, reads_its_keys) {
  const auto catalog = read_catalog_text(FileKind::settings, "gpumod.yaml",
                                         "vram_margin: 1 GiB\nunit_manager: local\nrelease_timeout: 30s\n"
                                         "variables: {MODELS: $HOME/models}\n"
                                         "engines:\n  llamacpp: {binary: llama-server, extra_args: '--dir $MODELS'}\n"
                                         "  vllm: {binary: ~/v/bin/vllm, env: {TOKEN: x}}\n",
                                         ada);
  EXPECT_THAT(testing::lines_of(catalog.problems), IsEmpty());
  const auto& settings = catalog.settings;
  EXPECT_EQ(settings.vram_margin, Bytes::gib(1));
  EXPECT_EQ(settings.unit_manager, UnitManagerKind::local);
  EXPECT_EQ(settings.release_timeout, 30s);
  EXPECT_EQ(settings.engines.at(EngineKind::llamacpp).binary, "llama-server");
  EXPECT_THAT(settings.engines.at(EngineKind::llamacpp).extra_args, ElementsAre("--dir", "/home/ada/models"));
  EXPECT_EQ(settings.engines.at(EngineKind::vllm).binary, "/home/ada/v/bin/vllm");
  EXPECT_EQ(settings.engines.at(EngineKind::vllm).environment.at("TOKEN").reveal(), "x");
}

TEST(Settings, problems_at_their_place_leave_the_rest) {
  const auto catalog =
      read_catalog_text(FileKind::settings, "gpumod.yaml",
                        "vram_margin: 1 GiB\nengines: {vlm: {}, vllm: {bin: x}}\nvariables: {A: $B, C: $A}\n", ada);
  EXPECT_EQ(catalog.settings.vram_margin, Bytes::gib(1));
  EXPECT_THAT(testing::lines_of(catalog.problems),
              ElementsAre(HasSubstr(":2:11: error: unknown key 'vlm'"), HasSubstr(":2:27: error: unknown key 'bin'"),
                          HasSubstr(":3:16: error: the variable $B is not defined"),
                          HasSubstr(":3:23: error: the variable $A is not defined")));
  EXPECT_THAT(testing::lines_of(read_catalog_text(FileKind::settings, "gpumod.yaml", "").problems), IsEmpty());
}

}  // namespace
}  // namespace gpumod
