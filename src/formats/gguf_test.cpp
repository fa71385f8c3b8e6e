#include "formats/gguf.h"

#include <bit>
#include <fstream>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/folder_testing.h"
#include "formats/gguf_testing.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

Result<GgufFile> read(const std::string& bytes) {
  return read_gguf(MemorySource("x.gguf", bytes));
}

std::string problem_of(const std::string& bytes) {
  const auto file = read(bytes);
  return file ? "(no problem)" : file.error().message;
}

GgufWriter small() {
  return GgufWriter()
      .text("general.architecture", "llama")
      .texts("tokenizer.ggml.tokens", {"a", "", "ccc"})
      .numbers("llama.attention.head_count_kv", {2, 0, 4})
      .tensor("token_embd.weight", {8, 3})
      .tensor("output_norm.weight", {8}, "f16");
}

TEST(Gguf, ReadsEveryTypeOfValue) {
  const auto file = read(GgufWriter()
                             .number("u8", 200, GgufType::u8)
                             .number("i8", 0xFE, GgufType::i8)
                             .number("u16", 65535, GgufType::u16)
                             .number("i16", 0xFFFF, GgufType::i16)
                             .number("u32", 4294967295, GgufType::u32)
                             .number("i32", 0xFFFFFFFF, GgufType::i32)
                             .number("f32", std::bit_cast<std::uint32_t>(1.5F), GgufType::f32)
                             .number("f64", std::bit_cast<std::uint64_t>(-0.25), GgufType::f64)
                             .number("u64", 1ULL << 63, GgufType::u64)
                             .number("i64", ~0ULL, GgufType::i64)
                             .flag("yes", true)
                             .text("text", "words")
                             .numbers("list", {0xFF, 1}, GgufType::i8)
                             .numbers("flags", {1, 0, 1}, GgufType::boolean)
                             .bytes());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->integer("u8"), 200);
  EXPECT_EQ(file->integer("i8"), -2);
  EXPECT_EQ(file->integer("u16"), 65535);
  EXPECT_EQ(file->integer("i16"), -1);
  EXPECT_EQ(file->integer("u32"), 4294967295);
  EXPECT_EQ(file->integer("i32"), -1);
  EXPECT_EQ(file->find("f32")->real, 1.5);
  EXPECT_EQ(file->find("f64")->real, -0.25);
  EXPECT_EQ(file->integer("u64"), std::numeric_limits<std::int64_t>::max()) << "held to what a signed number can say";
  EXPECT_EQ(file->integer("i64"), -1);
  EXPECT_TRUE(file->flag("yes", false));
  EXPECT_EQ(file->text("text"), "words");
  EXPECT_THAT(file->find("list")->numbers, ElementsAre(-1, 1));
  EXPECT_THAT(file->find("flags")->numbers, ElementsAre(1, 0, 1));
  EXPECT_FALSE(file->integer("text"));
  EXPECT_FALSE(file->integer("nowhere"));
}

TEST(Gguf, NestedArraysAreWalkedAndFoundTooDeep) {
  const auto nested = [](int depth) {
    auto value = GgufWriter::array(GgufType::u8, 3, "abc");
    for (int i = 0; i < depth; ++i)
      value = GgufWriter::array(GgufType::array, 2, value + value);
    return GgufWriter().raw("deep", GgufType::array, value).text("after", "seen").bytes();
  };
  const auto file = read(nested(3));
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->find("deep")->count, 2U);
  EXPECT_EQ(file->text("after"), "seen");
  EXPECT_THAT(problem_of(nested(4)), HasSubstr("arrays within arrays"));
}

