#include "control/model_check.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/folder_testing.h"
#include "control/model_place.h"
#include "formats/elf_testing.h"
#include "formats/gguf_testing.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ModelCheckTest : public testing::Test {
 protected:
  ModelCheckTest() {
    for (const char* variable :
         {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH"})
      ::unsetenv(variable);
    paths_.home = root_.path();
  }

  fs::path write(const fs::path& below, std::string_view text) { return root_.write(below, text); }
  static std::string gguf(std::string_view architecture = "qwen3") {
    return GgufWriter().text("general.architecture", architecture).tensor("token_embd.weight", {8, 4}).bytes();
  }
  /// A shard with one tensor of four bytes.
  static std::string shard(const std::string& tensor) {
    const auto header = R"({")" + tensor + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
    return GgufWriter::little_endian(header.size(), 8) + header + "abcd";
  }
  static Service llama(const fs::path& model) {
    Service service;
    service.id = "chat";
    service.engine = EngineKind::llamacpp;
    service.options = LlamaOptions();
    service.model.path = model;
    service.source.file = "services/chat.yaml";
    return service;
  }
  static Service vllm(const fs::path& model) {
    auto service = llama(model);
    service.engine = EngineKind::vllm;
    service.options = VllmOptions();
    return service;
  }
  /// "message | hint" of each problem.
  std::vector<std::string> problems(const Service& service, const fs::path& binary = {}) {
    std::vector<std::string> out;
    catalog_.services[service.id] = service;
    for (const auto& problem : model_problems(service, additions_of(catalog_, service), root_.path(), binary)) {
      EXPECT_EQ(problem.code, ErrorCode::refused);
      out.push_back(problem.message + " | " + problem.hint);
    }
    return out;
  }

  TestFolder root_;
  Catalog catalog_;
  Paths paths_;
};

TEST_F(ModelCheckTest, ASoundModelIsNoProblem) {
  EXPECT_THAT(problems(llama(write("m.gguf", gguf()))), IsEmpty());
}

TEST_F(ModelCheckTest, WhatIsNoFileIsSaidWithItsService) {
  ASSERT_EQ(::mkfifo((root_ / "pipe.gguf").c_str(), 0600), 0);
  fs::create_symlink(root_ / "gone.gguf", root_ / "link.gguf");
  fs::create_directory(root_ / "folder");
  EXPECT_THAT(problems(llama(root_ / "pipe.gguf")),
              ElementsAre(HasSubstr("service 'chat': model " + (root_ / "pipe.gguf").string() + " is a FIFO")));
  EXPECT_THAT(problems(llama(root_ / "link.gguf")),
              ElementsAre(AllOf(HasSubstr("is a link that leads nowhere"), HasSubstr("services/chat.yaml"))));
  EXPECT_THAT(problems(llama(root_ / "folder")), ElementsAre(HasSubstr("is a folder, and llama-server takes a file")));
  EXPECT_THAT(problems(llama(root_ / "none.gguf")), ElementsAre(HasSubstr("none.gguf is not there")));
}

TEST_F(ModelCheckTest, ASeriesMustBeWhole) {
  const auto first = write("big-00001-of-00003.gguf", gguf());
  EXPECT_THAT(problems(llama(first)),
              ElementsAre(HasSubstr("big-00002-of-00003.gguf is not there (and 1 more of its files)")));
}

TEST_F(ModelCheckTest, AHeaderThatMakesNoSenseIsFoundBeforeTheServerFindsIt) {
  EXPECT_THAT(problems(llama(write("cut.gguf", gguf().substr(0, 40)))), ElementsAre(HasSubstr("at byte")));
  EXPECT_THAT(problems(llama(write("page.gguf", "<html>not found</html>"))), ElementsAre(HasSubstr("page.gguf")));
  const auto words = GgufWriter().text("general.architecture", "qwen3").texts("tokenizer.ggml.tokens", {"a", "b"});
  EXPECT_THAT(problems(llama(write("words.gguf", words.bytes()))),
              ElementsAre(HasSubstr("words.gguf holds a vocabulary and no weights")));
  EXPECT_THAT(problems(llama(write("mmproj.gguf", gguf("clip")))),
              ElementsAre(HasSubstr("is no model but a projector")));
}

