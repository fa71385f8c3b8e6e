// Hugging Face layouts: configurations, safetensors headers, indexes, and what a hostile one may try.
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/folder_testing.h"
#include "formats/gguf_testing.h"
#include "formats/hf_model.h"
#include "formats/model_file.h"
#include "formats/safetensors.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;

std::string safetensors(const std::string& header, std::size_t data) {
  return GgufWriter::little_endian(header.size(), 8) + header + std::string(data, '\0');
}

std::string problem_of(const std::string& bytes) {
  const auto tensors = read_safetensors(MemorySource("x.safetensors", bytes));
  return tensors ? "(no problem)" : tensors.error().message;
}

constexpr auto two_tensors = R"({"__metadata__": {"format": "pt"},
  "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
  "b": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [12, 16]}})";

TEST(Safetensors, AreReadByTheirHeader) {
  const auto tensors = read_safetensors(MemorySource("x", safetensors(two_tensors, 16)));
  ASSERT_TRUE(tensors) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 2U);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].type, "BF16");
  EXPECT_THAT((*tensors)[0].shape, testing::ElementsAre(2, 3));
  EXPECT_EQ((*tensors)[0].bytes, Bytes(12));
  EXPECT_EQ((*tensors)[1].elements, 4U);
}

TEST(Safetensors, ACutIsFoundAtEveryByte) {
  const auto whole = safetensors(two_tensors, 16);
  for (std::size_t length = 0; length < whole.size(); ++length)
    EXPECT_NE(problem_of(whole.substr(0, length)), "(no problem)") << length;
  EXPECT_THAT(problem_of(whole.substr(0, whole.size() - 1)), HasSubstr("expected the 4 bytes of the tensor 'b'"));
}

TEST(Safetensors, LiesAreFoundOut) {
  EXPECT_THAT(problem_of(GgufWriter::little_endian(1ULL << 63, 8)), HasSubstr("only 0 are left"));
  EXPECT_THAT(problem_of(GgufWriter::little_endian(33 << 20, 8) + std::string(34 << 20, ' ')), HasSubstr("at most"));
  EXPECT_THAT(problem_of(safetensors("[1]", 0)), HasSubstr("expected a JSON object"));
  EXPECT_THAT(problem_of(safetensors(std::string(5000, '['), 0)), HasSubstr("expected a JSON object"));
  const auto with = [](const std::string& entry) { return problem_of(safetensors("{\"t\": " + entry + "}", 64)); };
  EXPECT_THAT(with("7"), HasSubstr("must have a dtype"));
  EXPECT_THAT(with(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]})"), HasSubstr("take another number"));
  EXPECT_THAT(with(R"({"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]})"),
              HasSubstr("cannot be counted"));
  EXPECT_THAT(with(R"({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]})"), HasSubstr("cannot be counted"));
  EXPECT_THAT(with(R"({"dtype": "F32", "shape": [1], "data_offsets": [8, 4]})"), HasSubstr("no range"));
  EXPECT_THAT(with(R"({"dtype": "F32", "shape": [1], "data_offsets": [64, 68]})"), HasSubstr("cut short"));
  EXPECT_THAT(problem_of(safetensors(R"({"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
                                          "b": {"dtype": "U8", "shape": [8], "data_offsets": [4, 12]}})",
                                     12)),
              HasSubstr("lies over another one"));
}

ModelFacts config(const std::string& text) {
  const auto facts = facts_of_hf_config("config.json", text);
  EXPECT_TRUE(facts) << facts.error().message;
  return facts ? *facts : ModelFacts{};
}

std::string layers_that(const ModelFacts& facts, bool LayerFacts::*what) {
  std::string marks;
  for (const auto& layer : facts.layers)
    marks += layer.*what ? '1' : '0';
  return marks;
}