TEST(Gguf, OfLongListsAndTextsOnlyTheLengthIsKept) {
  const std::string story(20'000, 'x');
  const auto file = read(GgufWriter()
                             .numbers("ids", std::vector<std::uint64_t>(5000, 7))
                             .text("tokenizer.chat_template", story)
                             .texts("tokens", std::vector<std::string>(3000, "token"))
                             .bytes());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->find("ids")->count, 5000U);
  EXPECT_TRUE(file->find("ids")->numbers.empty());
  EXPECT_EQ(file->find("tokens")->count, 3000U);
  EXPECT_EQ(file->find("tokenizer.chat_template")->text_bytes, story.size());
  EXPECT_EQ(file->text("tokenizer.chat_template").size(), gguf_limits::kept_text);
}

TEST(Gguf, TensorsHaveTheBytesOfTheirBlocks) {
  const auto file = read(GgufWriter()
                             .tensor("a", {256, 4}, "q4_K")
                             .tensor("b", {64, 2}, "q8_0")
                             .tensor("c", {64, 1, 2}, "mxfp4")
                             .tensor("d", {}, "f32")
                             .bytes());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->tensors[0].bytes, 4U * 144);
  EXPECT_EQ(file->tensors[1].bytes, 2U * 2 * 34);
  EXPECT_EQ(file->tensors[2].bytes, 2U * 2 * 17);
  EXPECT_EQ(file->tensors[3].bytes, 4U) << "no dimension is one number";
  EXPECT_EQ(file->tensors[1].elements, 128U);
  EXPECT_EQ(file->data_offset % 32, 0U);
}

TEST(Gguf, ATypeThatGgmlDoesNotKnowIsMeasuredByItsRoom) {
  const auto file = read(GgufWriter().tensor("a", {100}, 142, 96).tensor("b", {8}).tensor("c", {9}, 200, 64).bytes());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->tensors[0].bytes, 96U);
  EXPECT_EQ(file->tensors[2].bytes, 64U) << "the last one goes to the end of the file";
}

TEST(Gguf, AlignmentIsHonouredAndChecked) {
  const auto file = read(GgufWriter().alignment(4096).tensor("a", {8}).tensor("b", {8}).bytes());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->data_offset % 4096, 0U);
  EXPECT_EQ(file->tensors[1].offset, 4096U);
  EXPECT_THAT(problem_of(GgufWriter().number("general.alignment", 48).bytes()), HasSubstr("power of two"));
  EXPECT_THAT(problem_of(GgufWriter().number("general.alignment", 0).bytes()), HasSubstr("power of two"));
  const auto slanted = GgufWriter().tensor("a", {1}).number("general.alignment", 64).tensor("b", {8}).bytes();
  EXPECT_THAT(problem_of(slanted + std::string(64, '\0')), HasSubstr("no multiple of the alignment"));
}

TEST(Gguf, ACutIsFoundAtEveryByteAndSaysWhere) {
  const auto whole = small().bytes();
  ASSERT_TRUE(read(whole));
  for (std::size_t length = 0; length < whole.size(); ++length) {
    // What follows the last tensor's data is padding: a file may end there.
    if (length >= whole.size() - 16) continue;
    const auto cut = read(whole.substr(0, length));
    ASSERT_FALSE(cut) << length;
    EXPECT_EQ(cut.error().code, ErrorCode::configuration);
    EXPECT_THAT(cut.error().message, testing::StartsWith("x.gguf: at byte ")) << length;
  }
  EXPECT_THAT(problem_of(whole.substr(0, whole.size() - 17)),
              HasSubstr("expected the 16 bytes of the tensor 'output_norm.weight'"));
}

TEST(Gguf, EveryByteMayLie) {
  const auto whole = small().bytes();
  for (std::size_t at = 0; at < whole.size(); ++at)
    for (const char lie : {'\x00', '\x01', '\x7F', '\x80', '\xFF'}) {
      auto bytes = whole;
      bytes[at] = lie;
      const auto file = read(bytes);
      if (!file) {
        EXPECT_THAT(file.error().message, testing::StartsWith("x.gguf: at byte ")) << at;
        continue;
      }
      for (const auto& tensor : file->tensors)
        EXPECT_LE(file->data_offset + tensor.offset + tensor.bytes, bytes.size()) << at;
    }
}