TEST_F(ModelCheckTest, ARoutersModelMustBeInItsFolder) {
  write("models/coder.gguf", gguf());
  write("models/vision/vision-Q4.gguf", gguf());
  write("models/vision/mmproj-vision.gguf", gguf("clip"));
  auto service = llama({});
  std::get<LlamaOptions>(service.options).models_dir = root_ / "models";
  for (const char* name : {"coder", "vision", "org/downloaded:Q4"}) {
    service.model.id = name;
    EXPECT_THAT(problems(service), IsEmpty()) << name;
  }
  service.model.id = "codr";
  EXPECT_THAT(problems(service), ElementsAre(AllOf(HasSubstr("codr.gguf is not there"), HasSubstr("'coder'"))));
  write("models/two/README.md", "no model");
  write("models/two/Q4.gguf", gguf());
  write("models/two/Q8.gguf", gguf());
  service.model.id = "two";
  EXPECT_THAT(problems(service), IsEmpty()) << "which of them, the router knows";
  write("models/broken.gguf", "GGUF but no more");
  service.model.id = "broken";
  EXPECT_THAT(problems(service), ElementsAre(HasSubstr("broken.gguf: at byte")));
  std::get<LlamaOptions>(service.options).models_dir = root_ / "nowhere";
  EXPECT_THAT(problems(service),
              ElementsAre(HasSubstr("models_dir " + (root_ / "nowhere").string() + " is not there")));
}

TEST_F(ModelCheckTest, FilesBesideTheModelMustBeThereToo) {
  auto service = llama(write("m.gguf", gguf()));
  service.extra_args = {"--mmproj", (root_ / "mmproj.gguf").string(), "--lora", "relative.gguf"};
  EXPECT_THAT(problems(service),
              ElementsAre(HasSubstr("--mmproj " + (root_ / "mmproj.gguf").string() + " is not there")));
}

TEST_F(ModelCheckTest, AnArchitectureThatTheLibraryDoesNotKnowIsSaid) {
  const auto model = write("m.gguf", gguf("brandnew"));
  const auto binary = write("llama/bin/llama-server", elf_program({"libllama.so.0"}, "$ORIGIN/../lib"));
  EXPECT_THAT(problems(llama(model), binary), IsEmpty()) << "no library is found: nothing is known";
  const std::string known("general.architecture\0xbrand\0qwen3\0", 34);
  write("llama/lib/libllama.so.0", known);
  EXPECT_THAT(problems(llama(model), binary), ElementsAre(HasSubstr("does not know the architecture brandnew")));
  EXPECT_THAT(problems(llama(write("q.gguf", gguf())), binary), IsEmpty());
  write("llama/lib/libllama.so.0", known + std::string("brandnew\0", 9));
  EXPECT_THAT(problems(llama(model), binary), IsEmpty());
}

