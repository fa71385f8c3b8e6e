// Facts of GGUF models, architecture by architecture, and what tells their kinds apart.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/gguf_facts.h"
#include "formats/gguf_testing.h"
#include "formats/model_kind.h"

namespace gpumod {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

Result<ModelFacts> facts(const GgufWriter& writer) {
  auto file = read_gguf(MemorySource("x.gguf", writer.bytes()));
  if (!file) return fail(file.error());
  GgufModel model;
  model.paths.emplace_back("x.gguf");
  model.parts.push_back(std::move(*file));
  return facts_of(model);
}

/// Keys of `architecture`, all of them small.
class Keys {
 public:
  explicit Keys(std::string architecture, std::uint32_t layers = 12) : architecture_(std::move(architecture)) {
    writer_.text("general.architecture", architecture_);
    (*this)("block_count", layers)("embedding_length", 64)("attention.head_count", 4)("context_length", 4096);
  }
  Keys& operator()(const std::string& suffix, std::uint64_t value) {
    writer_.number(architecture_ + "." + suffix, value);
    return *this;
  }
  Keys& list(const std::string& suffix, const std::vector<std::uint64_t>& values, GgufType type = GgufType::u32) {
    writer_.numbers(architecture_ + "." + suffix, values, type);
    return *this;
  }
  ModelFacts facts() const {
    auto found = gpumod::facts(writer_);
    EXPECT_TRUE(found) << found.error().message;
    return found ? *found : ModelFacts{};
  }
  GgufWriter& writer() { return writer_; }

 private:
  std::string architecture_;
  GgufWriter writer_;
};

std::string layers_that(const ModelFacts& facts, bool LayerFacts::*what) {
  std::string marks;
  for (const auto& layer : facts.layers)
    marks += layer.*what ? '1' : '0';
  return marks;
}

TEST(GgufFacts, OfADenseModel) {
  const auto model = facts(Keys("qwen3", 2)("attention.head_count_kv", 2)("attention.key_length", 32)(
                               "attention.value_length", 16)("feed_forward_length", 128)
                               .writer()
                               .text("general.name", "Qwen3 Tiny")
                               .number("general.file_type", 15)
                               .text("tokenizer.ggml.model", "gpt2")
                               .text("tokenizer.ggml.pre", "qwen2")
                               .texts("tokenizer.ggml.tokens", {"a", "b", "c"})
                               .text("tokenizer.chat_template", "{{ x }}")
                               .tensor("token_embd.weight", {256, 3}, "q4_K")
                               .tensor("blk.0.attn_norm.weight", {64}));
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->architecture, "qwen3");
  EXPECT_EQ(model->name, "Qwen3 Tiny");
  EXPECT_EQ(model->quantization, "Q4_K_M");
  EXPECT_EQ(model->parameters, 256U * 3 + 64);
  EXPECT_EQ(model->weights, Bytes(3 * 144 + 256));
  EXPECT_EQ(model->types.at("q4_K").bytes, Bytes(3 * 144));
  EXPECT_EQ(model->types.at("f32").tensors, 1U);
  EXPECT_EQ(model->context_length, 4096U);
  EXPECT_EQ(model->feed_forward_length, 128U);
  EXPECT_EQ(model->vocabulary, 3U);
  EXPECT_EQ(model->tokenizer, "gpt2");
  EXPECT_EQ(model->pre_tokenizer, "qwen2");
  EXPECT_TRUE(model->chat_template);
  ASSERT_EQ(model->layers.size(), 2U);
  EXPECT_EQ(model->layers[1].heads, 4U);
  EXPECT_EQ(model->layers[1].kv_heads, 2U);
  EXPECT_EQ(model->layers[1].key_length, 32U);
  EXPECT_EQ(model->layers[1].value_length, 16U);
  EXPECT_THAT(model->remarks, IsEmpty());
}

TEST(GgufFacts, HeadsThatAreNotNamedFollowFromTheWidth) {
  const auto model = Keys("llama", 1).facts();
  EXPECT_EQ(model.layers[0].kv_heads, 4U);
  EXPECT_EQ(model.layers[0].key_length, 16U);
}

