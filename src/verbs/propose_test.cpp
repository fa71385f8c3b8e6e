#include "verbs/propose.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"
#include "verbs/tree_testing.h"

namespace gpumod {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

class ProposeTest : public testing::Test {
 protected:
  /// The catalogue as the files on disk make it, then the proposal for the findings.
  Proposal proposal() {
    load();
    Ground ground = ground_;
    ground.catalog = &catalog_;
    ground.exists = [this](const std::string& relative) {
      return std::filesystem::exists(tree_.paths().config / relative);
    };
    return propose(findings_, ground);
  }
  /// Writes what is new of it and reads the whole.
  Proposal proposal_written() {
    auto made = proposal();
    for (const auto& file : made.files)
      if (!std::filesystem::exists(tree_.paths().config / file.path))
        tree_.write(std::filesystem::path("home/.config/gpumod") / file.path, file.text);
    load();
    return made;
  }
  void load() {
    auto loaded = load_catalog(tree_.paths(), [](const std::string&) { return std::nullopt; });
    ASSERT_TRUE(loaded) << loaded.error().message;
    catalog_ = std::move(*loaded);
  }
  std::vector<std::string> problems() const {
    std::vector<std::string> all;
    for (const auto& problem : catalog_.problems)
      all.push_back(to_string(problem));
    return all;
  }
  std::vector<std::string> service_ids() const {
    std::vector<std::string> ids;
    for (const auto& [id, service] : catalog_.services)
      ids.push_back(id);
    return ids;
  }
  std::vector<std::string> mode_ids() const {
    std::vector<std::string> ids;
    for (const auto& [id, mode] : catalog_.modes)
      ids.push_back(id);
    return ids;
  }
  void add_model(const std::string& path, ModelKind kind = ModelKind::chat, Bytes size = Bytes::gib(5),
                 bool certain = true) {
    findings_.models.push_back({path, size, {kind, certain}, 40960});
  }
  void add_engine(EngineKind kind, const std::string& binary, bool in_path) {
    findings_.engines.push_back({kind, binary, "1", in_path, ""});
  }
  void config(const std::string& file, std::string_view text) {
    tree_.write(std::filesystem::path("home/.config/gpumod") / file, text);
  }

