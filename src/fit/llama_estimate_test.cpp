// Estimates against sums made by hand. The cache figures marked "server" are what a llama-server of build 11669 said in
// its load log ("KV buffer size", "RS buffer size") for a file with just these keys.
#include "fit/llama_estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using testing::Contains;
using testing::HasSubstr;

constexpr std::int64_t mib = 1 << 20;

/// `layers` of attention with 2 heads of 16 for keys, 64 wide, trained with 4096 tokens.
ModelFacts model(std::size_t layers) {
  ModelFacts facts;
  facts.architecture = "llama";
  facts.context_length = 4096;
  facts.embedding_length = 64;
  facts.feed_forward_length = 128;
  facts.vocabulary = 259;
  facts.layers.assign(layers, LayerFacts{});
  for (auto& layer : facts.layers) {
    layer.attention = true;
    layer.heads = 4;
    layer.kv_heads = 2;
    layer.key_length = layer.value_length = 16;
  }
  return facts;
}

ModelFacts& add(ModelFacts& facts, const std::string& name, std::int64_t bytes) {
  TensorFacts tensor;
  tensor.name = name;
  tensor.bytes = Bytes(bytes);
  facts.tensors.push_back(tensor);
  facts.weights += tensor.bytes;
  return facts;
}

/// Token embeddings 1, output 2 + 3, layer i 10·(i+1) of attention and 100·(i+1) of experts.
ModelFacts weighted() {
  auto facts = model(3);
  add(facts, "token_embd.weight", 1);
  add(facts, "output_norm.weight", 2);
  add(facts, "output.weight", 3);
  for (std::int64_t i = 0; i < 3; ++i) {
    add(facts, "blk." + std::to_string(i) + ".attn_q.weight", 10 * (i + 1));
    add(facts, "blk." + std::to_string(i) + ".ffn_up_exps.weight", 100 * (i + 1));
  }
  return facts;
}

VramEstimate estimate(const ModelFacts& facts, const LlamaFlags& flags) {
  const auto found = estimate_llama(facts, flags);
  EXPECT_TRUE(found) << found.error().message;
  return found ? *found : VramEstimate{};
}

std::int64_t kv(const ModelFacts& facts, const LlamaFlags& flags) {
  return estimate(facts, flags).sum().kv.count();
}

LlamaFlags with_context(std::int64_t tokens) {
  LlamaFlags flags;
  flags.context = tokens;
  return flags;
}

TEST(LlamaCache, GroupedQueryAttention) {
  EXPECT_EQ(kv(model(6), with_context(2048)), 6 * 2048 * (16 + 16) * 2 * 2);
  EXPECT_EQ(kv(model(6), with_context(2048)), 3 * mib / 2) << "server";
  EXPECT_EQ(kv(model(6), with_context(2000)), kv(model(6), with_context(2048))) << "cells come in 256";
  EXPECT_EQ(kv(model(6), LlamaFlags{}), 2 * kv(model(6), with_context(2048))) << "unset: what it was trained with";
}

TEST(LlamaCache, SlotsDivideTheContextUnlessTheyShareOne) {
  auto flags = with_context(2048);
  flags.parallel = 2;
  EXPECT_EQ(kv(model(6), flags), 3 * mib / 2) << "server: 2 streams of 1024";
  flags.parallel = 3;
  EXPECT_EQ(kv(model(6), flags), 6 * 3 * 768 * 128) << "682 cells a stream become 768";
  flags.unified = true;
  EXPECT_EQ(kv(model(6), flags), 3 * mib / 2);
}

TEST(LlamaCache, TypesOfCachesCountTheirBlocks) {
  auto facts = model(6);
  for (auto& layer : facts.layers)
    layer.key_length = layer.value_length = 64;
  auto flags = with_context(2000);
  flags.cache_k = "q8_0";
  flags.cache_v = "Q4_0";
  EXPECT_EQ(kv(facts, flags), 6 * 2048 * (2 * 64 / 32 * 34 + 2 * 64 / 32 * 18)) << "server: 2.44 MiB";
  flags.cache_k = "q4_K";
  EXPECT_EQ(estimate_llama(facts, flags).error().code, ErrorCode::usage) << "a type for weights alone";
  flags.cache_k = "q8_0";
  facts.layers[0].key_length = 20;
  facts.layers[0].kv_heads = 1;
  EXPECT_THAT(estimate_llama(facts, flags).error().message, HasSubstr("takes 32 at a time"));
}

