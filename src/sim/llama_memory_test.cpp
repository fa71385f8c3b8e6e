// The pure parts of the simulated llama-server: what fits, what the command line says, which models there are.
#include "sim/llama_memory.h"

#include <fstream>

#include <gmock/gmock.h>

#include "host/local_testing.h"
#include "sim/llama_listing.h"

namespace gpumod::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

LlamaSettings said(const std::vector<std::string>& words) {
  auto settings = parse_llama_arguments(words);
  EXPECT_TRUE(settings) << settings.error().message;
  return settings.value_or(LlamaSettings{});
}

LlamaModel model() {
  LlamaModel model;
  model.weights = Bytes::gib(16);
  model.kv_per_1k = Bytes::mib(128);  // 4 GiB at 32768
  model.compute = Bytes::mib(512);
  model.layers = 64;
  model.context = 32768;
  model.tokens_per_second = 50;
  model.cpu_tokens_per_second = 2;
  return model;
}

LlamaPlacement place(const std::vector<std::string>& words, std::int64_t free_mib) {
  return place_llama(model(), said(words), Gpu::Memory{Bytes::gib(24), Bytes::mib(free_mib)});
}

TEST(LlamaMemory, EverythingFits) {
  const auto placed = place({}, 22016);
  EXPECT_EQ(placed.context, 32768);
  EXPECT_EQ(placed.layers, 64);
  EXPECT_EQ(placed.total(), Bytes::mib(16384 + 4096 + 512));
  EXPECT_DOUBLE_EQ(placed.tokens_per_second, 50);
}

TEST(LlamaMemory, WhatIsNotPinnedShrinksToWhatIsFreeFirstTheContext) {
  // 1024 MiB stay free: 19976 MiB for 16896 and 128 MiB for each 1024 tokens.
  const auto shorter = place({}, 21000);
  EXPECT_EQ(shorter.layers, 64);
  EXPECT_EQ(shorter.context, 24576);
  EXPECT_LE(shorter.total(), Bytes::mib(19976));
  EXPECT_DOUBLE_EQ(shorter.tokens_per_second, 50);

  const auto partly = place({}, 10000);
  EXPECT_EQ(partly.context, 4096);
  EXPECT_EQ(partly.layers, 32);
  EXPECT_LE(partly.total(), Bytes::mib(8976));
  EXPECT_NEAR(partly.tokens_per_second, 3.9, 0.1) << "half of the layers on the CPU";

  const auto nothing = place({}, 1200);
  EXPECT_EQ(nothing.layers, 0);
  EXPECT_EQ(nothing.total(), Bytes());
  EXPECT_DOUBLE_EQ(nothing.tokens_per_second, 2);
}

TEST(LlamaMemory, TheLeastContextAndTheMarginCanBeSaid) {
  EXPECT_EQ(place({"--fit-ctx", "16384"}, 10000).context, 16384);
  EXPECT_EQ(place({"--fit-target", "0"}, 20992).context, 32768);
  EXPECT_LT(place({"--fit-target", "1"}, 20992).context, 32768);
}

TEST(LlamaMemory, WhatIsPinnedStays) {
  const auto context = place({"-c", "32768"}, 10000);
  EXPECT_EQ(context.context, 32768);
  EXPECT_LT(context.layers, 64);
  const auto layers = place({"-ngl", "64"}, 10000);
  EXPECT_EQ(layers.layers, 64);
  EXPECT_EQ(layers.context, 4096);
  EXPECT_GT(layers.total(), Bytes::mib(10000)) << "the load fails, as it does in life";
  const auto both = place({"-c", "8192", "-ngl", "all"}, 1000);
  EXPECT_EQ(both.total(), Bytes::mib(16384 + 1024 + 512));
  EXPECT_EQ(place({"--fit", "off"}, 1000).total(), Bytes::mib(16384 + 4096 + 512));
}

TEST(LlamaMemory, LayersAndContextTakeTheirShare) {
  const auto half = place({"-c", "8000", "-ngl", "32"}, 23000);
  EXPECT_EQ(half.context, 8192) << "rounded up to 256";
  EXPECT_EQ(half.weights, Bytes::gib(8));
  EXPECT_EQ(half.kv, Bytes::mib(512));
  EXPECT_EQ(half.compute, Bytes::mib(512));
  EXPECT_EQ(place({"-ngl", "0"}, 23000).total(), Bytes());
  EXPECT_EQ(place({"-ngl", "99"}, 23000).layers, 64);
  EXPECT_EQ(place({"--no-kv-offload"}, 23000).kv, Bytes());
  const auto experts = place({"--n-cpu-moe", "32"}, 23000);
  EXPECT_LT(experts.weights, Bytes::gib(16));
  EXPECT_LT(experts.tokens_per_second, 50);
}

TEST(LlamaMemory, WithoutGpuNothingIsTaken) {
  const auto placed = place_llama(model(), said({"-c", "1000"}), std::nullopt);
  EXPECT_EQ(placed.context, 1024);
  EXPECT_EQ(placed.total(), Bytes());
  EXPECT_DOUBLE_EQ(placed.tokens_per_second, 50);
}

