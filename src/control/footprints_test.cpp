#include "control/footprints.h"

#include <fstream>
#include <functional>
#include <set>

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/folder_testing.h"
#include "formats/gguf_testing.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

struct FootprintsTest : ::testing::Test {
  FootprintsTest() {
    paths.home = folder / "home";
    paths.cache = folder / "cache";
    folder.program("bin/server", "#!/bin/sh\n");
    folder.write("models/coder.gguf", tiny_model(2));
    Service service;
    service.id = "coder";
    service.engine = EngineKind::llamacpp;
    service.port = 7071;
    service.binary = folder / "bin/server";
    service.model.path = folder / "models/coder.gguf";
    LlamaOptions options;
    options.context_size = 4096;
    options.gpu_layers = 99;
    service.options = options;
    catalog.services["coder"] = service;
  }

  static std::string tiny_model(std::uint64_t layers) {
    GgufWriter file;
    file.text("general.architecture", "llama")
        .number("llama.context_length", 32768)
        .number("llama.embedding_length", 64)
        .number("llama.block_count", layers)
        .number("llama.feed_forward_length", 128)
        .number("llama.attention.head_count", 4)
        .number("llama.attention.head_count_kv", 2);
    file.tensor("token_embd.weight", {64, 256}).tensor("output.weight", {64, 256});
    for (std::uint64_t i = 0; i < layers; ++i)
      file.tensor("blk." + std::to_string(i) + ".attn_q.weight", {64, 64});
    return file.bytes();
  }
  Service& coder() { return catalog.services.at("coder"); }
  LlamaOptions& options() { return std::get<LlamaOptions>(coder().options); }
  std::string key(const std::string& driver = "580.65") const {
    const auto keys = footprint_keys(paths, catalog, driver);
    const auto found = keys.find("coder");
    return found == keys.end() ? "none" : found->second;
  }
  Footprint known() const {
    Footprints all;
    add_estimates(paths, catalog, {"coder"}, all);
    return all["coder"];
  }

  TestFolder folder;
  Paths paths;
  Catalog catalog;
};

TEST_F(FootprintsTest, AKeyIsTheSameUntilSomethingThatMattersChanges) {
  const auto before = key();
  EXPECT_EQ(before.size(), 32u);
  EXPECT_EQ(key(), before);
  coder().port = 7072;
  coder().model.served_name = "another";
  coder().environment["HF_TOKEN"] = Secret("hf_secret");
  coder().extra_args = {"--metrics", "--api-key", "secret"};
  EXPECT_EQ(key(), before) << "nothing of that takes memory or time";
}

TEST_F(FootprintsTest, OfAProgramThatNobodyKnowsEverythingMatters) {
  coder().engine = EngineKind::command;
  coder().options = CommandOptions{{(folder / "bin/server").string()}, {}, {}};
  std::set<std::string> seen{key()};
  const auto is_new = [&](const char* what) { EXPECT_TRUE(seen.insert(key()).second) << what; };
  coder().extra_args = {"-a", "whisper-small"};
  is_new("what is another server's alias");
  coder().extra_args = {"-a", "whisper-large"};
  is_new("and its value");
  coder().environment["MAX_TOKENS"] = Secret("1");
  is_new("a variable that sounds like a secret");
  coder().environment["API_KEY"] = Secret("a");
  is_new("one that is");
  coder().environment["API_KEY"] = Secret("b");
  is_new("another secret");
  coder().working_directory = folder / "models";
  is_new("where it looks for its files");
}

TEST_F(FootprintsTest, OnlyTheNamesThatAnEngineIsKnownToUseAreIdle) {
  const auto before = key();
  coder().environment["LLAMA_API_KEY"] = Secret("secret");
  EXPECT_EQ(key(), before);
  coder().environment["CACHE_TOKENS"] = Secret("4096");
  EXPECT_NE(key(), before);
  coder().environment.clear();
  coder().extra_args = {"-m", (folder / "models/other.gguf").string()};
  EXPECT_NE(key(), before) << "it runs another model than its file says";
}

TEST_F(FootprintsTest, EveryPartOfASeriesMatters) {
  folder.write("models/big-00001-of-00002.gguf", "GGUF");
  coder().model.path = folder / "models/big-00001-of-00002.gguf";
  const auto without = key();
  folder.write("models/big-00002-of-00002.gguf", "GGUF");
  const auto whole = key();
  EXPECT_NE(whole, without);
  folder.write("models/big-00002-of-00002.gguf", "GGUF, another one");
  EXPECT_NE(key(), whole);
}