TEST(LlamaCache, LayersThatSlideKeepTheWindowAndABatch) {
  auto facts = model(6);
  facts.sliding_window = 256;
  for (std::size_t i = 0; i < 5; ++i)
    facts.layers[i].sliding = true;
  const std::int64_t row = 128;
  EXPECT_EQ(kv(facts, with_context(2048)), row * (2048 + 5 * 1536)) << "server: 4 slots of 256 and a batch of 512";
  auto flags = with_context(4096);
  flags.parallel = 2;
  EXPECT_EQ(kv(facts, flags), row * 2 * (2048 + 5 * 768)) << "server: 1.44 MiB";
  flags.swa_full = true;
  EXPECT_EQ(kv(facts, flags), row * 2 * 6 * 2048);
  EXPECT_EQ(kv(facts, with_context(512)), row * 6 * 512) << "a window is never larger than the context";
}

TEST(LlamaCache, LatentAttentionKeepsKeysAloneAndAnIndexerItsOwn) {
  auto facts = model(6);
  for (auto& layer : facts.layers) {
    layer.kv_heads = 1;
    layer.key_length = 48;
    layer.value_length = 0;
  }
  EXPECT_EQ(kv(facts, with_context(2048)), 6 * 2048 * 48 * 2) << "server: 1.12 MiB";
  for (auto& layer : facts.layers)
    layer.indexer_length = 32;
  EXPECT_EQ(kv(facts, with_context(2048)), 6 * 2048 * (48 + 32) * 2) << "server: 1.12 and 0.75 MiB";
}

TEST(LlamaCache, RecurrentLayersKeepAStateASlot) {
  auto facts = model(6);
  facts.state = StateFacts{4, 128, 16, 1, 8, 3 * (128 + 2 * 16), 128 * 16};
  for (std::size_t i = 0; i < 6; ++i) {
    facts.layers[i].recurrent = i != 2;
    facts.layers[i].attention = i == 2;
  }
  EXPECT_EQ(kv(facts, with_context(2048)), 2048 * 128 + 5 * (480 + 2048) * 4 * 4);
  auto flags = with_context(2048);
  flags.parallel = 1;
  flags.cache_k = flags.cache_v = "q8_0";
  EXPECT_EQ(kv(facts, flags), 2048 * 68 + 5 * (480 + 2048) * 4) << "states stay f32 whatever the caches are";
}

TEST(LlamaCache, WhatSharesPredictsOrEncodesKeepsNothing) {
  auto facts = model(4);
  facts.layers[2].shares_kv = true;
  facts.layers[3].prediction = true;
  EXPECT_EQ(kv(facts, with_context(2048)), 2 * 2048 * 128);
  facts.keeps_kv = false;
  EXPECT_EQ(kv(facts, with_context(2048)), 0);
}

TEST(LlamaCache, WithoutFlashAttentionValuesAreAsWideAsTheWidest) {
  auto facts = model(2);
  facts.layers[1].value_length = 64;
  auto flags = with_context(256);
  EXPECT_EQ(kv(facts, flags), 256 * 2 * ((32 + 32) + (32 + 128)));
  flags.flash_attention = false;
  EXPECT_EQ(kv(facts, flags), 256 * 2 * ((32 + 128) + (32 + 128)));
}

TEST(LlamaCache, FiguresOfAHostileFileAreHeldDown) {
  auto facts = model(4096);
  for (auto& layer : facts.layers) {
    layer.kv_heads = layer.key_length = layer.value_length = 1 << 24;
    layer.recurrent = true;
  }
  facts.state = StateFacts{};
  facts.state->state = ~0ULL;
  facts.state->rolling = ~0ULL;
  auto flags = with_context(0x7FFFFFFF);
  flags.parallel = 65536;
  const auto all = estimate(facts, flags).sum();
  EXPECT_GT(all.kv, Bytes(0));
  EXPECT_GT(all.total(), all.kv);
}

TEST(LlamaWeights, TheLastLayersGoToTheGpuAndTheOutputIsTheLast) {
  const auto on_gpu = [](std::optional<int> layers) {
    LlamaFlags flags;
    flags.gpu_layers = layers;
    const auto found = estimate(weighted(), flags);
    EXPECT_EQ(found.sum().weights + found.host_weights, weighted().weights);
    return found.sum().weights.count();
  };
  EXPECT_EQ(on_gpu(std::nullopt), 5 + 110 + 220 + 330) << "token embeddings stay";
  EXPECT_EQ(on_gpu(99), 5 + 110 + 220 + 330);
  EXPECT_EQ(on_gpu(-1), 5 + 110 + 220 + 330);
  EXPECT_EQ(on_gpu(3), 5 + 220 + 330);
  EXPECT_EQ(on_gpu(1), 5);
  EXPECT_EQ(on_gpu(0), 0);
}

TEST(LlamaWeights, CachesFollowTheirLayers) {
  LlamaFlags flags = with_context(256);
  flags.gpu_layers = 2;
  const auto found = estimate(weighted(), flags);
  EXPECT_EQ(found.sum().kv.count(), 256 * 128);
  EXPECT_EQ(found.host_kv.count(), 2 * 256 * 128);
  flags.kv_offload = false;
  EXPECT_EQ(estimate(weighted(), flags).sum().kv.count(), 0);
}

