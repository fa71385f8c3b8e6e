#include "fit/claim.h"

#include <gtest/gtest.h>

namespace gpumod {
namespace {

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
const GpuSample& gpu = two_gpus.front();

std::int64_t mib_of(const Claim& claim) {
  return claim.bytes ? claim.bytes->to_mib() : -1;
}

Footprint measured(Bytes peak, const std::string& gpu_name = "A") {
  Footprint known;
  known.measured[gpu_name].peak = peak;
  known.measured[gpu_name].runs = 1;
  return known;
}

/// 10000 MiB of weights and caches, and 1000 MiB that are an approximation.
Footprint estimated(bool rough = false) {
  Footprint known;
  known.estimated = EstimatedMemory{Bytes::mib(8000), Bytes::mib(2000), Bytes::mib(550), Bytes::mib(450), rough, {}};
  return known;
}

Service llama(std::optional<Bytes> vram, bool pinned = true) {
  Service s = service(vram);
  s.engine = EngineKind::llamacpp;
  LlamaOptions options;
  if (pinned) options.context_size = 8192;
  if (pinned) options.gpu_layers = 99;
  s.options = options;
  return s;
}

TEST(ClaimTest, VllmTakesItsUtilizationWhateverItsFileDeclares) {
  EXPECT_EQ(mib_of(claim_of(vllm(0.9, Bytes::mib(15000)), {}, gpu)), 22108);
  EXPECT_EQ(mib_of(claim_of(vllm(std::nullopt), {}, gpu)), 22108) << "0.9 is vLLM's default";
  EXPECT_EQ(mib_of(claim_of(vllm(0.9, Bytes(0)), {}, gpu)), 0) << "vram: 0 says it runs on the CPU";
  const auto seen = claim_of(vllm(0.9, Bytes::mib(15000)), measured(Bytes::mib(9000)), gpu);
  EXPECT_EQ(mib_of(seen), 22108) << "nor does what was measured change what it will reserve";
  EXPECT_EQ(seen.source, ClaimSource::utilization);
}

TEST(ClaimTest, OthersTakeWhatTheyDeclareAndSilenceIsUnknown) {
  const auto declared = claim_of(service(Bytes::mib(5000)), {}, gpu);
  EXPECT_EQ(mib_of(declared), 5000);
  EXPECT_EQ(declared.source, ClaimSource::declared);
  EXPECT_FALSE(claim_of(service(std::nullopt), {}, gpu).bytes);
  EXPECT_EQ(claim_of(service(std::nullopt), {}, gpu).source, ClaimSource::unknown);
  EXPECT_TRUE(needs_gpu(vllm(std::nullopt)));
  EXPECT_FALSE(needs_gpu(service(std::nullopt)));
  EXPECT_FALSE(needs_gpu(service(Bytes(0))));
}

TEST(ClaimTest, MeasuredCountsBeforeTheLargerOfEstimatedAndDeclared) {
  auto known = estimated();
  auto claim = claim_of(llama(Bytes::mib(11000)), known, gpu);
  EXPECT_EQ(mib_of(claim), 11500) << "half of what is approximate comes on top";
  EXPECT_EQ(claim.source, ClaimSource::estimated);
  claim = claim_of(llama(Bytes::mib(20000)), known, gpu);
  EXPECT_EQ(mib_of(claim), 20000) << "who declares more may know better, until it was measured";
  EXPECT_EQ(claim.source, ClaimSource::declared);
  known.measured = measured(Bytes::mib(10700)).measured;
  claim = claim_of(llama(Bytes::mib(20000)), known, gpu);
  EXPECT_EQ(mib_of(claim), 10700);
  EXPECT_EQ(claim.source, ClaimSource::measured);
  EXPECT_EQ(mib_of(claim_of(service(Bytes::mib(5000)), measured(Bytes::mib(6000)), gpu)), 6000) << "of any engine";
}

TEST(ClaimTest, AProgramThatLoadsLaterDoesNotLowerItsClaim) {
  const auto claim = claim_of(service(Bytes::mib(5000)), measured(Bytes::mib(400)), gpu);
  EXPECT_EQ(mib_of(claim), 5000);
  EXPECT_EQ(claim.source, ClaimSource::declared);
  EXPECT_EQ(mib_of(claim_of(service(std::nullopt), measured(Bytes::mib(400)), gpu)), 400);
}

TEST(ClaimTest, AnEstimateVouchesForNothing) {
  EXPECT_FALSE(vouched_claim(llama(std::nullopt), estimated(), gpu).bytes);
  EXPECT_EQ(mib_of(vouched_claim(llama(Bytes::mib(3000)), estimated(), gpu)), 3000) << "as people said it";
  auto known = estimated();
  known.measured = measured(Bytes::mib(4000)).measured;
  EXPECT_EQ(mib_of(vouched_claim(llama(Bytes::mib(3000)), known, gpu)), 4000) << "as it was seen";
}

TEST(ClaimTest, WhatWasMeasuredOnAnotherKindOfGpuDoesNotCount) {
  const auto claim = claim_of(llama(Bytes::mib(20000)), measured(Bytes::mib(10700), "B"), gpu);
  EXPECT_EQ(mib_of(claim), 20000);
  EXPECT_EQ(claim.source, ClaimSource::declared);
}

TEST(ClaimTest, NeverLessThanWeightsAndCaches) {
  auto known = estimated();
  known.measured = measured(Bytes::mib(3000)).measured;
  EXPECT_EQ(mib_of(claim_of(llama(std::nullopt), known, gpu)), 10000);
  EXPECT_EQ(mib_of(claim_of(llama(Bytes::mib(3000)), estimated(true), gpu)), 10000);
}

TEST(ClaimTest, ARoughEstimateDoesNotReplaceWhatPeopleDeclare) {
  const auto declared = claim_of(llama(Bytes::mib(14000)), estimated(true), gpu);
  EXPECT_EQ(mib_of(declared), 14000);
  EXPECT_EQ(declared.source, ClaimSource::declared);
  EXPECT_FALSE(claim_of(llama(std::nullopt), estimated(true), gpu).bytes);
}

TEST(ClaimTest, WhatWouldShrinkEvenAloneIsNotTakenForWhatItTakes) {
  auto known = estimated();
  known.estimated->kv = Bytes::mib(20000);  // the context it was trained with
  EXPECT_FALSE(claim_of(llama(std::nullopt, false), known, gpu).bytes) << "as before: it may be started last";
  EXPECT_EQ(mib_of(claim_of(llama(Bytes::mib(9000), false), known, gpu)), 9000);
  EXPECT_EQ(mib_of(claim_of(llama(std::nullopt), known, gpu)), 29500) << "pinned, it does not shrink but fails";
  known.estimated->kv = Bytes::mib(15000);
  EXPECT_FALSE(claim_of(llama(std::nullopt, false), known, gpu).bytes) << "it leaves 1 GiB free";
  known.estimated->kv = Bytes::mib(2000);
  EXPECT_EQ(mib_of(claim_of(llama(std::nullopt, false), known, gpu)), 11500);
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

  service.extra_args.clear();
  service.inherited_args = {"--fit", "off"};
  EXPECT_FALSE(is_squeezed(service, Bytes::gib(20), Bytes::gib(1))) << "for every llama-server";
  service.extra_args = {"-fit", "on"};
  EXPECT_TRUE(is_squeezed(service, Bytes::gib(20), Bytes::gib(1))) << "the last word counts";
  service.extra_args.clear();
  service.inherited_args.clear();
  service.inherited_environment["LLAMA_ARG_FIT"] = Secret("0");
  EXPECT_FALSE(is_squeezed(service, Bytes::gib(20), Bytes::gib(1)));
  service.environment["LLAMA_ARG_FIT"] = Secret("on");
  EXPECT_TRUE(is_squeezed(service, Bytes::gib(20), Bytes::gib(1))) << "its own variable replaces the other one";
  service.extra_args = {"--fit=off"};
  EXPECT_FALSE(is_squeezed(service, Bytes::gib(20), Bytes::gib(1))) << "the command line counts before the environment";

  service.engine = EngineKind::vllm;
  service.extra_args.clear();
  service.options = VllmOptions{};
  EXPECT_FALSE(is_squeezed(service, Bytes::gib(20), Bytes::gib(1)));
}

}  // namespace
}  // namespace gpumod
