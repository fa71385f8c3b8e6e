// The field's files: the twelve presets and five modes that people have, written here in their words.
#include "catalog/previous.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "catalog/test_folder.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void write_field(testing::Folder& folder) {
  const auto preset = [&](const std::string& path, const std::string& text) { folder.write("presets/" + path, text); };
  preset("embedding/vllm-embedding-code.yaml",
         "id: vllm-embedding-code\nname: Code embeddings\ndriver: vllm\nport: 8210\nvram_mb: 2500\ncontext_size: 4096\n"
         "model_id: Example/Embedding-Small\nhealth_endpoint: /health\nstartup_timeout: 120\nsupports_sleep: false\n"
         "sleep_mode: none\nunit_vars:\n  gpu_mem_util: 0.085\n  max_model_len: 2048\n  max_num_seqs: 8\n  dtype: "
         "float16\n"
         "  enforce_eager: true\n  runner: pooling\n  hf_overrides: '{\"matryoshka_dimensions\": [1024]}'\n");
  preset("embedding/vllm-embedding.yaml",
         "id: vllm-embedding\nname: Text embeddings\ndriver: vllm\nport: 8200\nvram_mb: 5000\ncontext_size: 1024\n"
         "model_id: Example/Embedding\nstartup_timeout: 180\nsleep_mode: none\nunit_vars: {gpu_mem_util: 0.30, runner: "
         "pooling}\n");
  preset("llm/vllm-chat.yml",
         "id: vllm-chat\nname: Chat\ndriver: vllm\nport: 7071\nvram_mb: 7000\nkv_cache_per_1k: 32\nmodel_id: "
         "Example/Chat\n"
         "startup_timeout: 120\nsupports_sleep: true\nsleep_mode: l1\n"
         "unit_vars: {gpu_mem_util: 0.35, enable_sleep_mode: true, sleep_level: 1}\n");
  for (const auto& [id, port, vram] : {std::tuple("vllm-hyde", 8202, 5000), std::tuple("vllm-reranker", 8201, 6000)})
    preset(fmt::format("llm/{}.yaml", id),
           fmt::format(
               "id: {}\nname: {}\ndriver: vllm\nport: {}\nvram_mb: {}\nmodel_id: Example/{}\nstartup_timeout: 120\n"
               "supports_sleep: true\nsleep_mode: l2\nunit_vars:\n  gpu_mem_util: 0.22\n  enable_sleep_mode: true\n",
               id, id, port, vram, id));
  preset("speech/vllm-tts.yaml",
         "id: vllm-tts\nname: Speech\ndriver: vllm\nport: 8204\nvram_mb: 5000\nmodel_id: Example/TTS\nstartup_timeout: "
         "120\n"
         "sleep_mode: none\nunit_vars:\n  gpu_mem_util: 0.2\n  trust_remote_code: true\n  omni: true\n");
  preset("llm/devstral-small-2.yaml",
         "id: devstral-small-2\nname: Devstral\ndriver: vllm\nport: 8000\nvram_mb: 15000\ncontext_size: 32768\n"
         "model_id: Example/Devstral\nstartup_timeout: 120\nsupports_sleep: true\nsleep_mode: l1\n"
         "unit_vars: {gpu_mem_util: 0.9}\n");
  preset("speech/qwen3-asr.yaml",
         "id: qwen3-asr\nname: Listening\ndriver: fastapi\nport: 8203\nvram_mb: 5000\nmodel_id: Example/ASR\n"
         "startup_timeout: 60\nsupports_sleep: true\nsleep_mode: l1\nunit_vars:\n  lazy_load: true\n");
  preset(
      "embedding/bge-large.yaml",
      "id: bge-large\nname: BGE\ndriver: fastapi\nport: 9200\nvram_mb: 1024\nmodel_id: Example/BGE\nsleep_mode: none\n"
      "unit_vars: {app_module: 'embedding_server:app', working_dir: /opt/embedding, workers: 2}\n");
  for (const auto& [id, name] : {std::pair("qwen3-coder", "Coder-30B-Q4"), std::pair("nemotron-3-nano", "Nano-30B-Q4")})
    preset(
        fmt::format("llm/{}.yaml", id),
        fmt::format(
            "id: {}\nname: {}\ndriver: llamacpp\nport: 7070\nvram_mb: 20000\nstartup_timeout: 120\n"
            "supports_sleep: true\nsleep_mode: router\nmodel_id: Example/{}-GGUF\nunit_vars:\n  models_dir: $HOME/bin\n"
            "  models_max: 1\n  no_models_autoload: true\n  default_model: {}\n  jinja: true\n",
            id, id, name, name));
  preset("llm/qwen-2.5-72b-gguf.yaml",
         "id: qwen-2-5-72b-gguf\nname: Big\ndriver: llamacpp\nport: 8080\nvram_mb: 20480\ncontext_size: 32768\n"
         "model_id: Example/Big-GGUF\nmodel_path: $HOME/models/big.gguf\nstartup_timeout: 180\nsupports_sleep: true\n"
         "sleep_mode: l2\nunit_vars:\n  n_gpu_layers: 80\n  threads: 8\n  flash_attn: true\n"
         "  extra_args: \"--parallel 5 --cont-batching\"\n");
  const std::pair<const char*, const char*> modes[] = {{"blank", "[vllm-embedding-code]"},
                                                       {"code", "[vllm-embedding-code, qwen3-coder]"},
                                                       {"nemotron", "[vllm-embedding-code, nemotron-3-nano]"},
                                                       {"rag", "[vllm-embedding-code, vllm-embedding]"},
                                                       {"speak", "[vllm-embedding, qwen3-asr, vllm-tts, vllm-chat]"}};
  for (const auto& [id, services] : modes)
    folder.write(fmt::format("modes/{}.yaml", id),
                 fmt::format("id: {}\nname: Mode {}\ndescription: From the field\nservices: {}\n", id, id, services));
}