TEST(HfConfig, OfADenseModel) {
  const auto facts = config(R"({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": 3,
    "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "intermediate_size": 3072, "max_position_embeddings": 40960, "sliding_window": null, "use_sliding_window": false})");
  EXPECT_EQ(facts.architecture, "qwen3");
  EXPECT_EQ(facts.model_class, "Qwen3ForCausalLM");
  EXPECT_EQ(facts.context_length, 40960U);
  EXPECT_EQ(facts.vocabulary, 151936U);
  ASSERT_EQ(facts.layers.size(), 3U);
  EXPECT_EQ(facts.layers[0].kv_heads, 8U);
  EXPECT_EQ(facts.layers[0].key_length, 128U);
  EXPECT_EQ(facts.sliding_window, 0U);
  EXPECT_TRUE(facts.keeps_kv);
}

TEST(HfConfig, LayerTypesSayWhatSlidesAndWhatRecurs) {
  const auto gemma = config(R"({"model_type": "gemma3", "text_config": {"num_hidden_layers": 3, "hidden_size": 64,
    "num_attention_heads": 4, "sliding_window": 512, "head_dim": 16,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}})");
  EXPECT_EQ(layers_that(gemma, &LayerFacts::sliding), "110");
  EXPECT_EQ(gemma.sliding_window, 512U);
  const auto nemotron = config(R"({"model_type": "nemotron_h", "num_hidden_layers": 4, "hidden_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hybrid_override_pattern": "M-*M",
    "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 32, "n_groups": 2, "conv_kernel": 4,
    "time_step_limit": [0.0, Infinity], "x": "Infinity \" NaN"})");
  EXPECT_EQ(layers_that(nemotron, &LayerFacts::recurrent), "1001");
  EXPECT_EQ(layers_that(nemotron, &LayerFacts::attention), "0010");
  EXPECT_EQ(nemotron.state->state, 8U * 16 * 32);
  EXPECT_EQ(nemotron.state->rolling, 3U * (8 * 16 + 2 * 2 * 32));
  const auto gemma2 = config(R"({"model_type": "gemma2", "num_hidden_layers": 2, "sliding_window": 4096,
    "num_attention_heads": 4, "hidden_size": 64})");
  EXPECT_THAT(gemma2.remarks, Contains(HasSubstr("all are taken to slide")));
}

TEST(HfConfig, LatentAttentionAndExpertsAndQuantization) {
  const auto facts = config(R"({"model_type": "deepseek_v3", "num_hidden_layers": 2, "hidden_size": 7168,
    "num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536,
    "qk_rope_head_dim": 64, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1,
    "moe_intermediate_size": 2048, "quantization_config": {"quant_method": "fp8"}})");
  EXPECT_EQ(facts.layers[0].key_length, 576U);
  EXPECT_EQ(facts.layers[0].value_length, 0U);
  EXPECT_EQ(facts.layers[0].kv_heads, 1U);
  EXPECT_EQ(facts.experts->count, 256U);
  EXPECT_EQ(facts.quantization, "fp8");
  EXPECT_EQ(config(R"({"quantization_config": {"quant_method": "awq", "bits": 4}})").quantization, "awq 4 bit");
}

TEST(HfConfig, WhatNoModelHasIsAnError) {
  const auto refused = [](const std::string& text) {
    const auto facts = facts_of_hf_config("config.json", text);
    return facts ? std::string("(no problem)") : facts.error().message;
  };
  EXPECT_THAT(refused("{"), HasSubstr("config.json: expected a JSON object"));
  EXPECT_THAT(refused("3"), HasSubstr("config.json: expected a JSON object"));
  EXPECT_THAT(refused(R"({"num_hidden_layers": 100000})"), HasSubstr("'num_hidden_layers' is 100000"));
  EXPECT_THAT(refused(R"({"hidden_size": -5})"), HasSubstr("'hidden_size' is -5"));
  EXPECT_THAT(refused(R"({"vocab_size": 18446744073709551615})"), HasSubstr("vocab_size"));
  EXPECT_EQ(refused(R"({"num_attention_heads": [1, 2], "sliding_window": -1})"), "(no problem)");
}

class HfFolder : public testing::Test {
 protected:
  HfFolder() {
    write("config.json",
          R"({"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2})");
  }
  void write(const std::string& name, const std::string& bytes) const { folder_.write(name, bytes); }
  void write_shard(const std::string& name, const std::string& tensor) const {
    write(name, safetensors("{\"" + tensor + R"(": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}})", 8));
  }
  std::string problem() const {
    const auto facts = read_model(root_);
    return facts ? "(no problem)" : facts.error().message;
  }
  TestFolder folder_;
  const fs::path& root_ = folder_.path();
};