TEST_F(ModelCheckTest, ALibraryThatAnotherOneLoadsForTheProgramCounts) {
  const auto model = write("m.gguf", gguf("brandnew"));
  const auto binary =
      write("llama/bin/llama-server", elf_program({"libllama-server-impl.so", "libc.so.6"}, "$ORIGIN/../lib/llama"));
  write("llama/lib/libllama.so.0", std::string("general.architecture\0qwen3\0", 27));
  EXPECT_THAT(problems(llama(model), binary), IsEmpty()) << "what it is made of is not there";
  write("llama/lib/llama/libllama-server-impl.so",
        elf_program({"libllama-common.so.0", "libllama.so.0"}, "$ORIGIN/.."));
  EXPECT_THAT(problems(llama(model), binary), ElementsAre(HasSubstr("does not know the architecture brandnew")));
  EXPECT_THAT(problems(llama(write("q.gguf", gguf())), binary), IsEmpty());
  write("llama/lib/llama/libllama-server-impl.so", elf_program({"libllama-common.so.0"}, "$ORIGIN/.."));
  write("llama/lib/libllama-common.so.0", elf_program({"libllama.so.0"}, "$ORIGIN"));
  EXPECT_THAT(problems(llama(model), binary), ElementsAre(HasSubstr("brandnew"))) << "two steps away";
  write("llama/lib/libllama-common.so.0", elf_program({"libllama-common.so.0"}, "$ORIGIN"));
  EXPECT_THAT(problems(llama(model), binary), IsEmpty()) << "one that asks for itself comes to no end, and to nothing";
}

TEST_F(ModelCheckTest, ALibraryThatTheProgramMayNotLoadSaysNothing) {
  const auto model = write("m.gguf", gguf("brandnew"));
  write("llama/lib/libllama.so.0", std::string("general.architecture\0qwen3\0", 27));
  const auto binary = write("llama/bin/llama-server", "#!/bin/sh\nexec elsewhere/llama-server\n");
  EXPECT_THAT(problems(llama(model), binary), IsEmpty()) << "a script";
  for (const auto& program : {elf_program({"libc.so.6"}, "$ORIGIN/../lib"), elf_program({"libllama.so.0"}, ""),
                              elf_program({"libllama.so.0"}, "relative:$ORIGIN/../lib"),
                              elf_program({"libllama.so.0"}, "$LIB:$ORIGIN/../lib")}) {
    write("llama/bin/llama-server", program);
    EXPECT_THAT(problems(llama(model), binary), IsEmpty());
  }
  write("llama/bin/llama-server", elf_program({"libllama.so.0"}, (root_ / "none").string() + ":$ORIGIN/../lib"));
  EXPECT_THAT(problems(llama(model), binary), ElementsAre(HasSubstr("brandnew")));
  auto& settings = catalog_.settings.engines[EngineKind::llamacpp];
  settings.environment.emplace("LD_LIBRARY_PATH", Secret("/opt/newer"));
  EXPECT_THAT(problems(llama(model), binary), IsEmpty());
}

TEST_F(ModelCheckTest, WhatTheEnginesSettingsSayCountsAsAtItsStart) {
  auto hub = vllm({});
  hub.model.id = "Org/Model";
  catalog_.settings.engines[EngineKind::vllm].environment.emplace("HF_HOME", Secret((root_ / "disk").string()));
  write("disk/hub/models--Org--Model/snapshots/a/config.json", "{}");
  write("disk/hub/models--Org--Model/snapshots/a/model.safetensors", shard("a"));
  EXPECT_THAT(problems(hub), IsEmpty());
  hub.environment.emplace("HF_HOME", Secret((root_ / "other").string()));
  EXPECT_THAT(problems(hub), ElementsAre(HasSubstr("not in the cache " + (root_ / "other/hub").string())));

  auto& words = catalog_.settings.engines[EngineKind::llamacpp].extra_args;
  words = {"-m", write("m.gguf", gguf()).string()};
  EXPECT_THAT(problems(llama(root_ / "gone.gguf")), IsEmpty()) << "llama-server takes the last that it is told of";
  words = {"--mmproj", (root_ / "none.gguf").string()};
  EXPECT_THAT(problems(llama(root_ / "m.gguf")),
              ElementsAre(AllOf(HasSubstr("--mmproj"), HasSubstr("extra_args in gpumod.yaml"))));
  auto own = llama(root_ / "m.gguf");
  own.extra_args = {"--mmproj", write("mmproj.gguf", gguf("clip")).string()};
  EXPECT_THAT(problems(own), IsEmpty()) << "the last counts";
}

