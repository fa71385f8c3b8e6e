#include "fit/vllm_estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using testing::Contains;
using testing::HasSubstr;

/// 36 layers, 8 heads of 128 for keys, 16 GiB of weights: Qwen3-8B.
ModelFacts model() {
  ModelFacts facts;
  facts.format = ModelFormat::safetensors;
  facts.context_length = 40960;
  facts.embedding_length = 4096;
  facts.feed_forward_length = 12288;
  facts.vocabulary = 151936;
  facts.weights = Bytes::gib(16);
  facts.layers.assign(36, LayerFacts{});
  for (auto& layer : facts.layers) {
    layer.attention = true;
    layer.heads = 32;
    layer.kv_heads = 8;
    layer.key_length = layer.value_length = 128;
  }
  return facts;
}

VllmEstimate estimate(const ModelFacts& facts, const VllmFlags& flags) {
  const auto found = estimate_vllm(facts, flags);
  EXPECT_TRUE(found) << found.error().message;
  return found ? *found : VllmEstimate{};
}

VllmFlags on(Bytes total) {
  VllmFlags flags;
  flags.gpu_total = total;
  return flags;
}

TEST(VllmEstimate, ClaimsItsUtilizationAndAsksWhetherTheModelFitsInside) {
  const auto large = estimate(model(), on(Bytes::mib(81920)));
  EXPECT_EQ(*large.claim, Bytes::mib(73728));
  EXPECT_EQ(large.kv_per_token.count(), 2 * 36 * 8 * 128 * 2);
  EXPECT_EQ(large.need.gpus[0].kv.count(), 2LL * 36 * 8 * 128 * 2 * 40960);
  EXPECT_TRUE(*large.fits);
  const auto& need = large.need.gpus[0];
  EXPECT_EQ(*large.cached_tokens, (*large.claim - need.weights - need.compute).count() / large.kv_per_token.count());

  const auto small = estimate(model(), on(Bytes::mib(24564)));
  EXPECT_EQ(small.claim->to_mib(), 22108) << "whatever the model needs";
  EXPECT_FALSE(*small.fits) << "16 GiB of weights and 5.6 GiB of cache in 21.6 GiB";
  auto shorter = on(Bytes::mib(24564));
  shorter.context = 8192;
  EXPECT_TRUE(*estimate(model(), shorter).fits);
}

TEST(VllmEstimate, ACacheInBytesReplacesTheUtilization) {
  auto flags = on(Bytes::gib(24));
  flags.kv_cache_memory = Bytes::gib(2);
  const auto found = estimate(model(), flags);
  EXPECT_EQ(*found.claim, found.need.gpus[0].weights + found.need.gpus[0].compute + Bytes::gib(2));
  EXPECT_FALSE(*found.fits);
  flags.context = 4096;
  EXPECT_TRUE(*estimate(model(), flags).fits);
}

TEST(VllmEstimate, WithoutAGpuNothingIsClaimed) {
  const auto found = estimate(model(), VllmFlags{});
  EXPECT_FALSE(found.claim);
  EXPECT_FALSE(found.fits);
  EXPECT_FALSE(found.cached_tokens);
  EXPECT_THAT(found.need.assumptions, Contains(HasSubstr("size of the GPU is not known")));
}

TEST(VllmEstimate, SeveralGpusShareWeightsAndHeads) {
  auto flags = on(Bytes::gib(24));
  flags.tensor_parallel = 2;
  const auto two = estimate(model(), flags);
  ASSERT_EQ(two.need.gpus.size(), 2U);
  EXPECT_EQ(two.need.gpus[1].weights, Bytes::gib(8));
  EXPECT_EQ(two.kv_per_token.count(), 2 * 36 * 4 * 128 * 2);
  flags.tensor_parallel = 16;
  EXPECT_EQ(estimate(model(), flags).kv_per_token.count(), 2 * 36 * 1 * 128 * 2) << "a head at least is on each";
}

TEST(VllmEstimate, LatentAttentionIsWholeOnEveryGpu) {
  auto facts = model();
  facts.mla = MlaFacts{512, 0, 64, true};
  for (auto& layer : facts.layers) {
    layer.kv_heads = 1;
    layer.key_length = 576;
    layer.value_length = 0;
  }
  auto flags = on(Bytes::gib(80));
  flags.tensor_parallel = 8;
  EXPECT_EQ(estimate(facts, flags).kv_per_token.count(), 36 * 576 * 2);
  flags.kv_element_bytes = 1;
  EXPECT_EQ(estimate(facts, flags).kv_per_token.count(), 36 * 576);
}

TEST(VllmEstimate, LayersThatSlideKeepTheWindowAndABatch) {
  auto facts = model();
  facts.sliding_window = 1024;
  for (std::size_t i = 0; i < 30; ++i)
    facts.layers[i].sliding = true;
  auto flags = on(Bytes::gib(80));
  flags.batched_tokens = 2048;
  const auto found = estimate(facts, flags);
  EXPECT_EQ(found.need.gpus[0].kv.count(), 2LL * 8 * 128 * 2 * (6 * 40960 + 30 * 3072));
  EXPECT_EQ(found.kv_per_token.count(), 2 * 6 * 8 * 128 * 2);
}

TEST(VllmEstimate, RecurrentLayersKeepAState) {
  auto facts = model();
  facts.state = StateFacts{};
  facts.state->rolling = 1000;
  facts.state->state = 9000;
  for (auto& layer : facts.layers) {
    layer.recurrent = true;
    layer.attention = false;
  }
  EXPECT_EQ(estimate(facts, on(Bytes::gib(80))).need.gpus[0].kv.count(), 36 * 10000 * 4);
}

TEST(VllmEstimate, NonsenseIsRefused) {
  for (const double utilization : {0.0, -1.0, 1.5}) {
    auto flags = on(Bytes::gib(24));
    flags.utilization = utilization;
    EXPECT_EQ(estimate_vllm(model(), flags).error().code, ErrorCode::usage);
  }
  auto flags = on(Bytes::gib(24));
  flags.tensor_parallel = 0;
  EXPECT_EQ(estimate_vllm(model(), flags).error().code, ErrorCode::usage);
}

}  // namespace
}  // namespace gpumod