TEST(Previous, the_field_loads_with_the_right_values) {
  testing::Folder folder;
  write_field(folder);
  const auto catalog = folder.load();
  EXPECT_FALSE(catalog.has_errors());
  struct Row {
    const char* id;
    EngineKind engine;
    int port;
    std::int64_t vram_mib;
    SleepAbility sleep;
    Duration timeout;
  };
  using enum EngineKind;
  using enum SleepAbility;
  const Row rows[] = {{"vllm-embedding-code", vllm, 8210, 2500, none, 120s},
                      {"vllm-embedding", vllm, 8200, 5000, none, 180s},
                      {"vllm-chat", vllm, 7071, 7000, level1, 120s},
                      {"vllm-hyde", vllm, 8202, 5000, level2, 120s},
                      {"vllm-reranker", vllm, 8201, 6000, level2, 120s},
                      {"vllm-tts", vllm, 8204, 5000, none, 120s},
                      {"devstral-small-2", vllm, 8000, 15000, level1, 120s},
                      {"qwen3-asr", fastapi, 8203, 5000, none, 60s},
                      {"bge-large", fastapi, 9200, 1024, none, 60s},
                      {"qwen3-coder", llamacpp, 7070, 20000, router, 120s},
                      {"nemotron-3-nano", llamacpp, 7070, 20000, router, 120s},
                      {"qwen-2-5-72b-gguf", llamacpp, 8080, 20480, none, 180s}};
  EXPECT_EQ(catalog.services.size(), std::size(rows));
  for (const auto& row : rows) {
    ASSERT_TRUE(catalog.services.contains(row.id)) << row.id;
    const auto& service = catalog.services.at(row.id);
    EXPECT_EQ(service.engine, row.engine) << row.id;
    EXPECT_EQ(service.port, row.port) << row.id;
    EXPECT_EQ(service.vram, Bytes::mib(row.vram_mib)) << row.id;
    EXPECT_EQ(service.sleep, row.sleep) << row.id;
    EXPECT_EQ(service.startup_timeout, row.timeout) << row.id;
    EXPECT_EQ(service.health_path, "/health") << row.id;
    EXPECT_EQ(service.host, "127.0.0.1") << row.id;
    EXPECT_EQ(service.unit_name(), fmt::format("gpumod-{}.service", row.id));
  }
  ASSERT_EQ(catalog.modes.size(), 5u);
  EXPECT_THAT(catalog.modes.at("blank").services, ElementsAre("vllm-embedding-code"));
  EXPECT_THAT(catalog.modes.at("code").services, ElementsAre("vllm-embedding-code", "qwen3-coder"));
  EXPECT_THAT(catalog.modes.at("nemotron").services, ElementsAre("vllm-embedding-code", "nemotron-3-nano"));
  EXPECT_THAT(catalog.modes.at("rag").services, ElementsAre("vllm-embedding-code", "vllm-embedding"));
  EXPECT_THAT(catalog.modes.at("speak").services, ElementsAre("vllm-embedding", "qwen3-asr", "vllm-tts", "vllm-chat"));
}

