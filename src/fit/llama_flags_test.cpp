#include "fit/llama_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using ::testing::HasSubstr;

Service llama() {
  Service service;
  service.id = "coder";
  service.engine = EngineKind::llamacpp;
  LlamaOptions options;
  options.context_size = 8192;
  options.gpu_layers = 40;
  options.n_cpu_moe = 3;
  service.options = options;
  return service;
}

LlamaFlags flags_of(const std::vector<std::string>& words) {
  const auto flags = llama_flags_of(llama(), words);
  EXPECT_TRUE(flags) << flags.error().message;
  return flags.value_or(LlamaFlags());
}

TEST(LlamaFlagsTest, TheFileSaysThem) {
  const auto flags = flags_of({});
  EXPECT_EQ(flags.context, 8192);
  EXPECT_EQ(flags.gpu_layers, 40);
  EXPECT_EQ(flags.n_cpu_moe, 3);
  EXPECT_TRUE(flags.flash_attention);
  EXPECT_FALSE(flags.parallel);
}

TEST(LlamaFlagsTest, ArgumentsOfPeopleCountLater) {
  const auto flags = flags_of({"-c", "4096", "-ngl", "all", "-ctk", "q8_0", "--cache-type-v", "q4_0", "-np", "2", "-ub",
                               "1024", "--no-kv-unified", "-nkvo", "-fa", "off", "--swa-full", "-ot", "exps=CPU"});
  EXPECT_EQ(flags.context, 4096);
  EXPECT_EQ(flags.gpu_layers, -1);
  EXPECT_EQ(flags.cache_k, "q8_0");
  EXPECT_EQ(flags.cache_v, "q4_0");
  EXPECT_EQ(flags.parallel, 2);
  EXPECT_EQ(flags.batch, 1024);
  EXPECT_EQ(flags.unified, false);
  EXPECT_FALSE(flags.kv_offload);
  EXPECT_FALSE(flags.flash_attention);
  EXPECT_TRUE(flags.swa_full);
  ASSERT_EQ(flags.overrides.size(), 1u);
  EXPECT_EQ(flags.overrides[0].buffer, "CPU");
}

TEST(LlamaFlagsTest, UnderscoresAreDashesAsLlamaServerReadsThem) {
  const auto flags = flags_of({"--ctx_size", "4096", "--n_cpu_moe=40"});
  EXPECT_EQ(flags.context, 4096);
  EXPECT_EQ(flags.n_cpu_moe, 40);
}

TEST(LlamaFlagsTest, FlashAttentionMayStandAlone) {
  const auto flags = flags_of({"-fa", "-c", "1024"});
  EXPECT_TRUE(flags.flash_attention);
  EXPECT_EQ(flags.context, 1024);
  EXPECT_FALSE(flags_of({"--flash-attn=off"}).flash_attention);
}

TEST(LlamaFlagsTest, TheEnvironmentOfEveryLlamaServerIsLookedAtToo) {
  auto service = llama();
  service.inherited_environment["LLAMA_ARG_CACHE_TYPE_K"] = Secret("q8_0");
  EXPECT_THAT(llama_flags_of(service, {}).error().message, HasSubstr("LLAMA_ARG_CACHE_TYPE_K is not covered"));
  service.inherited_environment.clear();
  service.inherited_environment["LLAMA_ARG_FIT"] = Secret("off");
  EXPECT_TRUE(llama_flags_of(service, {})) << "it changes what happens when it does not fit, not what it would take";
}

TEST(LlamaFlagsTest, WhatTakesNoMemoryIsPassedOver) {
  EXPECT_EQ(flags_of({"--temp", "0.7", "--jinja", "--metrics", "-to", "600", "--min-p", "0", "-hft", "x"}).context,
            8192);
  EXPECT_EQ(flags_of({"-mg", "0", "--mlock"}).context, 8192) << "-m and --m… are other words";
}

TEST(LlamaFlagsTest, WhatIsNotCoveredIsNamed) {
  for (const char* flag : {"--mmproj", "-md", "--lora-scaled", "--rpc", "--spec-type", "-m", "--model", "-mmu", "-hfr",
                           "-hff", "--hf-repo-draft", "-mu", "-dr"}) {
    const auto refused = llama_flags_of(llama(), {"-c", "4096", flag, "x"});
    ASSERT_FALSE(refused) << flag;
    EXPECT_THAT(refused.error().message, HasSubstr(flag));
  }
  EXPECT_THAT(llama_flags_of(llama(), {"-c", "much"}).error().message, HasSubstr("'much'"));
  auto service = llama();
  service.environment["LLAMA_ARG_CTX_SIZE"] = Secret("99");
  EXPECT_THAT(llama_flags_of(service, {}).error().message, HasSubstr("LLAMA_ARG_CTX_SIZE"));
  service = llama();
  service.environment["LLAMA_ARG_PORT"] = Secret("99");
  EXPECT_TRUE(llama_flags_of(service, {}));
  service.gpu.devices = {"0", "1"};
  EXPECT_FALSE(llama_flags_of(service, {}));
  service = llama();
  service.unit = "mine.service";
  EXPECT_FALSE(llama_flags_of(service, {}));
}

}  // namespace
}  // namespace gpumod