TEST_F(HfFolder, ShardsAreReadThroughTheirIndex) {
  write_shard("model-00001-of-00002.safetensors", "a");
  write_shard("model-00002-of-00002.safetensors", "b");
  write_shard("stray.safetensors", "c");
  write("model.safetensors.index.json", R"({"metadata": {"total_size": 16}, "weight_map":
    {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})");
  write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizerFast", "chat_template": "x"})");
  for (const fs::path& path : {root_, root_ / "config.json", root_ / "model-00001-of-00002.safetensors"}) {
    const auto facts = read_model(path);
    ASSERT_TRUE(facts) << facts.error().message;
    EXPECT_EQ(facts->format, ModelFormat::safetensors);
    EXPECT_EQ(facts->tensors.size(), 2U);
    EXPECT_EQ(facts->weights, Bytes(16));
    EXPECT_EQ(facts->parameters, 8U);
    EXPECT_EQ(facts->files.size(), 2U);
    EXPECT_EQ(facts->tokenizer, "LlamaTokenizerFast");
    EXPECT_TRUE(facts->chat_template);
  }
}

TEST_F(HfFolder, AnIndexIsNotBelieved) {
  write_shard("a.safetensors", "a");
  const auto index = [&](const std::string& map) {
    write("model.safetensors.index.json", R"({"weight_map": )" + map + "}");
  };
  index(R"({"a": "../a.safetensors"})");
  EXPECT_THAT(problem(), HasSubstr("must be in a file of this folder"));
  index(R"({"a": "/etc/passwd"})");
  EXPECT_THAT(problem(), HasSubstr("must be in a file of this folder"));
  index(R"({"a": 7})");
  EXPECT_THAT(problem(), HasSubstr("must be in a file of this folder"));
  index(R"({"a": "missing.safetensors"})");
  EXPECT_THAT(problem(), HasSubstr("missing.safetensors"));
  index(R"({"other": "a.safetensors"})");
  EXPECT_THAT(problem(), HasSubstr("the tensor 'other' is not in a.safetensors"));
  index("{}");
  EXPECT_THAT(problem(), HasSubstr("weight_map is empty"));
}

TEST_F(HfFolder, WithoutAnIndexTheFilesThemselvesCount) {
  EXPECT_THAT(problem(), HasSubstr("holds no *.safetensors file"));
  write_shard("part-a.safetensors", "a");
  write_shard("part-b.safetensors", "b");
  write_shard("consolidated.safetensors", "a");
  EXPECT_EQ(read_model(root_)->tensors.size(), 2U);
  write_shard("part-c.safetensors", "a");
  EXPECT_THAT(problem(), HasSubstr("'a' is in an earlier file too"));
  write_shard("model.safetensors", "z");
  EXPECT_EQ(read_model(root_)->tensors.size(), 1U);
}

TEST_F(HfFolder, AFolderOfGgufFilesIsAModelWhenThereIsOne) {
  fs::remove(root_ / "config.json");
  EXPECT_THAT(problem(), HasSubstr("holds no model"));
  write("a.gguf", GgufWriter().text("general.architecture", "llama").tensor("t", {8}).bytes());
  write("mmproj-a.gguf", "not looked at");
  EXPECT_EQ(read_model(root_)->architecture, "llama");
  write("b.gguf", "x");
  const auto several = read_model(root_);
  EXPECT_EQ(several.error().code, ErrorCode::usage);
  EXPECT_THAT(several.error().hint, HasSubstr("a.gguf, b.gguf"));
  EXPECT_EQ(read_model(root_ / "none").error().code, ErrorCode::not_found);
  fs::create_symlink(root_ / "none", root_ / "link");
  EXPECT_THAT(read_model(root_ / "link").error().hint, HasSubstr("leads nowhere"));
}

}  // namespace
}  // namespace gpumod