TEST(Previous, options_find_their_new_names) {
  testing::Folder folder;
  write_field(folder);
  const auto catalog = folder.load();
  const auto& embedding = *catalog.services.at("vllm-embedding-code").vllm();
  EXPECT_EQ(embedding.gpu_memory_utilization, 0.085);
  EXPECT_EQ(embedding.max_model_len, 2048) << "unit_vars come before context_size";
  EXPECT_EQ(embedding.max_num_seqs, 8);
  EXPECT_EQ(embedding.dtype, "float16");
  EXPECT_EQ(embedding.runner, "pooling");
  EXPECT_TRUE(embedding.enforce_eager);
  EXPECT_EQ(embedding.hf_overrides, R"({"matryoshka_dimensions":[1024]})");
  EXPECT_EQ(catalog.services.at("devstral-small-2").vllm()->max_model_len, 32768);
  EXPECT_TRUE(catalog.services.at("devstral-small-2").vllm()->enable_sleep_mode) << "sleep l1 needs it";
  EXPECT_FALSE(catalog.services.at("vllm-tts").vllm()->enable_sleep_mode);

  const auto& coder = catalog.services.at("qwen3-coder");
  EXPECT_TRUE(coder.in_router());
  EXPECT_EQ(coder.model.served_name, "Coder-30B-Q4");
  EXPECT_EQ(coder.model.id, "Example/Coder-30B-Q4-GGUF");
  EXPECT_EQ(coder.llama()->models_dir, "/home/ada/bin");
  EXPECT_EQ(coder.llama()->models_max, 1);
  EXPECT_TRUE(coder.llama()->jinja);

  const auto& big = catalog.services.at("qwen-2-5-72b-gguf");
  EXPECT_EQ(big.model.path, "/home/ada/models/big.gguf");
  EXPECT_EQ(big.llama()->gpu_layers, 80);
  EXPECT_EQ(big.llama()->threads, 8);
  EXPECT_EQ(big.llama()->context_size, 32768);
  EXPECT_EQ(big.llama()->flash_attention, "on");
  EXPECT_THAT(big.extra_args, ElementsAre("--parallel", "5", "--cont-batching"));

  const auto& bge = catalog.services.at("bge-large");
  EXPECT_EQ(bge.fastapi()->app, "embedding_server:app");
  EXPECT_EQ(bge.fastapi()->workers, 2);
  EXPECT_EQ(bge.working_directory, "/opt/embedding");
  EXPECT_EQ(catalog.services.at("qwen3-asr").fastapi()->app, "main:app");
}

TEST(Previous, what_cannot_be_kept_is_said) {
  testing::Folder folder;
  write_field(folder);
  EXPECT_THAT(
      testing::lines_of(folder.load().problems),
      ElementsAre(
          "presets/llm/qwen-2.5-72b-gguf.yaml:11:13: warning: llamacpp cannot sleep as l2; 'none' is used. Write "
          "`sleep_mode: none`.",
          "presets/speech/qwen3-asr.yaml:3:9: warning: no unit_vars.app_module: main:app is used, as before. Name the "
          "application, or adopt your own unit with `unit:`.",
          "presets/speech/qwen3-asr.yaml:9:13: warning: fastapi cannot sleep as l1; 'none' is used. Write "
          "`sleep_mode: none`.",
          "presets/speech/qwen3-asr.yaml:11:3: warning: unit_vars.lazy_load is ignored: gpumod does not know it for "
          "fastapi. If the server has such an option, write it in extra_args.",
          "presets/speech/vllm-tts.yaml:12:3: warning: unit_vars.omni is ignored: gpumod does not know it for vllm. If "
          "the server has such an option, write it in extra_args."));
}