TEST_F(FootprintsTest, EverythingThatMattersChangesIt) {
  std::set<std::string> seen{key()};
  const auto is_new = [&](const char* what) { EXPECT_TRUE(seen.insert(key()).second) << what; };
  options().context_size = 8192;
  is_new("context");
  options().gpu_layers = 20;
  is_new("layers");
  coder().extra_args = {"--cache-type-k", "q8_0"};
  is_new("an argument");
  coder().environment["GGML_CUDA_FORCE_MMQ"] = Secret("1");
  is_new("a variable");
  catalog.settings.engines[EngineKind::llamacpp].extra_args = {"--no-mmap"};
  is_new("an argument of the engine");
  folder.write("models/coder.gguf", tiny_model(3));
  is_new("the model");
  folder.write("bin/server", "#!/bin/sh\n# a newer build\n");
  is_new("the engine's build");
  EXPECT_TRUE(seen.insert(key("590.01")).second) << "the driver";
}

TEST_F(FootprintsTest, WhatCannotBeStartedHasNone) {
  coder().binary = folder / "bin/nothing";
  EXPECT_EQ(key(), "none");
}

TEST_F(FootprintsTest, AModelOfARouterIsNotChangedByItsNeighbours) {
  coder().router = "llama";
  options().models_dir = folder / "models";
  const auto alone = key();
  auto neighbour = coder();
  neighbour.id = "neighbour";
  neighbour.model.path = folder / "models/neighbour.gguf";
  catalog.services["neighbour"] = neighbour;
  std::get<LlamaOptions>(catalog.services["neighbour"].options).context_size = 1024;
  EXPECT_EQ(key(), alone);
  catalog.services["neighbour"].extra_args = {"-np", "1"};
  EXPECT_NE(key(), alone) << "that stands on the command line of both";
  EXPECT_TRUE(footprint_keys(paths, catalog, "").contains(coder().unit_name())) << "the router itself";
}

TEST_F(FootprintsTest, APeoplesUnitIsKnownByItsFile) {
  coder().unit = "mine.service";
  EXPECT_EQ(key(), "none") << "there is no such file";
  const char* was = ::getenv("XDG_CONFIG_HOME");
  const std::string before = was ? was : "";
  ::setenv("XDG_CONFIG_HOME", (folder / "xdg").c_str(), 1);
  folder.write("xdg/systemd/user/mine.service", "[Service]\nExecStart=/bin/true\n");
  const auto first = key();
  EXPECT_NE(first, "none");
  folder.write("xdg/systemd/user/mine.service.d/more.conf", "[Service]\nEnvironment=A=1\n");
  EXPECT_NE(key(), first);
  // Drop-ins may also be said for all instances of a template, for a family of names, and for every service.
  coder().unit = "llama-big@coder.service";
  folder.write("xdg/systemd/user/llama-big@.service", "[Service]\nExecStart=/bin/true\n");
  std::set<std::string> seen{key()};
  for (const char* place : {"llama-big@coder.service.d", "llama-big@.service.d", "llama-.service.d", "service.d"}) {
    folder.write(fmt::format("xdg/systemd/user/{}/more.conf", place), "[Service]\nEnvironment=A=1\n");
    EXPECT_TRUE(seen.insert(key()).second) << place;
  }
  was ? ::setenv("XDG_CONFIG_HOME", before.c_str(), 1) : ::unsetenv("XDG_CONFIG_HOME");
}

TEST_F(FootprintsTest, AnEstimateComesFromTheFileAndTheFlags) {
  const auto footprint = known();
  ASSERT_TRUE(footprint.estimated) << footprint.not_estimated;
  EXPECT_EQ(footprint.estimated->weights.count(), (64 * 256 + 2 * 64 * 64) * 4) << "token embeddings stay in the host";
  EXPECT_EQ(footprint.estimated->kv.count(), 2 * 2 * 2 * 16 * 2 * 4096);
  options().context_size = 8192;
  EXPECT_EQ(known().estimated->kv.count(), 2 * 2 * 2 * 16 * 2 * 8192);
}

