// The types in which ggml keeps a tensor: how many elements make a block, and how many bytes a block takes. They are
// what turns a shape into memory, for weights and for the caches of keys and values.
//
// Source: the enumeration ggml_type and the block structures of ggml (ggml/include/ggml.h, ggml/src/ggml-common.h).
// Every row was compared with what the library itself answers (ggml_type_name, ggml_blck_size and ggml_type_size of
// libggml-base 0.27). Numbers 4, 5, 31-33 and 36-38 were given up; forks give their own meaning to numbers from 42 on.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace gpumod {

struct GgmlType {
  std::uint32_t id;
  std::string_view name;  ///< as ggml and the flags of llama-server spell it: "q4_K", "f16"
  std::uint32_t block;    ///< elements in a block
  std::uint32_t bytes;    ///< of a block
};

/// Null for a number that ggml does not use.
const GgmlType* ggml_type(std::uint32_t id);
/// Without regard to case. Null for an unknown name.
const GgmlType* ggml_type(std::string_view name);

/// Bytes of a row of `elements`. Nothing when the row is not made of whole blocks, or too long to count.
std::optional<std::uint64_t> row_bytes(const GgmlType& type, std::uint64_t elements);

/// "Q4_K_M" for the `general.file_type` of a GGUF file (llama_ftype in llama.h); "" when unknown.
std::string_view file_type_name(std::uint32_t file_type);

}  // namespace gpumod
