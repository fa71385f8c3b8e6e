#include "verbs/gguf_peek.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "verbs/tree_testing.h"

namespace gpumod {
namespace {

ModelKind kind_of(const std::string& bytes, std::string_view name) {
  const auto peek = peek_gguf(bytes);
  return peek ? guess_kind(*peek, name).kind : ModelKind::unusable;
}

std::string of_architecture(std::string_view name) {
  return GgufHead().text("general.architecture", name).bytes();
}

TEST(GgufPeek, ReadsWhatTheHeaderSays) {
  const auto peek = peek_gguf(embedding_model());
  ASSERT_TRUE(peek);
  EXPECT_EQ(peek->architecture, "nomic-bert");
  EXPECT_EQ(peek->context, 2048);
  EXPECT_EQ(peek->pooling, 1);
  EXPECT_TRUE(peek->whole);
}

TEST(GgufPeek, SkipsArraysBeforeTheKeysItWants) {
  const auto head = GgufHead()
                        .texts("general.tags", {"a", "bb", ""})
                        .text("general.architecture", "llama")
                        .number("llama.context_length", 8192);
  const auto peek = peek_gguf(head.bytes());
  ASSERT_TRUE(peek);
  EXPECT_EQ(peek->architecture, "llama");
  EXPECT_EQ(peek->context, 8192);
}

TEST(GgufPeek, KeepsWhatItHasOfACutOffHead) {
  const auto whole =
      GgufHead().text("general.architecture", "llama").texts("tokenizer.ggml.tokens", {"one", "two", "three"}).bytes();
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const auto peek = peek_gguf(std::string_view(whole).substr(0, length));
    EXPECT_FALSE(peek && peek->whole) << length;
    EXPECT_TRUE(length <= 80 || peek.value_or(GgufPeek{}).architecture == "llama") << length;
  }
}

TEST(GgufPeek, LengthsThatLieAreNotFollowed) {
  auto bytes = GgufHead().text("general.architecture", "llama").bytes();
  bytes.replace(24, 8, 8, '\xFF');  // the length of the first key
  const auto peek = peek_gguf(bytes);
  ASSERT_TRUE(peek);
  EXPECT_EQ(peek->architecture, "");
  auto array = GgufHead().texts("k", {"v"}).text("general.architecture", "llama").bytes();
  array.replace(24 + 8 + 1 + 4 + 4, 8, 8, '\xFF');  // the array's count
  EXPECT_EQ(peek_gguf(array).value_or(GgufPeek{}).architecture, "");
}

TEST(GgufPeek, RefusesWhatIsNotGguf) {
  EXPECT_FALSE(peek_gguf(""));
  EXPECT_FALSE(peek_gguf("GGUF"));
  EXPECT_FALSE(peek_gguf("version https://git-lfs.github.com/spec/v1\n"));
  EXPECT_FALSE(peek_gguf(GgufHead().text("general.architecture", "llama").bytes(1, 1)));
}

TEST(GgufPeek, ReadsNoFifoAndNoFolder) {
  const TestTree tree;
  ASSERT_EQ(::mkfifo((tree / "fifo.gguf").c_str(), 0600), 0);
  EXPECT_FALSE(peek_gguf_file(tree / "fifo.gguf"));
  EXPECT_FALSE(peek_gguf_file(tree.root()));
  EXPECT_TRUE(peek_gguf_file(tree.write("x.gguf", chat_model())));
}

TEST(GgufPeek, TellsKindsByTheHeader) {
  EXPECT_EQ(kind_of(chat_model(), "model.gguf"), ModelKind::chat);
  for (const char* encoder :
       {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "modern-bert", "t5encoder", "gemma-embedding"})
    EXPECT_EQ(kind_of(of_architecture(encoder), "model.gguf"), ModelKind::embedding) << encoder;
  const auto pooled = [](std::uint32_t type) {
    return GgufHead().text("general.architecture", "qwen3").number("qwen3.pooling_type", type).bytes();
  };
  EXPECT_EQ(kind_of(pooled(0), "model.gguf"), ModelKind::chat);
  EXPECT_EQ(kind_of(pooled(3), "model.gguf"), ModelKind::embedding);
  EXPECT_EQ(kind_of(pooled(4), "model.gguf"), ModelKind::reranker);
  EXPECT_EQ(kind_of(of_architecture("clip"), "vision.gguf"), ModelKind::unusable);
  EXPECT_EQ(kind_of(GgufHead().text("general.type", "adapter").bytes(), "lora.gguf"), ModelKind::unusable);
  EXPECT_EQ(kind_of(GgufHead().text("general.architecture", "llama").bytes(0), "ggml-vocab-llama.gguf"),
            ModelKind::unusable);
}

TEST(GgufPeek, FallsBackOnTheNameAndThenOnChat) {
  const auto plain = peek_gguf(of_architecture("qwen3"));
  EXPECT_EQ(guess_kind(*plain, "Qwen3-Embedding-0.6B-Q8_0.gguf").kind, ModelKind::embedding);
  EXPECT_FALSE(guess_kind(*plain, "Qwen3-Embedding-0.6B-Q8_0.gguf").certain);
  EXPECT_EQ(guess_kind(*plain, "Qwen3-Reranker-4B.gguf").kind, ModelKind::reranker);
  EXPECT_EQ(guess_kind(*plain, "mmproj-model-f16.gguf").kind, ModelKind::unusable);
  EXPECT_EQ(guess_kind(GgufPeek{}, "whatever.gguf").kind, ModelKind::chat);
}

}  // namespace
}  // namespace gpumod