TEST_F(ModelCheckTest, WhichFileOfARepositoryALlamaServerTakesIsItsAffair) {
  auto service = llama({});
  service.model.id = "Org/Model-GGUF";
  write(".cache/huggingface/hub/models--Org--Model-GGUF/snapshots/a/model.gguf", gguf());
  EXPECT_THAT(problems(service), IsEmpty());
}

TEST_F(ModelCheckTest, AdaptersMayStandBetweenCommas) {
  auto service = llama(write("m.gguf", gguf()));
  const auto one = write("one.gguf", gguf()), other = root_ / "other.gguf";
  service.extra_args = {"--lora", one.string() + "," + other.string()};
  EXPECT_THAT(problems(service), ElementsAre(HasSubstr("--lora " + other.string() + " is not there")));
  write("other.gguf", gguf());
  EXPECT_THAT(problems(service), IsEmpty());
  service.extra_args = {"--lora", write("with,comma.gguf", gguf()).string()};
  EXPECT_THAT(problems(service), IsEmpty());
}

TEST_F(ModelCheckTest, FilesThatTheEngineDoesNotReadStandInNobodysWay) {
  write("hf/config.json", "{}");
  write("hf/model.safetensors", shard("a"));
  fs::create_symlink("gone", root_ / "hf/notes.json");
  fs::create_symlink("gone", root_ / "hf/chat_template.jinja");
  EXPECT_THAT(problems(vllm(root_ / "hf")), IsEmpty());
  fs::create_symlink("gone", root_ / "hf/tokenizer.json");
  EXPECT_THAT(problems(vllm(root_ / "hf")), ElementsAre(HasSubstr("tokenizer.json is a link that leads nowhere")));
  auto other = vllm(root_ / "hf");
  other.extra_args = {"--tokenizer=Org/Other"};
  EXPECT_THAT(problems(other), IsEmpty());
  write("gguf/model.gguf", gguf());
  fs::create_symlink("gone", root_ / "gguf/mmproj-model.gguf");
  EXPECT_THAT(problems(vllm(root_ / "gguf")), IsEmpty());
}

TEST_F(ModelCheckTest, AVllmModelNeedsItsShardsAndTheyMustBeSound) {
  write("hf/config.json", "{}");
  write("hf/model.safetensors.index.json", R"({"weight_map":{"a":"a.safetensors","b":"b.safetensors"}})");
  write("hf/a.safetensors", shard("a"));
  EXPECT_THAT(problems(vllm(root_ / "hf")), ElementsAre(HasSubstr("b.safetensors is not there")));
  auto other_format = vllm(root_ / "hf");
  other_format.extra_args = {"--load-format", "mistral"};
  EXPECT_THAT(problems(other_format), IsEmpty());
  write("hf/b.safetensors", shard("b").substr(0, 30));
  EXPECT_THAT(problems(vllm(root_ / "hf")), ElementsAre(HasSubstr("b.safetensors")));
  write("hf/b.safetensors", shard("b"));
  EXPECT_THAT(problems(vllm(root_ / "hf")), IsEmpty());
  write("hf/config.json", "{");
  EXPECT_THAT(problems(vllm(root_ / "hf")), ElementsAre(HasSubstr("config.json is no JSON object")));
  fs::remove(root_ / "hf/config.json");
  EXPECT_THAT(problems(vllm(root_ / "hf")), ElementsAre(HasSubstr("holds no config.json")));
  write("hf/params.json", "{}");
  EXPECT_THAT(problems(vllm(root_ / "hf")), IsEmpty()) << "Mistral's layout";
}