TEST(LlamaWeights, ExpertsMayStayInHostMemory) {
  LlamaFlags flags;
  flags.n_cpu_moe = 2;
  EXPECT_EQ(estimate(weighted(), flags).host_weights.count(), 1 + 100 + 200);
  flags.cpu_moe = true;
  EXPECT_EQ(estimate(weighted(), flags).host_weights.count(), 1 + 100 + 200 + 300);
}

TEST(LlamaWeights, OverridesDecideByTheFirstPatternThatFits) {
  LlamaFlags flags;
  flags.overrides = *parse_overrides(R"(blk\.[01]\.ffn_.*_exps=CPU,blk\.0=CUDA0,token_embd=CUDA0)");
  EXPECT_EQ(estimate(weighted(), flags).host_weights.count(), 100 + 200);
  flags.overrides = {{"[", "CPU"}};
  EXPECT_EQ(estimate_llama(weighted(), flags).error().code, ErrorCode::usage);
  flags.overrides = {{std::string(600, 'a'), "CPU"}};
  EXPECT_EQ(estimate_llama(weighted(), flags).error().code, ErrorCode::usage);
  for (const char* wrong : {"exps", "=CPU", "exps=", "a=CPU,,"})
    EXPECT_FALSE(parse_overrides(wrong)) << wrong;
  EXPECT_TRUE(parse_overrides("")->empty());
}

TEST(LlamaWeights, EmbeddingsThatServeAsOutputAreCopied) {
  auto facts = model(1);
  add(facts, "token_embd.weight", 1000);
  add(facts, "blk.0.attn_q.weight", 7);
  const auto found = estimate(facts, LlamaFlags{});
  EXPECT_EQ(found.sum().weights.count(), 1007);
  EXPECT_EQ(found.host_weights.count(), 1000);
  EXPECT_THAT(found.assumptions, Contains(HasSubstr("second copy")));
  facts.architecture = "nomic-bert";
  EXPECT_EQ(estimate(facts, LlamaFlags{}).sum().weights.count(), 7);
}

TEST(LlamaWeights, LayersThatPredictFurtherTokensAreNotLoaded) {
  auto facts = weighted();
  facts.layers[2].prediction = true;
  EXPECT_EQ(estimate(facts, LlamaFlags{}).sum().weights.count(), 5 + 110 + 220);
}

TEST(LlamaWeights, SeveralGpusShareTheLayersAsTheSplitSays) {
  LlamaFlags flags;
  flags.split = {1, 1};
  const auto half = estimate(weighted(), flags);
  ASSERT_EQ(half.gpus.size(), 2U);
  EXPECT_EQ(half.gpus[0].weights.count(), 110 + 220);
  EXPECT_EQ(half.gpus[1].weights.count(), 330 + 5);
  flags.split = {3, 1};
  EXPECT_EQ(estimate(weighted(), flags).gpus[0].weights.count(), 110 + 220 + 330);
  flags.overrides = {{"attn_q", "CUDA1"}};
  EXPECT_EQ(estimate(weighted(), flags).gpus[1].weights.count(), 5 + 10 + 20 + 30);
  flags.split = {0, 0};
  EXPECT_EQ(estimate(weighted(), flags).sum().weights.count(), 665) << "a split that says nothing";
  flags.split = {};
  EXPECT_EQ(estimate_llama(weighted(), flags).error().code, ErrorCode::usage);
}

TEST(LlamaCompute, GrowsWithWhatItIsMadeOf) {
  const auto compute = [](const ModelFacts& facts, const LlamaFlags& flags) {
    return estimate(facts, flags).gpus[0].compute;
  };
  const auto facts = model(2);
  const auto base = compute(facts, with_context(4096));
  EXPECT_GT(compute(facts, with_context(65536)), base) << "the mask";
  auto wide = facts;
  wide.vocabulary = 150'000;
  EXPECT_GT(compute(wide, with_context(4096)), base + Bytes::mib(250)) << "logits";
  auto slow = with_context(4096);
  slow.flash_attention = false;
  EXPECT_GT(compute(facts, slow), base + Bytes::mib(50)) << "scores of all heads";
}

TEST(LlamaAssumptions, AreInWords) {
  auto facts = model(3);
  facts.remarks = {"a remark of the file's"};
  LlamaFlags flags;
  flags.gpu_layers = 2;
  const auto words = estimate(facts, flags).assumptions;
  for (const char* expected : {"2 of 4 layers", "4096 tokens", "four slots", "flash attention on", "approximation",
                               "for CUDA itself", "a remark of the file's"})
    EXPECT_THAT(words, Contains(HasSubstr(expected)));
}

}  // namespace
}  // namespace gpumod