TEST(GgufFacts, HeadsMayDifferFromLayerToLayer) {
  const auto model = Keys("deci", 3).list("attention.head_count_kv", {2, 0, 4}).facts();
  EXPECT_EQ(layers_that(model, &LayerFacts::attention), "101");
  EXPECT_EQ(model.layers[2].kv_heads, 4U);
}

// The patterns are what a llama-server says of such files: "layer N assigned to device …, is_swa = 1".
TEST(GgufFacts, LayersSlideAsLlamaCppHasIt) {
  struct Case {
    const char* architecture;
    const char* pattern;
    std::uint32_t window;
  };
  for (const auto& [architecture, pattern, window] : std::initializer_list<Case>{{"llama", "000000000000", 0},
                                                                                 {"phi3", "000000000000", 0},
                                                                                 {"qwen2", "000000000000", 0},
                                                                                 {"gemma2", "101010101010", 512},
                                                                                 {"gemma3", "111110111110", 512},
                                                                                 {"gemma3n", "111101111011", 512},
                                                                                 {"cohere2", "111011101110", 512},
                                                                                 {"cohere2moe", "011101110111", 512},
                                                                                 {"olmo2", "111011101110", 512},
                                                                                 {"exaone-moe", "111011101110", 512},
                                                                                 {"gpt-oss", "101010101010", 512},
                                                                                 {"smallthinker", "011101110111", 4096},
                                                                                 {"modern-bert", "011011011011", 512},
                                                                                 {"plamo3", "111111101111", 512},
                                                                                 {"llama4", "111011101110", 8192},
                                                                                 {"laguna", "011101110111", 512}}) {
    const auto model = Keys(architecture)("attention.sliding_window", 512).facts();
    EXPECT_EQ(layers_that(model, &LayerFacts::sliding), pattern) << architecture;
    EXPECT_EQ(model.sliding_window, window) << architecture;
  }
  EXPECT_EQ(Keys("gemma2").facts().sliding_window, 4096U) << "where the file names none";
  EXPECT_EQ(Keys("gemma3").facts().sliding_window, 0U);
  EXPECT_EQ(Keys("llama4")("attention.sliding_window", 0).facts().sliding_window, 0U);
  EXPECT_EQ(Keys("exaone4", 30)("attention.sliding_window", 512).facts().sliding_window, 0U);
  EXPECT_EQ(Keys("exaone4", 64)("attention.sliding_window", 512).facts().sliding_window, 512U);
}

TEST(GgufFacts, AFileMaySayWhichLayersSlide) {
  const auto period = Keys("gemma3")("attention.sliding_window", 512)("attention.sliding_window_pattern", 4).facts();
  EXPECT_EQ(layers_that(period, &LayerFacts::sliding), "111011101110");
  EXPECT_THAT(period.remarks, IsEmpty());
  for (const char* architecture : {"gemma4", "gemma3", "a-new-one"}) {
    const auto listed = Keys(architecture, 4)("attention.sliding_window", 512)
                            .list("attention.sliding_window_pattern", {0, 1, 1, 0}, GgufType::boolean)
                            .facts();
    EXPECT_EQ(layers_that(listed, &LayerFacts::sliding), "0110") << architecture;
  }
}

TEST(GgufFacts, SlidingLayersMayHaveHeadsOfTheirOwnLengthAndOthersShareCaches) {
  const auto model =
      Keys("gemma4", 4)("attention.sliding_window", 512)("attention.key_length", 64)("attention.value_length", 64)(
          "attention.key_length_swa", 16)("attention.value_length_swa", 8)("attention.shared_kv_layers", 1)
          .list("attention.sliding_window_pattern", {1, 0, 1, 0}, GgufType::boolean)
          .facts();
  EXPECT_EQ(model.layers[0].key_length, 16U);
  EXPECT_EQ(model.layers[0].value_length, 8U);
  EXPECT_EQ(model.layers[1].key_length, 64U);
  EXPECT_EQ(layers_that(model, &LayerFacts::shares_kv), "0001");
  EXPECT_EQ(layers_that(Keys("gemma3n", 22).facts(), &LayerFacts::shares_kv), "0000000000000000000011");
}