TEST_F(ModelCheckTest, AHubModelMustBeDownloadedToItsEnd) {
  auto service = vllm({});
  service.model.id = "Org/Model";
  EXPECT_THAT(problems(service),
              ElementsAre(AllOf(HasSubstr("model Org/Model is not in the cache"), HasSubstr("hf download Org/Model"))));
  const fs::path model = ".cache/huggingface/hub/models--Org--Model";
  write(model / "snapshots/old/config.json", "{");
  write(model / "refs/main", "new\n");
  write(model / "snapshots/new/config.json", "{}");
  fs::create_symlink("../../blobs/unfinished", root_ / model / "snapshots/new/model.safetensors");
  EXPECT_THAT(problems(service),
              ElementsAre(AllOf(HasSubstr("leads nowhere"), HasSubstr("Its download was not finished"))));
  write(model / "blobs/unfinished", shard("a"));
  EXPECT_THAT(problems(service), IsEmpty()) << "refs/main says which snapshot counts";
  auto other_format = service;
  other_format.extra_args = {"--load-format", "dummy"};
  fs::remove(root_ / model / "snapshots/new/config.json");
  fs::create_directory(root_ / model / "snapshots/new/config.json");
  EXPECT_THAT(problems(other_format), ElementsAre(AllOf(HasSubstr("config.json"), HasSubstr("hf download Org/Model"))))
      << "the place to mend it is the cache, not the service's file";
  service.model.id = "Org/Other";
  service.environment.emplace("HF_HUB_OFFLINE", Secret("0"));
  EXPECT_THAT(problems(service), IsEmpty()) << "it may download by itself";
}

TEST_F(ModelCheckTest, FlagsMustFitTheModelAndEachOther) {
  write("hf/config.json", R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"num_hidden_layers":1,
      "num_attention_heads":14,"hidden_size":896,"vocab_size":100,"intermediate_size":128})");
  write("hf/model.safetensors", shard("a"));
  auto service = vllm(root_ / "hf");
  std::get<VllmOptions>(service.options).tensor_parallel_size = 4;
  EXPECT_THAT(problems(service), ElementsAre(HasSubstr("the model's 14 attention heads cannot be divided by it")));
  std::get<VllmOptions>(service.options).tensor_parallel_size = 2;
  EXPECT_THAT(problems(service), IsEmpty());
  service.extra_args = {"--no-enable-sleep-mode"};
  EXPECT_THAT(problems(service), IsEmpty());
  service.sleep = SleepAbility::level1;
  EXPECT_THAT(problems(service), ElementsAre(HasSubstr("--no-enable-sleep-mode")));
}

TEST_F(ModelCheckTest, TokenizersThatAVllmIsKnownToFailOn) {
  write("hf/config.json", "{}");
  write("hf/model.safetensors", shard("a"));
  const auto binary = write("venv/bin/vllm", "");
  const fs::path packages = root_ / "venv/lib/python3.12/site-packages";
  fs::create_directories(packages / "vllm-0.11.2.dist-info");
  fs::create_directories(packages / "transformers-5.1.0.dist-info");
  EXPECT_EQ(installed_package_version(binary, "transformers"), "5.1.0");
  EXPECT_THAT(problems(vllm(root_ / "hf"), binary),
              ElementsAre(AllOf(HasSubstr("vLLM 0.11.2 fails on every tokenizer with transformers 5.1.0"),
                                HasSubstr("transformers<5"))));
  fs::rename(packages / "transformers-5.1.0.dist-info", packages / "transformers-4.57.6.dist-info");
  EXPECT_THAT(problems(vllm(root_ / "hf"), binary), IsEmpty());
  fs::rename(packages / "transformers-4.57.6.dist-info", packages / "transformers-5.1.0.dist-info");
  fs::rename(packages / "vllm-0.11.2.dist-info", packages / "vllm-0.13.0.dist-info");
  EXPECT_THAT(problems(vllm(root_ / "hf"), binary), IsEmpty());
}

