#include "formats/model_files.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/folder_testing.h"
#include "formats/gguf_testing.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ModelFilesTest : public testing::Test {
 protected:
  fs::path write(const fs::path& below, std::string_view text = "xy") { return root_.write(below, text); }
  static std::vector<std::string> names(const ModelFiles& files) {
    std::vector<std::string> names;
    for (const auto& file : files.files)
      names.push_back(file.path.filename().string());
    return names;
  }

  TestFolder root_;
};

TEST_F(ModelFilesTest, ASeriesIsKnownByAnyOfItsPartsAndMissesTheOthers) {
  write("m/big-00001-of-00003.gguf");
  const auto third = write("m/big-00003-of-00003.gguf");
  const auto files = files_of_model(third);
  EXPECT_EQ(files.layout, ModelLayout::gguf);
  EXPECT_THAT(names(files),
              ElementsAre("big-00001-of-00003.gguf", "big-00002-of-00003.gguf", "big-00003-of-00003.gguf"));
  EXPECT_EQ(files.bytes(), Bytes(4));
  EXPECT_THAT(files.problems(), ElementsAre((root_ / "m/big-00002-of-00003.gguf").string() + " is not there"));
  EXPECT_TRUE(files.files.front().modified);
  EXPECT_FALSE(files.files[1].size);
}

TEST_F(ModelFilesTest, WhatIsNoRegularFileIsNamed) {
  ASSERT_EQ(::mkfifo((root_ / "pipe.gguf").c_str(), 0600), 0);
  fs::create_symlink(root_ / "gone", root_ / "link.gguf");
  fs::create_symlink("circle.gguf", root_ / "circle.gguf");
  fs::create_directory(root_ / "folder.gguf");
  EXPECT_EQ(look_at_model_file(root_ / "pipe.gguf").problem, "is a FIFO");
  EXPECT_EQ(look_at_model_file(root_ / "link.gguf").problem, "is a link that leads nowhere");
  EXPECT_EQ(look_at_model_file(root_ / "circle.gguf").problem, "is a link that leads in a circle");
  EXPECT_EQ(look_at_model_file(root_ / "folder.gguf").problem, "is a folder");
  EXPECT_EQ(look_at_model_file("/dev/null").problem, "is a device");
  EXPECT_EQ(look_at_model_file(root_ / "nothing").problem, "is not there");
  EXPECT_THAT(files_of_model(root_ / "link.gguf").problems(), ElementsAre(HasSubstr("leads nowhere")));
}

TEST_F(ModelFilesTest, ProjectorsBelongToTheModelThatTheyAreNamedAfter) {
  const std::vector<std::string> both{"Qwen2.5-VL-7B-Q4_K_M.gguf", "gemma-3-4b-it-Q8_0.gguf", "mmproj-F16.gguf",
                                      "mmproj-Qwen2.5-VL-7B-f16.gguf", "mmproj-gemma-3-4b-it-bf16.gguf"};
  EXPECT_THAT(projectors_of("Qwen2.5-VL-7B-Q4_K_M.gguf", both),
              ElementsAre("mmproj-F16.gguf", "mmproj-Qwen2.5-VL-7B-f16.gguf"));
  EXPECT_THAT(projectors_of("gemma-3-4b-it-Q8_0.gguf", both),
              ElementsAre("mmproj-F16.gguf", "mmproj-gemma-3-4b-it-bf16.gguf"));
  EXPECT_THAT(projectors_of("other.gguf", {"other.gguf", "mmproj-named-otherwise.gguf"}),
              ElementsAre("mmproj-named-otherwise.gguf"))
      << "there is no other model that it could belong to";
  EXPECT_THAT(projectors_of("other.gguf", {"other.gguf", "another.gguf", "mmproj-third.gguf"}), IsEmpty());

  const auto model = write("v/model-Q4_0.gguf");
  write("v/mmproj-model-f16.gguf");
  const auto files = files_of_model(model);
  ASSERT_THAT(names(files), ElementsAre("model-Q4_0.gguf", "mmproj-model-f16.gguf"));
  EXPECT_EQ(files.files[1].role, ModelFile::Role::projector);
}