std::vector<std::string> problems_of(const std::string& text) {
  return testing::lines_of(read_catalog_text(FileKind::service, "presets/x.yaml", text).problems);
}

TEST(Previous, unit_template_is_an_error_with_a_way_out) {
  EXPECT_THAT(
      problems_of("driver: vllm\nport: 1234\nmodel_id: a/b\nunit_template: mine.j2\n"),
      ElementsAre("presets/x.yaml:4:1: error: unit_template is not read: gpumod writes no unit files from templates. "
                  "Write `unit: NAME.service` to adopt a unit of your own, or leave it out."));
  EXPECT_THAT(problems_of("driver: vllm\nport: 1234\nmodel_id: a/b\nunit_template:\n"), IsEmpty());
}

TEST(Previous, docker_takes_nothing_else_down) {
  testing::Folder folder;
  write_field(folder);
  folder.write("presets/dock.yaml", "id: dock\nname: D\ndriver: docker\nvram_mb: 1\nextra_config: {image: x}\n");
  const auto catalog = folder.load();
  EXPECT_EQ(catalog.services.size(), 12u);
  EXPECT_TRUE(catalog.broken_services.contains("dock"));
  EXPECT_EQ(catalog.modes.size(), 5u);
  EXPECT_EQ(testing::lines_of(catalog.problems).front(),
            "presets/dock.yaml:3:9: error: the docker driver is not read any more. Write `engine: command` with `cmd: "
            "docker run "
            "…` and `container: NAME`.");
}

TEST(Previous, unknown_things_are_named_with_their_place) {
  EXPECT_THAT(
      problems_of("driver: vllm\nport: 1234\nmodel_id: a/b\ncolour: red\nunit_vars:\n  gpu_memory_util: 0.4\n"),
      ElementsAre(
          "presets/x.yaml:4:1: warning: unknown key 'colour' is ignored",
          "presets/x.yaml:6:3: warning: unit_vars.gpu_memory_util is ignored: gpumod does not know it for vllm. "
          "Did you mean 'gpu_memory_utilization'?"));
  EXPECT_THAT(
      problems_of("driver: vlm\nport: 1234\nmodel_id: a/b\n"),
      ElementsAre(
          "presets/x.yaml:1:9: error: expected one of vllm, llamacpp, fastapi, command, found 'vlm'. Did you mean "
          "'vllm'?"));
  EXPECT_THAT(problems_of("driver: vllm\nport: 1234\nmodel_id: a/b\nvram_mb: 1048577\n"),
              ElementsAre(HasSubstr("presets/x.yaml:4:10: error: expected a whole number from 0 to 1048576")));
}

TEST(Previous, keys_of_ours_work_beside_the_old_ones) {
  const auto catalog =
      read_catalog_text(FileKind::service, "services/x.yaml",
                        "driver: llamacpp\nport: 7070\nunit: glm-code.service\nprobe: none\nmodel_id: glm\n"
                        "unit_vars: {host: 0.0.0.0}\n");
  ASSERT_TRUE(catalog.services.contains("x"));
  const auto& service = catalog.services.at("x");
  EXPECT_EQ(service.unit_name(), "glm-code.service");
  EXPECT_EQ(service.probe.kind, ProbeKind::none);
  EXPECT_EQ(service.host, "0.0.0.0");
  EXPECT_THAT(testing::lines_of(catalog.problems),
              ElementsAre(HasSubstr("services/x.yaml:6:19: warning: listening on 0.0.0.0")));
}

TEST(Previous, supports_sleep_false_wins) {
  const auto catalog =
      read_catalog_text(FileKind::service, "presets/x.yaml",
                        "driver: vllm\nport: 1\nmodel_id: a/b\nsupports_sleep: false\nsleep_mode: l1\n");
  EXPECT_EQ(catalog.services.at("x").sleep, SleepAbility::none);
  EXPECT_FALSE(catalog.services.at("x").vllm()->enable_sleep_mode);
  EXPECT_EQ(catalog.problems.size(), 1u);
}

}  // namespace
}  // namespace gpumod