TEST_F(ModelCheckTest, APackageOfAnotherPythonIsNotTheProgramsOwn) {
  const auto binary = write("venv/bin/vllm", "#!" + (root_ / "venv/bin/python").string() + "\nimport vllm\n");
  const fs::path library = root_ / "venv/lib";
  fs::create_directories(library / "python3.11/site-packages/vllm-0.11.2.dist-info");
  fs::create_directories(library / "python3.12/site-packages/transformers-5.1.0.dist-info");
  EXPECT_EQ(installed_package_version(binary, "vllm"), "") << "which of the two is not known";
  write("usr/bin/python3.12", "");
  fs::create_symlink(root_ / "usr/bin/python3.12", root_ / "venv/bin/python");
  EXPECT_EQ(installed_package_version(binary, "vllm"), "");
  EXPECT_EQ(installed_package_version(binary, "transformers"), "5.1.0");
  fs::create_directories(root_ / "local/bin");
  fs::create_directories(root_ / "local/lib/python3.12/site-packages/transformers-4.57.6.dist-info");
  fs::create_symlink(binary, root_ / "local/bin/vllm");
  EXPECT_EQ(installed_package_version(root_ / "local/bin/vllm", "transformers"), "5.1.0") << "a link into it";
}

TEST_F(ModelCheckTest, AnAdoptedUnitThatCannotSleepIsSaid) {
  auto service = vllm({});
  service.unit = "mine.service";
  service.sleep = SleepAbility::level1;
  const auto unit = write("mine.service", "[Service]\nExecStart=/opt/v/bin/vllm serve Qwen/Qwen3-8B \\\n  --port 1\n");
  const auto found = adopted_unit_problems(paths_, service, unit);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_THAT(found.front().message, HasSubstr("mine.service starts vLLM without --enable-sleep-mode"));
  for (const char* fine :
       {"ExecStart=/opt/v/bin/vllm serve M \\\n --enable-sleep-mode\n", "ExecStart=vllm serve M --enable_sleep_mode\n",
        "ExecStart=vllm serve --config m.yaml\n", "ExecStart=vllm serve M $MORE\n", "ExecStart=/home/me/start.sh\n"}) {
    write("mine.service", fine);
    EXPECT_TRUE(adopted_unit_problems(paths_, service, unit).empty()) << fine;
  }
  write("mine.service", "ExecStart=vllm serve M\n");
  EXPECT_EQ(adopted_unit_problems(paths_, service, unit).size(), 1U);
  service.sleep = SleepAbility::none;
  EXPECT_TRUE(adopted_unit_problems(paths_, service, unit).empty());
}

TEST_F(ModelCheckTest, WhatIsAddedToAnAdoptedUnitMaySayOtherwise) {
  auto service = vllm({});
  service.sleep = SleepAbility::level1;
  const auto unit = write("units/gpu-vllm@.service", "[Service]\nExecStart=/opt/v/bin/vllm serve M\n");
  service.unit = "gpu-vllm@one.service";
  EXPECT_EQ(adopted_unit_problems(paths_, service, unit).size(), 1U);
  for (const char* folder : {"gpu-vllm@one.service.d", "gpu-vllm@.service.d", "gpu-.service.d", "service.d"}) {
    const fs::path below = fs::path(".config/systemd/user") / folder;
    write(below / "more.conf", "");
    EXPECT_TRUE(adopted_unit_problems(paths_, service, unit).empty()) << folder;
    fs::remove_all(root_ / below);
  }
}

TEST_F(ModelCheckTest, ServicesThatNameNoModelHaveNoPlace) {
  auto service = llama({});
  service.engine = EngineKind::command;
  service.options = CommandOptions();
  EXPECT_FALSE(place_of_model(service, {}, root_.path()));
  service.model.id = "just-a-name";
  EXPECT_FALSE(place_of_model(service, {}, root_.path()));
  service.model.id = "Org/Model";
  EXPECT_EQ(place_of_model(service, {}, root_.path())->hub_id, "Org/Model");
}

}  // namespace
}  // namespace gpumod