/// Other bytes, of the same size and time of change.
void replace_unnoticed(const fs::path& file, const std::function<std::string(std::size_t)>& bytes_of) {
  struct stat info {};
  ASSERT_EQ(::stat(file.c_str(), &info), 0);
  std::ofstream(file, std::ios::binary) << bytes_of(static_cast<std::size_t>(info.st_size));
  const timespec times[2] = {info.st_atim, info.st_mtim};
  ASSERT_EQ(::utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
}

TEST_F(FootprintsTest, AHeaderIsReadOnceAndThenAgainWhenTheFileChanges) {
  const auto first = known();
  // The file is not looked into again, and what was found is still there.
  replace_unnoticed(folder / "models/coder.gguf", [](std::size_t size) { return std::string(size, 'x'); });
  const auto again = known();
  ASSERT_TRUE(again.estimated);
  EXPECT_EQ(again.estimated->total(), first.estimated->total());
  EXPECT_EQ(again.estimated->assumptions, first.estimated->assumptions);
  folder.write("models/coder.gguf", tiny_model(4));
  EXPECT_GT(known().estimated->weights, first.estimated->weights);
}

TEST_F(FootprintsTest, WhatCouldNotBeReadIsTriedAgain) {
  const auto model = tiny_model(2);
  folder.write("models/coder.gguf", std::string(model.size(), 'x'));
  EXPECT_FALSE(known().estimated);
  replace_unnoticed(folder / "models/coder.gguf", [&](std::size_t) { return model; });
  EXPECT_TRUE(known().estimated) << known().not_estimated;
}

TEST_F(FootprintsTest, WhyThereIsNoneIsSaid) {
  coder().extra_args = {"--mmproj", "eyes.gguf"};
  EXPECT_THAT(known().not_estimated, HasSubstr("--mmproj"));
  coder().extra_args.clear();
  catalog.settings.engines[EngineKind::llamacpp].environment["LLAMA_ARG_CTX_SIZE"] = Secret("99");
  inherit(catalog, coder());
  EXPECT_THAT(known().not_estimated, HasSubstr("LLAMA_ARG_CTX_SIZE"));
  catalog.settings.engines.clear();
  inherit(catalog, coder());
  coder().model.path = folder / "models/nothing.gguf";
  EXPECT_THAT(known().not_estimated, HasSubstr("nothing.gguf is not there"));
  folder.write("models/broken.gguf", "GGUF");
  coder().model.path = folder / "models/broken.gguf";
  EXPECT_FALSE(known().estimated);
  EXPECT_NE(known().not_estimated, "");
  coder().vram = Bytes(0);
  EXPECT_EQ(known().not_estimated, "") << "it uses no GPU: nobody asks";
}

TEST_F(FootprintsTest, ARoutersModelIsFoundByItsName) {
  coder().router = "llama";
  coder().model = ModelSource{"coder", {}, {}};
  options().models_dir = folder / "models";
  EXPECT_TRUE(known().estimated) << known().not_estimated;
  fs::create_directories(folder / "models/big");
  fs::rename(folder / "models/coder.gguf", folder / "models/big/big-00001-of-00001.gguf");
  coder().model.id = "big";
  EXPECT_TRUE(known().estimated) << known().not_estimated;
}

TEST_F(FootprintsTest, TheModelThatTheServerIsToldOfLastIsTheOneThatMatters) {
  const auto other = folder.write("models/other.gguf", tiny_model(4));
  catalog.settings.engines[EngineKind::llamacpp].extra_args = {"-m", other.string()};
  const auto before = key();
  folder.write("models/coder.gguf", tiny_model(3));
  EXPECT_EQ(key(), before);
  folder.write("models/other.gguf", tiny_model(8));
  EXPECT_NE(key(), before);
}

TEST_F(FootprintsTest, MeasurementsAreSummedUpBySubjectAndGpu) {
  Measurement run;
  run.subject = "coder";
  run.gpu = "A card";
  run.peak = Bytes::mib(100);
  auto other = run;
  other.peak = Bytes::mib(120);
  Footprints all;
  add_measurements({run, other}, all);
  EXPECT_EQ(all["coder"].measured.at("A card").peak, Bytes::mib(120));
  EXPECT_EQ(all["coder"].measured.at("A card").runs, 2);
}

}  // namespace
}  // namespace gpumod