TEST(Gguf, CountsBeyondTheFileAreNotFollowed) {
  constexpr std::uint64_t huge = 1ULL << 63;
  const auto lie = GgufWriter::little_endian(huge, 8);
  const auto element = GgufWriter::little_endian(4, 4), texts = GgufWriter::little_endian(8, 4);
  EXPECT_THAT(problem_of(small().claim(huge, 3).bytes()), HasSubstr("tensors are claimed"));
  EXPECT_THAT(problem_of(small().claim(2, huge).bytes()), HasSubstr("keys are claimed"));
  EXPECT_THAT(problem_of(GgufWriter().raw("k", GgufType::text, lie).bytes()), HasSubstr("bytes, and only"));
  EXPECT_THAT(problem_of(GgufWriter().raw("k", GgufType::array, element + lie).bytes()),
              HasSubstr("values is claimed"));
  EXPECT_THAT(problem_of(GgufWriter().raw("k", GgufType::array, texts + lie).bytes()), HasSubstr("values is claimed"));
  EXPECT_THAT(problem_of(GgufWriter().raw("k", GgufType::array, GgufWriter::little_endian(13, 4) + lie).bytes()),
              HasSubstr("there are only 0 to 12"));
}

TEST(Gguf, CountsBeyondAnyModelAreRefusedEvenIfTheFileCouldHoldThem) {
  const auto long_file = [](std::uint64_t tensors, std::uint64_t pairs) {
    return GgufWriter().claim(tensors, pairs).header() + std::string(24 * 300'000, '\0');
  };
  EXPECT_THAT(problem_of(long_file(262'145, 0)), HasSubstr("at most 262144 are read"));
  EXPECT_THAT(problem_of(long_file(0, 16'385)), HasSubstr("at most 16384 are read"));
  EXPECT_THAT(problem_of(GgufWriter().text(std::string(70'000, 'k'), "v").bytes()), HasSubstr("65535 are read"));
}

TEST(Gguf, ShapesThatOverflowAreRefused) {
  constexpr std::uint64_t big = 1ULL << 40;
  EXPECT_THAT(problem_of(GgufWriter().tensor("t", {big, big}, 0, 0).bytes()),
              HasSubstr("more elements than can be counted"));
  EXPECT_THAT(problem_of(GgufWriter().tensor("t", {~0ULL}, 0, 0).bytes()),
              HasSubstr("more elements than can be counted"));
  EXPECT_THAT(problem_of(GgufWriter().tensor("t", {big, 1 << 23}, 28, 0).bytes()), HasSubstr("blocks of f64"));
  EXPECT_THAT(problem_of(GgufWriter().tensor("t", {1, 1, 1, 1, 1}, 0, 4).bytes()), HasSubstr("5 dimensions"));
  EXPECT_THAT(problem_of(GgufWriter().tensor("t", {100}, 12, 144).bytes()), HasSubstr("blocks of q4_K (256 elements"));
}

TEST(Gguf, WhatIsThereTwiceOrLiesOverAnotherIsRefused) {
  EXPECT_THAT(problem_of(GgufWriter().text("k", "a").text("k", "b").bytes()), HasSubstr("the key 'k' is there twice"));
  EXPECT_THAT(problem_of(GgufWriter().tensor("t", {8}).tensor("t", {8}).bytes()), HasSubstr("'t' is listed twice"));
  auto bytes = GgufWriter().tensor("a", {8}).tensor("b", {16}).bytes();
  const auto second_offset = GgufWriter().tensor("a", {8}).tensor("b", {16}).header().size() - 8;
  bytes.replace(second_offset, 8, 8, '\0');
  EXPECT_THAT(problem_of(bytes), HasSubstr("lies over another one"));
}

TEST(Gguf, OtherFormatsAreToldApart) {
  EXPECT_THAT(problem_of(""), HasSubstr("at byte 0: expected the letters GGUF"));
  EXPECT_THAT(problem_of("version https://git-lfs.github.com/spec/v1\n"), HasSubstr("this is no GGUF file"));
  EXPECT_THAT(problem_of(GgufWriter().version(1).bytes()), HasSubstr("version 1 of the format"));
  EXPECT_THAT(problem_of(GgufWriter().version(0x03000000).bytes()), HasSubstr("big-endian"));
}

TEST(Gguf, WhatAFileSaysCannotDriveATerminal) {
  const auto file = read(GgufWriter().text("general.name", "\x1B[2Jx").tensor("a\nb", {8}).bytes());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->text("general.name").find('\x1B'), std::string::npos);
  EXPECT_EQ(file->tensors[0].name.find('\n'), std::string::npos);
}

TEST(Gguf, ReadsNoMoreThanTheHeader) {
  class Counting : public ByteSource {
   public:
    Counting(std::uint64_t size, std::string_view head) : ByteSource("counted", size), head_(head) {}
    Result<std::size_t> read_at(std::uint64_t offset, char* into, std::size_t count) const override {
      furthest = std::max(furthest, offset + count);
      for (std::size_t i = 0; i < count; ++i)
        into[i] = offset + i < head_.size() ? head_[static_cast<std::size_t>(offset + i)] : '\0';
      return count;
    }
    mutable std::uint64_t furthest = 0;

   private:
    std::string_view head_;
  };
  const auto head =
      GgufWriter().texts("t", std::vector<std::string>(50'000, "token")).tensor("w", {1ULL << 34}).header();
  const Counting source(head.size() + 32 + (1ULL << 36), head);
  const auto file = read_gguf(source);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->tensors[0].bytes, 1ULL << 36);
  EXPECT_LE(source.furthest, head.size() + 64 * 1024) << "at most one window more than the header";
}

TEST(Gguf, AFileThatShrinksWhileItIsReadIsAnError) {
  const TestFolder folder;
  // More than one window, so that the reader comes back to the file.
  const auto path = folder.write(
      "x.gguf", GgufWriter().texts("t", std::vector<std::string>(50'000, "token")).tensor("w", {8}).bytes());
  const auto source = open_byte_source(path);
  ASSERT_TRUE(source);
  fs::resize_file(path, 1000);
  const auto file = read_gguf(**source);
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message, HasSubstr("has become shorter while it was read"));
}

TEST(GgufFiles, WhatIsNoFileIsNamed) {
  const TestFolder folder;
  ASSERT_EQ(::mkfifo((folder / "fifo.gguf").c_str(), 0600), 0);
  EXPECT_THAT(open_byte_source(folder / "fifo.gguf").error().message, HasSubstr("is a FIFO"));
  EXPECT_THAT(open_byte_source(folder / "").error().message, HasSubstr("is a folder"));
  fs::create_symlink(folder / "nowhere", folder / "link.gguf");
  EXPECT_EQ(open_byte_source(folder / "link.gguf").error().code, ErrorCode::not_found);
  fs::create_symlink(folder / "loop.gguf", folder / "loop.gguf");
  EXPECT_EQ(open_byte_source(folder / "loop.gguf").error().code, ErrorCode::not_found);
}

class GgufSeries : public testing::Test {
 protected:
  static std::string name(unsigned number, unsigned count) {
    return fmt::format("m-{:05}-of-{:05}.gguf", number, count);
  }
  static GgufWriter part(unsigned number, unsigned count) {
    return GgufWriter()
        .number("split.no", number - 1, GgufType::u16)
        .number("split.count", count, GgufType::u16)
        .tensor(fmt::format("blk.{}.w", number), {8});
  }
  void write_all(unsigned count) {
    for (unsigned number = 1; number <= count; ++number)
      folder_.write(name(number, count), part(number, count).bytes());
  }
  std::string problem(unsigned opened, unsigned count) const {
    const auto model = read_gguf_model(folder_ / name(opened, count));
    return model ? "(no problem)" : model.error().message;
  }
  TestFolder folder_;
};

TEST_F(GgufSeries, IsOpenedThroughAnyOfItsParts) {
  write_all(3);
  folder_.write(
      name(1, 3),
      part(1, 3).text("general.architecture", "llama").number("split.tensors.count", 3, GgufType::i32).bytes());
  for (const unsigned opened : {1U, 2U, 3U}) {
    const auto model = read_gguf_model(folder_ / name(opened, 3));
    ASSERT_TRUE(model) << model.error().message;
    ASSERT_EQ(model->parts.size(), 3U);
    EXPECT_EQ(model->parts[0].text("general.architecture"), "llama");
    EXPECT_EQ(model->parts[2].tensors[0].name, "blk.3.w");
    EXPECT_EQ(model->paths[1], folder_ / name(2, 3));
  }
}

TEST_F(GgufSeries, AMissingPartIsNamed) {
  write_all(3);
  fs::remove(folder_ / name(2, 3));
  const auto model = read_gguf_model(folder_ / name(3, 3));
  EXPECT_EQ(model.error().code, ErrorCode::not_found);
  EXPECT_THAT(model.error().message, HasSubstr("part 2 of 3 is missing"));
}

TEST_F(GgufSeries, ACircleOfLinksIsFoundOut) {
  folder_.write(name(1, 3), part(1, 3).bytes());
  fs::create_symlink(folder_ / name(1, 3), folder_ / name(2, 3));
  fs::create_symlink(folder_ / name(2, 3), folder_ / name(3, 3));
  EXPECT_THAT(problem(1, 3), HasSubstr("its name says part 2 of 3, its keys say split.no 0 of 3"));
}

TEST_F(GgufSeries, PartsThatDoNotBelongTogetherAreRefused) {
  write_all(2);
  folder_.write(name(2, 2), part(2, 3).bytes());
  EXPECT_THAT(problem(1, 2), HasSubstr("its keys say split.no 1 of 3"));
  folder_.write(name(2, 2), GgufWriter().tensor("x", {8}).bytes());
  EXPECT_THAT(problem(1, 2), HasSubstr("it has no split.no"));
  folder_.write(name(2, 2), part(2, 2).tensor("blk.1.w", {8}).bytes());
  EXPECT_THAT(problem(1, 2), HasSubstr("'blk.1.w' is in an earlier part too"));
  write_all(2);
  folder_.write(name(1, 2), part(1, 2).number("split.tensors.count", 9, GgufType::i32).bytes());
  EXPECT_THAT(problem(2, 2), HasSubstr("9 tensors are promised, the parts hold 2"));
  folder_.write("renamed.gguf", part(1, 2).bytes());
  EXPECT_THAT(read_gguf_model(folder_ / "renamed.gguf").error().message, HasSubstr("one of 2 parts"));
  folder_.write(name(1, 99999), part(1, 99999).bytes());
  EXPECT_THAT(problem(1, 99999), HasSubstr("at most 1024 are read"));
}

TEST(GgufNames, OnlyARealPlaceIsOne) {
  const auto part = gguf_part_of("/x/a-00002-of-00003.gguf");
  ASSERT_TRUE(part);
  EXPECT_EQ(part->prefix, "a");
  EXPECT_EQ(part->number, 2U);
  EXPECT_EQ(part->count, 3U);
  for (const char* other : {"a.gguf", "a-00000-of-00003.gguf", "a-00004-of-00003.gguf", "a-0002-of-0003.gguf",
                            "a-0000x-of-00003.gguf", "a-00001-of-00003.bin", "", "-of-.gguf"})
    EXPECT_FALSE(gguf_part_of(other)) << other;
}

}  // namespace
}  // namespace gpumod