TEST(GgufFacts, LatentAttentionKeepsKeysAlone) {
  const auto compressed =
      Keys("deepseek2", 2)("attention.head_count_kv", 1)("attention.kv_lora_rank", 512)("attention.key_length", 576)(
          "attention.value_length", 512)("attention.key_length_mla", 192)("attention.value_length_mla", 128)
          .facts();
  ASSERT_TRUE(compressed.mla);
  EXPECT_TRUE(compressed.mla->compressed);
  EXPECT_EQ(compressed.layers[0].key_length, 576U);
  EXPECT_EQ(compressed.layers[0].value_length, 0U);
  const auto older =
      Keys("deepseek2", 2)("attention.kv_lora_rank", 512)("attention.key_length", 192)("attention.value_length", 128)
          .facts();
  EXPECT_FALSE(older.mla->compressed);
  EXPECT_EQ(older.layers[0].value_length, 128U);
  EXPECT_THAT(older.remarks, Contains(HasSubstr("kept whole")));
}

TEST(GgufFacts, RecurrentLayersAreToldByArchitecture) {
  const auto ssm = [](Keys keys) {
    return keys("ssm.conv_kernel", 4)("ssm.inner_size", 128)("ssm.state_size", 16)("ssm.group_count", 2).facts();
  };
  const auto nemotron = ssm(Keys("nemotron_h", 5)
                                .list("attention.head_count_kv", {0, 0, 2, 0, 0})
                                .list("feed_forward_length", {0, 128, 0, 0, 128}));
  EXPECT_EQ(layers_that(nemotron, &LayerFacts::recurrent), "10010");
  EXPECT_EQ(layers_that(nemotron, &LayerFacts::attention), "00100");
  EXPECT_EQ(nemotron.state->rolling, 3U * (128 + 2 * 2 * 16));
  EXPECT_EQ(nemotron.state->state, 16U * 128);

  const auto beside = ssm(Keys("falcon-h1", 2));
  EXPECT_EQ(layers_that(beside, &LayerFacts::recurrent), "11");
  EXPECT_EQ(layers_that(beside, &LayerFacts::attention), "11");

  const auto interval = ssm(Keys("qwen3next", 8));
  EXPECT_EQ(layers_that(interval, &LayerFacts::recurrent), "11101110");
  EXPECT_EQ(layers_that(interval, &LayerFacts::attention), "00010001");

  const auto listed = ssm(Keys("qwen35", 4).list("attention.recurrent_layers", {1, 0, 1, 0}, GgufType::boolean));
  EXPECT_EQ(layers_that(listed, &LayerFacts::recurrent), "1010");

  const auto unknown = ssm(Keys("a-new-one", 3).list("attention.head_count_kv", {0, 2, 0}));
  EXPECT_EQ(layers_that(unknown, &LayerFacts::recurrent), "101");
  EXPECT_THAT(unknown.remarks, Contains(HasSubstr("is not known")));
  EXPECT_THAT(ssm(Keys("another-one", 3)).remarks, Contains(HasSubstr("it is not counted")));

  const auto mamba = ssm(Keys("mamba", 2));
  EXPECT_EQ(layers_that(mamba, &LayerFacts::attention), "00");
}

TEST(GgufFacts, StatesOfOtherKinds) {
  const auto rwkv = Keys("rwkv7", 1)("wkv.head_size", 16).facts();
  EXPECT_EQ(rwkv.state->rolling, 2U * 64);
  EXPECT_EQ(rwkv.state->state, 64U * 16);
  const auto lfm2 = Keys("lfm2", 2)("shortconv.l_cache", 3).list("attention.head_count_kv", {0, 2}).facts();
  EXPECT_EQ(lfm2.state->rolling, 64U * 2);
  EXPECT_EQ(lfm2.state->state, 0U);
  const auto kimi =
      Keys("kimi-linear", 2)("ssm.conv_kernel", 4)("kda.head_dim", 16).list("attention.head_count_kv", {0, 1}).facts();
  EXPECT_EQ(kimi.state->rolling, 3U * 3 * 4 * 16);
  EXPECT_EQ(kimi.state->state, 4U * 16 * 16);
}