  TestTree tree_;
  Findings findings_;
  Ground ground_;
  Catalog catalog_;
};

const std::string* text_of_file(const Proposal& proposal, std::string_view path) {
  for (const auto& file : proposal.files)
    if (file.path == path) return &file.text;
  return nullptr;
}

TEST_F(ProposeTest, ThreeModelsBecomeServicesAndModesWithoutAProblem) {
  add_engine(EngineKind::llamacpp, "/home/u/my tools/llama-server", false);
  add_model("/home/u/models/Qwen3-8B-Q4_K_M.gguf");
  add_model("/home/u/models/Mistral $mall 'x'.gguf", ModelKind::chat, Bytes::gib(20));
  add_model("/home/u/models/nomic-embed.gguf", ModelKind::embedding);
  ground_.gpus = 1;
  ground_.largest_gpu = Bytes::gib(24);
  ground_.busy_ports = {7070};
  const auto made = proposal_written();
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_THAT(service_ids(), UnorderedElementsAre("qwen3-8b-q4_k_m", "mistral-mall-x", "nomic-embed"));
  EXPECT_THAT(mode_ids(), UnorderedElementsAre("blank", "qwen3-8b-q4_k_m", "mistral-mall-x"));
  EXPECT_EQ(catalog_.settings.engines.at(EngineKind::llamacpp).binary, "/home/u/my tools/llama-server");

  const auto& chat = catalog_.services.at("qwen3-8b-q4_k_m");
  EXPECT_EQ(chat.model.path, "/home/u/models/Qwen3-8B-Q4_K_M.gguf");
  EXPECT_EQ(chat.llama()->context_size, 8192);
  EXPECT_EQ(chat.llama()->gpu_layers, 999);
  EXPECT_FALSE(chat.vram);
  const auto& large = catalog_.services.at("mistral-mall-x");
  EXPECT_EQ(large.model.path, "/home/u/models/Mistral $mall 'x'.gguf");
  EXPECT_GT(large.startup_timeout, 200s);
  EXPECT_TRUE(catalog_.services.at("nomic-embed").llama()->embeddings);
  std::set<std::uint16_t> ports;
  for (const auto& [id, service] : catalog_.services)
    ports.insert(service.port);
  EXPECT_THAT(ports, ElementsAre(7071, 7072, 7073));

  EXPECT_THAT(catalog_.modes.at("blank").services, IsEmpty());
  EXPECT_THAT(catalog_.modes.at("qwen3-8b-q4_k_m").services, ElementsAre("qwen3-8b-q4_k_m", "nomic-embed"));
  EXPECT_THAT(made.advice, Contains(HasSubstr("gpumod mode switch ")));
  EXPECT_THAT(made.advice.back(), HasSubstr("curl http://127.0.0.1:"));
}

TEST_F(ProposeTest, ASecondTimeThereIsNothingNew) {
  add_engine(EngineKind::llamacpp, "/usr/bin/llama-server", true);
  add_model("/m/a.gguf");
  add_model("/m/b.gguf", ModelKind::embedding);
  proposal_written();
  const auto again = proposal();
  for (const auto& file : again.files)
    EXPECT_TRUE(std::filesystem::exists(tree_.paths().config / file.path)) << file.path;
}

TEST_F(ProposeTest, AnEngineInstalledLaterIsForPeopleToAdd) {
  add_model("/m/a.gguf");
  ground_.settings_file = "/c/gpumod.yaml";
  const auto before = proposal_written();
  EXPECT_THAT(before.advice, Not(Contains(HasSubstr("Next:")))) << "nothing that was found could run it";
  EXPECT_THAT(before.advice, Contains(HasSubstr("gpumod init --llama-server FILE")));

  add_engine(EngineKind::llamacpp, "/home/u/llama.cpp/build/bin/llama-server", false);
  const auto after = proposal_written();
  EXPECT_THAT(after.advice, Contains("llama-server (/home/u/llama.cpp/build/bin/llama-server) is not where every PATH "
                                     "leads, and your /c/gpumod.yaml "
                                     "does not say where it is. Add at its end:\n"
                                     "engines:\n"
                                     "  llamacpp:\n"
                                     "    binary: /home/u/llama.cpp/build/bin/llama-server"));
  EXPECT_THAT(after.advice.back(), HasSubstr("the lines above are yours to add"));

  // They are right, and after them all is well.
  const auto mine = tree_.read("home/.config/gpumod/gpumod.yaml");
  for (const auto& piece : after.advice)
    if (const auto at = piece.find("\nengines:"); at != std::string::npos)
      config("gpumod.yaml", mine + piece.substr(at));
  const auto last = proposal_written();
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_EQ(catalog_.settings.engines.at(EngineKind::llamacpp).binary, "/home/u/llama.cpp/build/bin/llama-server");
  EXPECT_THAT(last.advice.back(), HasSubstr("nothing new to write"));
}

TEST_F(ProposeTest, AnEngineIsAddedToTheBlockThatIsThere) {
  config("gpumod.yaml", "engines:\n  vllm: {binary: /v/bin/vllm}\n");
  config("services/mine.yaml", "engine: llamacpp\nmodel: /m/known.gguf\nport: 7070\n");
  add_engine(EngineKind::llamacpp, "/opt/l/llama-server", false);
  EXPECT_THAT(proposal().advice,
              Contains(AllOf(HasSubstr("Add there, below the line `engines:`:\n  llamacpp:\n    binary: /opt/l/"),
                             Not(HasSubstr("\nengines:")))));
  config("services/mine.yaml", "engine: llamacpp\nmodel: /m/known.gguf\nport: 7070\nbinary: /opt/l/llama-server\n");
  EXPECT_THAT(proposal().advice, Not(Contains(HasSubstr("every PATH")))) << "the one that needs it says it";
}

TEST_F(ProposeTest, AGuessedEmbeddingModelIsNotForcedIntoModes) {
  add_model("/m/chat.gguf");
  add_model("/m/some-embed.gguf", ModelKind::embedding, Bytes::gib(1), false);
  proposal_written();
  EXPECT_THAT(catalog_.modes.at("chat").services, ElementsAre("chat"));
  EXPECT_TRUE(catalog_.modes.contains("some-embed"));
}

TEST_F(ProposeTest, NothingIsPinnedThatTheMachineCannotHold) {
  add_model("/m/small.gguf");
  EXPECT_THAT(*text_of_file(proposal(), "services/small.yaml"), Not(HasSubstr("\ngpu_layers")));  // no GPU
  ground_.gpus = 1;
  ground_.largest_gpu = Bytes::gib(4);
  EXPECT_THAT(*text_of_file(proposal(), "services/small.yaml"), Not(HasSubstr("\ngpu_layers")));
  ground_.largest_gpu = Bytes::gib(24);
  EXPECT_THAT(*text_of_file(proposal(), "services/small.yaml"), HasSubstr("\ngpu_layers: 999"));
}

TEST_F(ProposeTest, ContextIsNeverMoreThanTheModelKnows) {
  findings_.models.push_back({"/m/tiny.gguf", Bytes::mib(1), {ModelKind::chat, true}, 512});
  proposal_written();
  EXPECT_EQ(catalog_.services.at("tiny").llama()->context_size, 512);
}

TEST_F(ProposeTest, ManyModelsAreCutAtADozenAndTheRestIsNamed) {
  for (int i = 10; i < 30; ++i)
    add_model(fmt::format("/m/model-{}.gguf", i));
  const auto made = proposal_written();
  EXPECT_EQ(catalog_.services.size(), 12U);
  EXPECT_THAT(made.advice, Contains(HasSubstr("/m/model-29.gguf")));
}

TEST_F(ProposeTest, EqualNamesGetDifferentIds) {
  add_model("/m/x/Chat.gguf");
  add_model("/m/y/chat.gguf");
  add_model("/m/---.gguf");
  proposal_written();
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_THAT(service_ids(), UnorderedElementsAre("chat", "chat-2", "model"));
}

TEST_F(ProposeTest, WhatIsThereStaysAndIsNotSaidTwice) {
  config("gpumod.yaml", "vram_margin: 1 GiB\n");
  config("services/mine.yaml", "engine: llamacpp\nmodel: /m/known.gguf\nport: 7070\n");
  config("services/fresh.yaml", "id: other\nengine: llamacpp\nmodel: /m/other.gguf\nport: 7072\n");
  config("modes/blank.yaml", "services: [mine]\n");
  add_engine(EngineKind::llamacpp, "/opt/l/llama-server", false);
  add_model("/m/known.gguf");
  add_model("/m/fresh.gguf");
  const auto made = proposal_written();
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_EQ(text_of_file(made, "services/known.yaml"), nullptr);
  EXPECT_EQ(text_of_file(made, "services/fresh.yaml"), nullptr);  // that file is people's
  const auto& fresh = catalog_.services.at("fresh-2");
  EXPECT_EQ(fresh.port, 7071);
  EXPECT_EQ(fresh.binary, "/opt/l/llama-server");  // gpumod.yaml cannot be changed, so the service says it
  EXPECT_EQ(catalog_.settings.vram_margin, Bytes::gib(1));
  EXPECT_THAT(catalog_.modes.at("blank").services, ElementsAre("mine"));
}

TEST_F(ProposeTest, FilesOfThePreviousGenerationAreReadAsTheyAre) {
  config("presets/llm/qwen3-coder.yaml",
         "id: qwen3-coder\nname: Qwen3 Coder\ndriver: llamacpp\nport: 7070\nvram_mb: 20000\nunit_vars:\n  models_dir: "
         "/m\n  default_model: qwen\n");
  add_model("/m/qwen.gguf");
  findings_.unit_names = {"qwen3-coder.service"};
  findings_.units.push_back(
      {"qwen3-coder.service", "/u/qwen3-coder.service", *guess_server({"llama-server", "--models-dir", "/m"})});
  const auto made = proposal_written();
  EXPECT_THAT(service_ids(), ElementsAre("qwen3-coder"));
  EXPECT_THAT(made.advice, Contains(HasSubstr("unit: qwen3-coder.service")));
  EXPECT_THAT(made.advice, Contains(HasSubstr("gpumod 0.1")));
}

TEST_F(ProposeTest, PeoplesUnitsAreProposedForAdoption) {
  const auto add = [&](const std::string& name, std::vector<std::string> words) {
    findings_.unit_names.insert(name);
    findings_.units.push_back({name, "/home/u/.config/systemd/user/" + name, *guess_server(words)});
  };
  add("glm-code.service", {"/x/llama-server", "-m", "/m/glm.gguf", "--port", "9001", "-a", "glm"});
  add("vllm-embedding.service", {"/v/bin/vllm", "serve", "Qwen/Qwen3-Embedding", "--port", "8200", "--runner",
                                 "pooling", "--gpu-memory-utilization", "0.2"});
  add("router@main.service", {"/x/llama-server", "--models-dir", "/m2", "--port", "7070"});
  add("ollama.service", {"/usr/local/bin/ollama", "serve"});
  add("asr.service", {"/usr/bin/uvicorn", "asr:app", "--port", "9200"});
  add_model("/m/glm.gguf");
  const auto made = proposal_written();
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_THAT(service_ids(), UnorderedElementsAre("glm-code", "vllm-embedding", "router-main", "ollama", "asr"));
  const auto& glm = catalog_.services.at("glm-code");
  EXPECT_EQ(glm.unit, "glm-code.service");
  EXPECT_EQ(glm.port, 9001);
  EXPECT_EQ(glm.model.path, "/m/glm.gguf");
  EXPECT_EQ(glm.model.served_name, "glm");
  EXPECT_EQ(catalog_.services.at("vllm-embedding").vllm()->runner, "pooling");
  EXPECT_EQ(catalog_.services.at("vllm-embedding").vllm()->gpu_memory_utilization, 0.2);
  EXPECT_EQ(catalog_.services.at("router-main").engine, EngineKind::command);
  EXPECT_EQ(catalog_.services.at("ollama").port, 11434);
}

TEST_F(ProposeTest, NoNewServiceTakesTheNameOfAnExistingUnit) {
  findings_.unit_names = {"chat.service"};
  add_model("/m/chat.gguf");
  proposal_written();
  EXPECT_THAT(service_ids(), ElementsAre("chat-2"));
}

TEST_F(ProposeTest, HubModelsNeedVllm) {
  findings_.hub.push_back({"Qwen/Qwen3-8B", "/hub/x", ModelKind::chat, 40960});
  findings_.hub.push_back({"BAAI/bge-m3", "/hub/y", ModelKind::embedding, 8194});
  findings_.hub.push_back({"openai/whisper-large", "/hub/z", ModelKind::unusable, std::nullopt});
  EXPECT_THAT(proposal().advice, Contains(HasSubstr("no vllm")));
  add_engine(EngineKind::vllm, "/home/u/vllm/.venv/bin/vllm", false);
  proposal_written();
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_THAT(service_ids(), UnorderedElementsAre("qwen3-8b", "bge-m3"));
  EXPECT_EQ(catalog_.services.at("qwen3-8b").model.id, "Qwen/Qwen3-8B");
  EXPECT_EQ(catalog_.services.at("bge-m3").vllm()->runner, "pooling");
  EXPECT_EQ(catalog_.settings.engines.at(EngineKind::vllm).binary, "/home/u/vllm/.venv/bin/vllm");
}

TEST_F(ProposeTest, FindingNothingStillHelps) {
  findings_.searched = {"/home/u/Downloads"};
  const auto made = proposal_written();
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_THAT(service_ids(), IsEmpty());  // the example is not read
  EXPECT_NE(text_of_file(made, "services/example.yaml.off"), nullptr);
  EXPECT_THAT(made.advice, Contains(HasSubstr("/home/u/Downloads")));
  EXPECT_THAT(made.advice, Contains(HasSubstr("--llama-server")));
  // Its text is right all the same.
  config("services/example.yaml", *text_of_file(made, "services/example.yaml.off"));
  load_catalog(tree_.paths(), [&](const std::string& name) {
    return name == "HOME" ? std::optional<std::string>("/home/u") : std::nullopt;
  }).map([](const Catalog& catalog) {
    for (const auto& problem : catalog.problems)
      ADD_FAILURE() << to_string(problem);
    EXPECT_EQ(catalog.services.count("example"), 1U);
  });
}

TEST_F(ProposeTest, TheLocalSupervisorIsWrittenDown) {
  ground_.unit_manager = "local";
  proposal_written();
  EXPECT_EQ(catalog_.settings.unit_manager, UnitManagerKind::local);
}

TEST(YamlText, QuotesWhatWouldBeReadOtherwise) {
  EXPECT_EQ(yaml_text("/a/b.gguf"), "/a/b.gguf");
  EXPECT_EQ(yaml_text("/a b"), "'/a b'");
  EXPECT_EQ(yaml_text("it's $5"), "'it''s $$5'");
  EXPECT_EQ(yaml_text("null"), "'null'");
  EXPECT_EQ(yaml_text("12"), "'12'");
  EXPECT_EQ(yaml_text("a: b"), "'a: b'");
  EXPECT_EQ(yaml_text(""), "''");
}

TEST(IdFrom, AlwaysGivesAValidId) {
  EXPECT_EQ(id_from("Qwen3-8B Q4_K_M"), "qwen3-8b-q4_k_m");
  EXPECT_EQ(id_from("a..b--c"), "a.b-c");
  for (const char* odd : {"", "---", "漢字", "..", "x.", "_a"})
    EXPECT_TRUE(is_valid_id(id_from(odd))) << odd;
  EXPECT_TRUE(is_valid_id(id_from(std::string(300, 'x'))));
}

}  // namespace
}  // namespace gpumod
