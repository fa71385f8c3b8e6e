#include "fit/claim.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Service service(std::optional<Bytes> vram) {
  Service s;
  s.id = "s";
  s.engine = EngineKind::command;
  s.options = CommandOptions{};
  s.vram = vram;
  return s;
}

Service vllm(std::optional<double> utilization, std::optional<Bytes> declared = std::nullopt) {
  Service s = service(declared);
  s.engine = EngineKind::vllm;
  VllmOptions options;
  options.gpu_memory_utilization = utilization;
  s.options = options;
  return s;
}

const std::vector<GpuSample> two_gpus{{0, "GPU-a", "A", Bytes::mib(24564), Bytes::mib(24000), {}},
                                      {1, "GPU-b", "B", Bytes::mib(16000), Bytes::mib(15500), {}}};
std::map<GpuIndex, Bytes> free_of(const std::vector<GpuSample>& gpus) {
  std::map<GpuIndex, Bytes> free;
  for (const auto& gpu : gpus)
    free[gpu.index] = *gpu.free;
  return free;
}

TEST(Claim, VllmTakesItsUtilizationWhateverItsFileDeclares) {
  EXPECT_EQ(claim_on(vllm(0.9, Bytes::mib(15000)), Bytes::mib(24564))->to_mib(), 22108);
  EXPECT_EQ(claim_on(vllm(std::nullopt), Bytes::mib(24564))->to_mib(), 22108) << "0.9 is vLLM's default";
  EXPECT_EQ(claim_on(vllm(0.9, Bytes(0)), Bytes::mib(24564)), Bytes(0)) << "vram: 0 says it runs on the CPU";
}

TEST(Claim, OthersTakeWhatTheyDeclareAndSilenceIsUnknown) {
  EXPECT_EQ(claim_on(service(Bytes::mib(5000)), Bytes::mib(24564)), Bytes::mib(5000));
  EXPECT_FALSE(claim_on(service(std::nullopt), Bytes::mib(24564)));
  EXPECT_TRUE(needs_gpu(vllm(std::nullopt)));
  EXPECT_FALSE(needs_gpu(service(std::nullopt)));
  EXPECT_FALSE(needs_gpu(service(Bytes(0))));
}

TEST(PlacementTest, TakesTheTightestFit) {
  Placement placement(two_gpus, free_of(two_gpus));
  EXPECT_THAT(placement.place(service(Bytes::mib(12000)))->gpus, ElementsAre(1));
  EXPECT_THAT(placement.place(service(Bytes::mib(12000)))->gpus, ElementsAre(0)) << "the first took the room of GPU 1";
}

TEST(PlacementTest, FixedDevicesAreKeptAndUnknownOnesRefused) {
  Placement placement(two_gpus, free_of(two_gpus));
  auto fixed = service(Bytes::mib(1000));
  fixed.gpu.devices = {"GPU-a"};
  EXPECT_THAT(placement.place(fixed)->gpus, ElementsAre(0));
  fixed.gpu.devices = {"0", "1"};
  EXPECT_THAT(placement.place(fixed)->gpus, ElementsAre(0, 1));
  fixed.gpu.devices = {"7"};
  const auto unknown = placement.place(fixed);
  EXPECT_EQ(unknown.error().code, ErrorCode::configuration);
  EXPECT_THAT(unknown.error().hint, HasSubstr("0 (GPU-a), 1 (GPU-b)"));
}

TEST(PlacementTest, WhatIsLargerThanAnyGpuIsSaidToBeSo) {
  Placement placement(two_gpus, free_of(two_gpus));
  const auto refused = placement.place(service(Bytes::mib(30962)));
  EXPECT_EQ(refused.error().code, ErrorCode::refused);
  EXPECT_THAT(refused.error().message, HasSubstr("more than any GPU"));
}

TEST(PlacementTest, WhatDoesNotFitNowNamesTheBestGpuAndItsRoom) {
  Placement placement(two_gpus, {{0, Bytes::mib(714)}, {1, Bytes::mib(300)}});
  const auto refused = placement.place(service(Bytes::mib(9000)));
  EXPECT_THAT(refused.error().message, HasSubstr("9000 MiB"));
  EXPECT_THAT(refused.error().message, HasSubstr("GPU 0 (A) would have only 714 MiB"));
}

TEST(PlacementTest, TensorParallelTakesSeveralGpus) {
  Placement placement(two_gpus, free_of(two_gpus));
  auto wide = vllm(0.5);
  VllmOptions options = *wide.vllm();
  options.tensor_parallel_size = 2;
  wide.options = options;
  EXPECT_THAT(placement.place(wide)->gpus, ElementsAre(0, 1));
  options.tensor_parallel_size = 3;
  wide.options = options;
  EXPECT_EQ(placement.place(wide).error().code, ErrorCode::refused);
}

TEST(Squeezed, ALlamaServerFarUnderItsClaim) {
  Service service;
  service.id = "coder";
  service.engine = EngineKind::llamacpp;
  service.options = LlamaOptions{};
  EXPECT_TRUE(is_squeezed(service, Bytes::gib(20), Bytes::gib(9)));
  EXPECT_TRUE(is_squeezed(service, Bytes::gib(20), Bytes())) << "on the CPU";
  EXPECT_FALSE(is_squeezed(service, Bytes::gib(20), Bytes::gib(11))) << "declared generously";
  EXPECT_FALSE(is_squeezed(service, Bytes(), Bytes()));

  LlamaOptions half_pinned;
  half_pinned.context_size = 8192;
  service.options = half_pinned;
  EXPECT_TRUE(is_squeezed(service, Bytes::gib(20), Bytes::gib(1)));
  half_pinned.gpu_layers = 99;
  service.options = half_pinned;
  EXPECT_FALSE(is_squeezed(service, Bytes::gib(20), Bytes::gib(1))) << "pinned: it does not start rather than shrink";
  service.options = LlamaOptions{};
  service.extra_args = {"--fit", "off"};
  EXPECT_FALSE(is_squeezed(service, Bytes::gib(20), Bytes::gib(1)));

  service.engine = EngineKind::vllm;
  service.extra_args.clear();
  service.options = VllmOptions{};
  EXPECT_FALSE(is_squeezed(service, Bytes::gib(20), Bytes::gib(1)));
}

}  // namespace
}  // namespace gpumod
