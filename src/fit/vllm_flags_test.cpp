#include "fit/vllm_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fit/claim.h"

namespace gpumod {
namespace {

using ::testing::HasSubstr;

const GpuSample card{0, "GPU-0", "A", Bytes::gib(24), Bytes::gib(24), {}};

Service vllm(VllmOptions options = {}) {
  Service service;
  service.id = "chat";
  service.engine = EngineKind::vllm;
  service.options = options;
  return service;
}

VllmFlags flags_of(const std::vector<std::string>& words) {
  const auto flags = vllm_flags_of(vllm(), words, Bytes::gib(24));
  EXPECT_TRUE(flags) << flags.error().message;
  return flags.value_or(VllmFlags());
}

TEST(VllmFlagsTest, FurtherArgumentsHaveTheLastWord) {
  VllmOptions file;
  file.gpu_memory_utilization = 0.9;
  file.max_model_len = 32768;
  const std::vector<std::string> words{"--gpu-memory-utilization=0.4",
                                       "--max_model_len",
                                       "16k",
                                       "-tp",
                                       "2",
                                       "--kv-cache-dtype",
                                       "fp8_e5m2",
                                       "--max-num-batched-tokens",
                                       "4096",
                                       "--max-num-seqs",
                                       "8",
                                       "--enforce-eager"};
  const auto flags = vllm_flags_of(vllm(file), words, Bytes::gib(24));
  ASSERT_TRUE(flags);
  EXPECT_DOUBLE_EQ(flags->utilization, 0.4);
  EXPECT_EQ(flags->context, 16000);
  EXPECT_EQ(flags->tensor_parallel, 2);
  EXPECT_EQ(flags->kv_element_bytes, 1);
  EXPECT_EQ(flags->batched_tokens, 4096);
  EXPECT_EQ(flags->sequences, 8);
  EXPECT_TRUE(flags->enforce_eager);
  EXPECT_EQ(flags_of({"--max-model-len", "16K"}).context, 16384);
  EXPECT_EQ(flags_of({"--max-model-len", "auto"}).context, std::nullopt);
  EXPECT_DOUBLE_EQ(flags_of({"--gpu-memory-utilization", "lots"}).utilization, 0.9) << "vLLM refuses it itself";
}

TEST(VllmFlagsTest, WhatTheArithmeticDoesNotCoverIsSaid) {
  for (const char* word : {"-q", "--quantization", "--pipeline_parallel_size", "-dp", "--cpu-offload-gb=4"}) {
    const auto flags = vllm_flags_of(vllm(), {word, "2"}, {});
    ASSERT_FALSE(flags) << word;
    EXPECT_THAT(flags.error().message, HasSubstr("is not covered"));
  }
  auto adopted = vllm();
  adopted.unit = "glm.service";
  EXPECT_THAT(vllm_flags_of(adopted, {}, {}).error().message, HasSubstr("people's own"));
}

TEST(VllmFlagsTest, EverySizeOfItsParallelismCountsInGpus) {
  const auto wanted = [](const std::vector<std::string>& words) {
    return gpus_wanted(*as_started(vllm(), words).vllm());
  };
  EXPECT_EQ(wanted({}), 1);
  EXPECT_EQ(wanted({"--tensor-parallel-size", "2", "--pipeline-parallel-size", "3"}), 6);
  EXPECT_EQ(wanted({"--pipeline_parallel_size=2", "-tp=2"}), 4);
  EXPECT_EQ(wanted({"-pp", "2", "-dp", "2", "-pp", "1"}), 2) << "the last one counts";
  EXPECT_EQ(wanted({"-dp", "4", "-dpl=2", "-tp", "2"}), 4) << "the other two copies are elsewhere";
  EXPECT_EQ(wanted({"--data-parallel-rank", "0", "--data-parallel-size", "4"}), 1);
  EXPECT_EQ(wanted({"-dp", "4", "--data-parallel-size-local", "0"}), 0) << "it only answers";
  EXPECT_EQ(wanted({"-pcp", "2"}), 2);
  EXPECT_EQ(wanted({"-tp", "2", "-dcp", "2"}), 2) << "that goes over the same GPUs";
  EXPECT_EQ(wanted({"-pp", "many", "-dp", "0", "-tp", "-1"}), 1) << "vLLM refuses it itself";
  EXPECT_TRUE(vllm_flags_of(vllm(), {"-pp", "1"}, Bytes::gib(24)));
}

TEST(VllmFlagsTest, TheClaimIsThatOfWhatIsReallyStarted) {
  const auto claim = [](const Service& service, const std::vector<std::string>& words) {
    return claim_of(as_started(service, words), {}, card);
  };
  EXPECT_EQ(claim(vllm(), {}).bytes->to_mib(), 22118);
  EXPECT_EQ(*claim(vllm(), {"--gpu-memory-utilization", "0.5"}).bytes, Bytes::gib(12));
  EXPECT_EQ(as_started(vllm(), {"--tensor-parallel-size", "4"}).vllm()->tensor_parallel_size, 4);
  EXPECT_FALSE(claim(vllm(), {"--kv-cache-memory-bytes", "8G"}).bytes) << "it replaces the share";
}

TEST(VllmFlagsTest, OfPeoplesOwnUnitOnlyWhatItsFileSaysCounts) {
  VllmOptions half;
  half.gpu_memory_utilization = 0.5;
  auto adopted = vllm(half);
  adopted.unit = "glm.service";
  EXPECT_EQ(claim_of(as_started(adopted, {"--gpu-memory-utilization", "0.9"}), {}, card).bytes, Bytes::gib(12));
}

}  // namespace
}  // namespace gpumod
