// One GGUF file: its key-value pairs and its table of tensors, and nothing of the weights.
//
// Layout (ggml's docs/gguf.md), little-endian: "GGUF", u32 version, u64 tensors, u64 pairs; then pairs of a key, a u32
// type and a value; then a row a tensor: name, u32 dimensions, u64 each (the fastest first), u32 type, u64 offset into
// the data; then, aligned, the data. A string is u64 length and bytes; an array u32 type, u64 count and the values.
//
// What a file may claim is bounded twice: by the bytes that are left in it, and by limits far above any real model
// (below). Of what is long (token lists, templates) only the length is kept.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/byte_source.h"

namespace gpumod {

namespace gguf_limits {
inline constexpr std::uint64_t header_bytes = 512ull << 20;  ///< a vocabulary of a million tokens takes about 40 MiB
inline constexpr std::uint64_t pairs = 16'384;
inline constexpr std::uint64_t tensors = 262'144;
inline constexpr std::uint64_t key_bytes = 65'535;  ///< the format's own limit
inline constexpr std::uint64_t name_bytes = 255;    ///< ggml itself stops at 63
inline constexpr std::uint64_t dimensions = 4;      ///< GGML_MAX_DIMS
inline constexpr std::uint64_t kept_text = 8'192;
inline constexpr std::uint64_t kept_numbers = 4'096;  ///< of an array: one a layer is what matters
inline constexpr int array_depth = 4;
}  // namespace gguf_limits

enum class GgufType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };
std::string_view to_string(GgufType type);

struct GgufValue {
  GgufType type = GgufType::u32;
  std::int64_t integer = 0;  ///< whole numbers and booleans; a u64 beyond the signed range is kept as the largest one
  double real = 0;           ///< f32, f64
  std::string text;          ///< printable; cut after kept_text bytes
  std::uint64_t text_bytes = 0;       ///< how long it is in the file
  GgufType element = GgufType::u32;   ///< of an array
  std::uint64_t count = 0;            ///< of an array
  std::vector<std::int64_t> numbers;  ///< an array's whole numbers or booleans, if it has at most kept_numbers
};

struct GgufTensor {
  std::string name;                  ///< printable
  std::vector<std::uint64_t> shape;  ///< the fastest dimension first
  std::uint32_t type = 0;
  std::uint64_t elements = 0;
  std::uint64_t offset = 0;  ///< from the beginning of the data
  std::uint64_t bytes = 0;   ///< of a type that ggml does not know: up to where the next tensor begins
};

class GgufFile {
 public:
  std::string file;  ///< printable
  std::uint64_t file_bytes = 0;
  std::uint32_t version = 0;
  std::uint64_t alignment = 32;
  std::uint64_t data_offset = 0;  ///< where the data begins: everything before it is the header
  std::map<std::string, GgufValue, std::less<>> pairs;
  std::vector<GgufTensor> tensors;

  const GgufValue* find(std::string_view key) const;
  std::string text(std::string_view key) const;                     ///< "" when absent or of another type
  std::optional<std::int64_t> integer(std::string_view key) const;  ///< whole numbers only
  bool flag(std::string_view key, bool otherwise) const;
};

/// Reads the header and proves that the file is long enough for every tensor that it lists.
/// Errors: configuration, with file, offset and what was expected; failed when reading fails.
Result<GgufFile> read_gguf(const ByteSource& source);

/// A whole model: the file, or all parts of a series "NAME-00001-of-00003.gguf", whichever of them is named.
struct GgufModel {
  std::vector<std::filesystem::path> paths;
  std::vector<GgufFile> parts;  ///< as many as paths; the first one holds the model's keys
};
using OpenSource = std::function<Result<std::unique_ptr<ByteSource>>(const std::filesystem::path&)>;
/// Errors: as read_gguf, not_found for a missing file, and what makes parts no series of one model.
/// `open`: for models that do not lie on this machine.
Result<GgufModel> read_gguf_model(const std::filesystem::path& path, const OpenSource& open = open_byte_source);

/// The place of "NAME-00002-of-00003.gguf" in its series, counted from 1; nothing for any other name.
struct GgufPart {
  std::string prefix;
  unsigned number = 0;
  unsigned count = 0;
};
std::optional<GgufPart> gguf_part_of(const std::filesystem::path& path);

}  // namespace gpumod
