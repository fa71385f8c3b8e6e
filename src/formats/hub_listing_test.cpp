#include "formats/hub_listing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::string sum(64, 'a');

std::string listing(const std::string& siblings, const std::string& more = "") {
  return R"({"id":"Org/Model","sha":"0123abcd","gated":"auto")" + more + R"(,"siblings":[)" + siblings + "]}";
}
std::string file(const std::string& name, const std::string& size = "10") {
  return R"({"rfilename":")" + name + R"(","size":)" + size + "}";
}

std::vector<std::string> names(const std::vector<HubFile>& files) {
  std::vector<std::string> names;
  for (const auto& each : files)
    names.push_back(each.name);
  return names;
}

TEST(HubListing, SaysWhatFilesThereAreAndHowLarge) {
  const auto repository =
      read_hub_listing("test", listing(file("config.json", "321") + R"(,{"rfilename":"m.gguf","lfs":{"sha256":")" +
                                           sum + R"(","size":5000}},{"rfilename":"README.md"})",
                                       R"(,"config":{"model_type":"qwen3","architectures":["Qwen3ForCausalLM"]})"));
  ASSERT_TRUE(repository) << repository.error().message;
  EXPECT_EQ(repository->id, "Org/Model");
  EXPECT_EQ(repository->revision, "0123abcd");
  EXPECT_TRUE(repository->gated);
  EXPECT_EQ(repository->architecture, "qwen3");
  EXPECT_EQ(repository->model_class, "Qwen3ForCausalLM");
  ASSERT_EQ(repository->files.size(), 3U);
  EXPECT_EQ(repository->find("config.json")->size, Bytes(321));
  EXPECT_EQ(repository->find("m.gguf")->size, Bytes(5000));
  EXPECT_EQ(repository->find("m.gguf")->sha256, sum);
  EXPECT_FALSE(repository->find("README.md")->size);
}

TEST(HubListing, NamesThatLeadOutOfTheRepositoryAreNotTaken) {
  const auto repository = read_hub_listing(
      "test",
      listing(file("../evil") + "," + file("/etc/passwd") + "," + file("a//b") + "," + file("a/./b") + "," +
              file("a/") + "," + file("line\\nbreak") + "," + file("") + "," + file("good/file.gguf") +
              R"(,7,{"size":3},{"rfilename":"odd","size":-1},{"rfilename":"huge","size":9223372036854775807})"));
  ASSERT_TRUE(repository);
  EXPECT_THAT(names(repository->files), ElementsAre("good/file.gguf", "odd", "huge"));
  EXPECT_FALSE(repository->find("odd")->size);
  EXPECT_FALSE(repository->find("huge")->size);
}

TEST(HubListing, WhatIsNoListingIsRefused) {
  for (const char* body :
       {"", "[]", "{}", "<html>", R"({"id":"a/b"})", R"({"id":"a/b","siblings":{}})", R"({"siblings":[]})"})
    EXPECT_FALSE(read_hub_listing("test", body)) << body;
  std::string deep(100000, '[');
  EXPECT_THAT(read_hub_listing("the hub", deep).error().message, HasSubstr("the hub: "));
}

TEST(HubListing, SeriesAndProjectorsBelongTogether) {
  const auto repository = read_hub_listing(
      "test", listing(file("Q4/m-Q4-00001-of-00002.gguf") + "," + file("Q4/m-Q4-00002-of-00002.gguf") + "," +
                      file("m-Q8.gguf") + "," + file("mmproj-F16.gguf") + "," + file("Q4/other-00002-of-00002.gguf")));
  ASSERT_TRUE(repository);
  EXPECT_THAT(gguf_models_of(*repository), ElementsAre("Q4/m-Q4-00001-of-00002.gguf", "m-Q8.gguf"));
  EXPECT_THAT(names(files_of_hub_model(*repository, "m-Q8.gguf")), ElementsAre("m-Q8.gguf", "mmproj-F16.gguf"));
  EXPECT_THAT(names(files_of_hub_model(*repository, "Q4/m-Q4-00001-of-00002.gguf")),
              ElementsAre("Q4/m-Q4-00001-of-00002.gguf", "Q4/m-Q4-00002-of-00002.gguf"));
}

TEST(HubListing, AGgufFileIsOneHoweverItsNameIsWritten) {
  const auto repository = read_hub_listing("test", listing(file("M.GGUF") + "," + file("mmproj-M.Gguf")));
  ASSERT_TRUE(repository);
  EXPECT_THAT(gguf_models_of(*repository), ElementsAre("M.GGUF"));
}

TEST(HubListing, ASafetensorsModelIsKnownByItsConfigurationAndTheSizesOfItsFiles) {
  const auto repository = read_hub_listing(
      "test", listing(file("config.json") + "," + file("model-00001-of-00002.safetensors", "600") + "," +
                          file("model-00002-of-00002.safetensors", "400") + "," +
                          file("consolidated.safetensors", "1000") + "," + file("original/model.safetensors", "7"),
                      R"(,"safetensors":{"parameters":{"BF16":500},"total":500})"));
  ASSERT_TRUE(repository);
  const auto facts = facts_of_hub_model(*repository, "config.json", R"({"model_type":"llama","architectures":
      ["LlamaForCausalLM"],"num_hidden_layers":2,"num_attention_heads":4,"hidden_size":64,
      "max_position_embeddings":4096,"vocab_size":100,"intermediate_size":128})");
  ASSERT_TRUE(facts) << facts.error().message;
  EXPECT_EQ(facts->weights, Bytes(1000));
  EXPECT_EQ(facts->file_bytes, Bytes(1010));
  EXPECT_EQ(facts->parameters, 500U);
  EXPECT_EQ(facts->types.at("BF16").bytes, Bytes(1000));
  EXPECT_EQ(facts->context_length, 4096U);
  EXPECT_EQ(facts->layers.size(), 2U);
}

}  // namespace
}  // namespace gpumod
