// A safetensors file's header: an 8-byte little-endian length, then JSON {NAME: {"dtype", "shape", "data_offsets"}},
// then the data. "__metadata__" is people's own text and is passed over.
//
// The header's length is bounded (a real one has at most a few MiB), its JSON is nested at most a few levels, and every
// tensor must lie inside the file and take exactly what its shape and type say.
#pragma once

#include <vector>

#include "formats/byte_source.h"
#include "formats/model_facts.h"

namespace gpumod {

namespace safetensors_limits {
inline constexpr std::uint64_t header_bytes = 32ull << 20;
inline constexpr std::size_t dimensions = 16;
}  // namespace safetensors_limits

/// Tensors in the order of the data. Their `file` is 0.
/// Errors: configuration, with file, offset and what was expected; failed when reading fails.
Result<std::vector<TensorFacts>> read_safetensors(const ByteSource& source);

/// Bits of an element of this dtype ("BF16", "F8_E4M3", "F4"); 0 for an unknown one.
unsigned dtype_bits(std::string_view dtype);

}  // namespace gpumod