TEST_F(ModelFilesTest, AFolderOfSafetensorsHasTheShardsOfItsIndex) {
  write("hf/config.json", "{}");
  write("hf/tokenizer.json", "{}");
  write("hf/model-00001-of-00002.safetensors");
  write("hf/model.safetensors.index.json",
        R"({"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors","c":"../x"}})");
  for (const char* name : {"hf", "hf/config.json", "hf/model-00001-of-00002.safetensors"}) {
    const auto files = files_of_model(root_ / name);
    EXPECT_EQ(files.layout, ModelLayout::safetensors) << name;
    EXPECT_THAT(files.problems(), ElementsAre(HasSubstr("model-00002-of-00002.safetensors is not there"))) << name;
  }
}

TEST_F(ModelFilesTest, WhatServersDoWithoutIsNoObstacle) {
  write("hf/config.json", "{}");
  write("hf/model.safetensors");
  fs::create_symlink("gone", root_ / "hf/notes.json");
  EXPECT_THAT(files_of_model(root_ / "hf").problems(), ElementsAre(HasSubstr("notes.json is a link")));
  EXPECT_THAT(files_of_model(root_ / "hf").obstacles(), IsEmpty());
  fs::create_symlink("gone", root_ / "hf/tokenizer_config.json");
  EXPECT_THAT(files_of_model(root_ / "hf").obstacles(), ElementsAre(HasSubstr("tokenizer_config.json is a link")));
  write("see.gguf");
  fs::create_symlink("gone", root_ / "mmproj-see.gguf");
  EXPECT_EQ(files_of_model(root_ / "see.gguf").problems().size(), 1U);
  EXPECT_THAT(files_of_model(root_ / "see.gguf").obstacles(), IsEmpty());
}

TEST_F(ModelFilesTest, EverythingElseIsFilesOfWhichNoMoreIsKnown) {
  write("whisper/model.bin");
  fs::create_directory(root_ / "whisper/below");
  const auto files = files_of_model(root_ / "whisper");
  EXPECT_EQ(files.layout, ModelLayout::local);
  EXPECT_THAT(names(files), ElementsAre("model.bin"));
  EXPECT_EQ(files_of_model(root_ / "nowhere").layout, ModelLayout::local);
  EXPECT_THAT(files_of_model(root_ / "nowhere").problems(), ElementsAre(HasSubstr("is not there")));
}

TEST_F(ModelFilesTest, AGgufFileIsOneWhateverItsName) {
  EXPECT_EQ(files_of_model(write("blobs/sha256-0123", "GGUF and so on")).layout, ModelLayout::gguf);
  EXPECT_EQ(files_of_model(write("blobs/sha256-4567", "GGU")).layout, ModelLayout::local);
}

TEST_F(ModelFilesTest, AFolderWithOneGgufModelIsThatModel) {
  write("one/m-00001-of-00002.gguf");
  write("one/m-00002-of-00002.gguf");
  write("one/mmproj-m.gguf");
  EXPECT_EQ(names(files_of_model(root_ / "one")).size(), 3U);
  EXPECT_EQ(files_of_model(root_ / "one").layout, ModelLayout::gguf);
}

TEST(ModelTitle, IsWhatPeopleWouldCallIt) {
  EXPECT_EQ(model_title("/m/Qwen3-8B-Q4_K_M.gguf"), "Qwen3-8B-Q4_K_M");
  EXPECT_EQ(model_title("/m/big-00002-of-00003.gguf"), "big");
  EXPECT_EQ(model_title("/m/Qwen3-8B"), "Qwen3-8B");
  EXPECT_EQ(model_title("/m/Qwen3-8B/config.json"), "Qwen3-8B");
  EXPECT_EQ(model_title("/h/hub/models--Qwen--Qwen3-8B/snapshots/abc"), "Qwen/Qwen3-8B");
  EXPECT_EQ(model_title("/h/hub/models--Qwen--Qwen3-8B-GGUF/snapshots/abc/q4.gguf"), "q4");
}

}  // namespace
}  // namespace gpumod