TEST(GgufFacts, LayersThatPredictFurtherTokensAreMarked) {
  const auto model = Keys("glm4moe", 4)("nextn_predict_layers", 1)("expert_count", 8)("expert_used_count", 2)(
                         "expert_shared_count", 1)("expert_feed_forward_length", 32)
                         .facts();
  EXPECT_EQ(layers_that(model, &LayerFacts::prediction), "0001");
  ASSERT_TRUE(model.experts);
  EXPECT_EQ(model.experts->count, 8U);
  EXPECT_EQ(model.experts->used, 2U);
  EXPECT_EQ(model.experts->shared, 1U);
}

TEST(GgufFacts, ValuesThatNoModelHasAreErrors) {
  const auto refused = [](Keys keys) {
    const auto model = facts(keys.writer());
    return model ? std::string("(no problem)") : model.error().message;
  };
  EXPECT_THAT(refused(Keys("llama", 5000)), HasSubstr("'llama.block_count' says 5000: expected 0 to 4096"));
  EXPECT_THAT(refused(Keys("llama")("attention.key_length", 4000000000)), HasSubstr("attention.key_length"));
  Keys negative("llama");
  negative.writer().number("llama.attention.head_count_kv", ~0ULL, GgufType::i64);
  EXPECT_THAT(refused(negative), HasSubstr("says -1"));
  EXPECT_TRUE(facts(GgufWriter())) << "a file without an architecture has no layers, and is no error";
}

TEST(GgufFacts, TypesThatAreNotKnownAreRemarkedUpon) {
  const auto model = facts(Keys("llama").writer().tensor("a", {8}, 142, 64).tensor("b", {8}, 142, 64));
  ASSERT_TRUE(model);
  EXPECT_EQ(model->types.at("type 142").bytes, Bytes(128));
  EXPECT_EQ(std::count_if(model->remarks.begin(), model->remarks.end(),
                          [](const auto& words) { return words.find("type 142") != std::string::npos; }),
            1);
}

ModelKind kind_of(GgufWriter writer, std::string_view name) {
  const auto model = facts(writer.tensor("token_embd.weight", {8}));
  return model ? guess_kind(*model, name).kind : ModelKind::unusable;
}

TEST(ModelKinds, AreToldByTheHeader) {
  const auto of = [](const char* architecture) { return GgufWriter().text("general.architecture", architecture); };
  EXPECT_EQ(kind_of(of("qwen3"), "model.gguf"), ModelKind::chat);
  for (const char* encoder :
       {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "modern-bert", "t5encoder", "gemma-embedding"})
    EXPECT_EQ(kind_of(of(encoder), "model.gguf"), ModelKind::embedding) << encoder;
  const auto pooled = [&](std::uint32_t type) { return of("qwen3").number("qwen3.pooling_type", type); };
  EXPECT_EQ(kind_of(pooled(0), "model.gguf"), ModelKind::chat);
  EXPECT_EQ(kind_of(pooled(3), "model.gguf"), ModelKind::embedding);
  EXPECT_EQ(kind_of(pooled(4), "model.gguf"), ModelKind::reranker);
  EXPECT_EQ(kind_of(of("clip"), "vision.gguf"), ModelKind::unusable);
  EXPECT_EQ(kind_of(GgufWriter().text("general.type", "adapter"), "lora.gguf"), ModelKind::unusable);
  const auto vocabulary = facts(of("llama"));
  EXPECT_EQ(guess_kind(*vocabulary, "ggml-vocab-llama.gguf").kind, ModelKind::unusable) << "no tensors";
}

TEST(ModelKinds, FallBackOnTheNameAndThenOnChat) {
  const auto plain = facts(GgufWriter().text("general.architecture", "qwen3").tensor("t", {8}));
  EXPECT_EQ(guess_kind(*plain, "Qwen3-Embedding-0.6B-Q8_0.gguf").kind, ModelKind::embedding);
  EXPECT_FALSE(guess_kind(*plain, "Qwen3-Embedding-0.6B-Q8_0.gguf").certain);
  EXPECT_EQ(guess_kind(*plain, "Qwen3-Reranker-4B.gguf").kind, ModelKind::reranker);
  EXPECT_EQ(guess_kind(*plain, "mmproj-model-f16.gguf").kind, ModelKind::unusable);
  EXPECT_EQ(guess_kind(*plain, "whatever.gguf").kind, ModelKind::chat);
}

}  // namespace
}  // namespace gpumod