TEST(LlamaFlags, WordsAndVariables) {
  const auto settings = said({"-c", "10", "-ngl", "all", "--no-warmup", "--jinja", "-a", "x"});
  EXPECT_EQ(settings.number("ctx-size"), 10);
  EXPECT_EQ(settings.text("n-gpu-layers"), "all");
  EXPECT_FALSE(settings.flag("warmup", true));
  EXPECT_TRUE(settings.flag("jinja"));
  EXPECT_THAT(llama_words(settings),
              ElementsAre("--jinja", "--no-warmup", "--alias", "x", "--ctx-size", "10", "--n-gpu-layers", "all"));
  ::setenv("LLAMA_ARG_CTX_SIZE", "77", 1);
  EXPECT_EQ(said({}).number("ctx-size"), 77);
  EXPECT_EQ(said({"-c", "78"}).number("ctx-size"), 78);
  ::unsetenv("LLAMA_ARG_CTX_SIZE");
  EXPECT_THAT(parse_llama_arguments({"--ctx-sise", "1"}).error().message, HasSubstr("invalid argument: --ctx-sise"));
}

class LlamaFiles : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((directory_.path() / name).parent_path());
    std::ofstream(directory_.path() / name) << text;
  }
  Result<LlamaModel> read(const std::string& name) const { return read_llama_model(directory_.path() / name); }
  gpumod::TestFolder directory_;
};

TEST_F(LlamaFiles, AModelIsItsOptionsOrItsFile) {
  write("plain.gguf", "GGUF" + std::string(1020, 'x'));
  const auto plain = read("plain.gguf");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->weights, Bytes(1024));
  EXPECT_EQ(plain->answer, "Hello from plain.");

  write("told.gguf", "");
  write("told.sim", "weights=2GiB\nload=3s\nfault=hang-load, health-lies\n");
  ::setenv("GPUMOD_SIM_OPTIONS", "weights=1GiB;answer=From everywhere.", 1);
  const auto told = read("told.gguf");
  ::unsetenv("GPUMOD_SIM_OPTIONS");
  ASSERT_TRUE(told) << told.error().message;
  EXPECT_EQ(told->weights, Bytes::gib(2));
  EXPECT_EQ(told->answer, "From everywhere.");
  EXPECT_EQ(told->load, Duration(3s));
  EXPECT_TRUE(told->has(llama_faults::hang_load));
  EXPECT_TRUE(told->has(llama_faults::health_lies));
}

TEST_F(LlamaFiles, WhatIsWrongIsNamed) {
  write("a.gguf", "");
  write("a.sim", "wieghts=2GiB\n");
  EXPECT_THAT(read("a.gguf").error().message, HasSubstr("'wieghts'"));
  EXPECT_THAT(read("a.gguf").error().hint, HasSubstr("'weights'"));
  write("a.sim", "fault=wedged\n");
  EXPECT_THAT(read("a.gguf").error().message, HasSubstr("'wedged'"));
  EXPECT_THAT(read("a.gguf").error().hint, HasSubstr("'wedged-child'"));
  write("a.sim", "load=soon\n");
  EXPECT_THAT(read("a.gguf").error().message, HasSubstr("load: 'soon'"));
  write("a.sim", "busy-stop=maybe\n");
  EXPECT_THAT(read("a.gguf").error().message, HasSubstr("busy-stop"));
  write("junk.gguf", "junk");
  EXPECT_EQ(read("junk.gguf").error().code, ErrorCode::failed);
  EXPECT_EQ(read("none.gguf").error().code, ErrorCode::not_found);
}

TEST_F(LlamaFiles, ARoutersModels) {
  write("models/b.gguf", "GGUF");
  write("models/a.gguf", "GGUF");
  write("models/big/part-00002.gguf", "GGUF");
  write("models/big/part-00001.gguf", "GGUF");
  write("models/big/mmproj-x.gguf", "GGUF");
  write("models/empty/readme.txt", "");
  write("p.ini",
        "version = 1\n[*]\nc = 5\nstop-timeout = 3\n[a]\nctx-size = 6 ; mine\nalias = first\n[other]\nm = /x.gguf\n");
  const auto folder = (directory_.path() / "models").string();
  const auto list = list_models(said({"--models-dir", folder, "--models-preset", (directory_.path() / "p.ini").string(),
                                      "--threads", "2", "--models-max", "9", "--api-key", "secret"}));
  ASSERT_TRUE(list) << list.error().message;
  std::vector<std::string> shown;
  for (const auto& entry : *list)
    shown.push_back(fmt::format("{} {} {} {}", entry.name, entry.settings.text("model"),
                                entry.settings.text("ctx-size"), entry.stop_timeout / 1s));
  EXPECT_THAT(shown, ElementsAre("a " + folder + "/a.gguf 6 3", "b " + folder + "/b.gguf 5 3",
                                 "big " + folder + "/big/part-00001.gguf 5 3", "other /x.gguf 5 3"));
  EXPECT_THAT(list->front().aliases, ElementsAre("first"));
  EXPECT_TRUE(list->front().from_preset);
  EXPECT_THAT(llama_words(list->front().settings),
              ElementsAre("--log-colors", "off", "--ctx-size", "6", "--model", folder + "/a.gguf", "--threads", "2"))
      << "what is the router's own is not for its children, least of all its key";
  EXPECT_THAT(*list_models(said({})), IsEmpty());
}

}  // namespace
}  // namespace gpumod::sim
