// A glance at a GGUF file's head: enough to tell a chat model from an embedding model when a first configuration is
// proposed. It reads one small block and forgives everything: what it cannot make out stays unset. Sizes, quantization
// and memory are not its business.
//
// Layout (ggml's docs/gguf.md): "GGUF", u32 version, u64 tensors, u64 pairs; then pairs of a key (u64 length, bytes), a
// u32 type and a value; a string is u64 length and bytes, an array u32 type, u64 count and the values. Little-endian.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace gpumod {

struct GgufPeek {
  std::uint32_t version = 0;
  std::uint64_t tensors = 0;
  std::string architecture;             ///< general.architecture: "llama", "qwen3", "bert" …
  std::string type;                     ///< general.type: "model", "adapter", "mmproj"; often absent
  std::optional<std::int64_t> context;  ///< ARCHITECTURE.context_length, in tokens
  std::optional<std::int64_t> pooling;  ///< ARCHITECTURE.pooling_type: 0 none, 1 mean, 2 cls, 3 last, 4 rank
  bool whole = false;                   ///< every pair was seen
};

/// What the first bytes of a file say; nothing when they are not GGUF.
std::optional<GgufPeek> peek_gguf(std::string_view head);
/// Reads at most 128 KiB of a regular file. Nothing when it is not GGUF, or cannot be read.
std::optional<GgufPeek> peek_gguf_file(const std::filesystem::path& path);

/// What a service for this model is asked for.
enum class ModelKind { chat, embedding, reranker, unusable };
std::string_view to_string(ModelKind kind);

struct ModelGuess {
  ModelKind kind = ModelKind::chat;  ///< unusable: a projector, an adapter, a vocabulary: no server serves it alone
  bool certain = false;              ///< the header says so; otherwise the name does, or nothing
};
/// On doubt it is a chat model: that is what people start with, and its probe says at once when it is none.
ModelGuess guess_kind(const GgufPeek& peek, std::string_view file_name);

}  // namespace gpumod
