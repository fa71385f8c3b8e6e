// Writes GGUF files for tests: any key, any tensor, data of zeros, and on demand the lies that a reader must not believe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/ggml_types.h"
#include "formats/gguf.h"

namespace gpumod {

class GgufWriter {
 public:
  GgufWriter& text(std::string_view key, std::string_view value) { return raw(key, GgufType::text, counted(value)); }
  GgufWriter& number(std::string_view key, std::uint64_t value, GgufType type = GgufType::u32) {
    return raw(key, type, little_endian(value, width(type)));
  }
  GgufWriter& flag(std::string_view key, bool value) { return number(key, value ? 1 : 0, GgufType::boolean); }
  GgufWriter& texts(std::string_view key, const std::vector<std::string>& values) {
    std::string bytes;
    for (const auto& value : values)
      bytes += counted(value);
    return raw(key, GgufType::array, array(GgufType::text, values.size(), bytes));
  }
  GgufWriter& numbers(std::string_view key, const std::vector<std::uint64_t>& values, GgufType type = GgufType::u32) {
    std::string bytes;
    for (const auto value : values)
      bytes += little_endian(value, width(type));
    return raw(key, GgufType::array, array(type, values.size(), bytes));
  }
  /// A pair whose value is these bytes.
  GgufWriter& raw(std::string_view key, GgufType type, std::string_view bytes) {
    ++pairs_;
    head_ += counted(key) + little_endian(static_cast<std::uint32_t>(type), 4);
    head_ += bytes;
    return *this;
  }
  GgufWriter& tensor(std::string_view name, const std::vector<std::uint64_t>& shape, std::string_view type = "f32") {
    std::uint64_t elements = 1;
    for (const auto extent : shape)
      elements *= extent;
    const auto* known = ggml_type(type);
    const auto bytes = known ? elements / known->block * known->bytes : 0;
    return tensor(name, shape, known ? known->id : 0, bytes);
  }
  GgufWriter& tensor(std::string_view name, const std::vector<std::uint64_t>& shape, std::uint32_t type,
                     std::uint64_t bytes) {
    ++tensors_;
    table_ += counted(name) + little_endian(shape.size(), 4);
    for (const auto extent : shape)
      table_ += little_endian(extent, 8);
    table_ += little_endian(type, 4) + little_endian(data_, 8);
    data_ += (bytes + alignment_ - 1) / alignment_ * alignment_;
    return *this;
  }
  GgufWriter& alignment(std::uint64_t value) {
    alignment_ = value;
    return number("general.alignment", value);
  }
  /// Other counts than the true ones.
  GgufWriter& claim(std::uint64_t tensors, std::uint64_t pairs) {
    claimed_tensors_ = tensors;
    claimed_pairs_ = pairs;
    return *this;
  }
  GgufWriter& version(std::uint32_t value) {
    version_ = value;
    return *this;
  }

  std::string header() const {
    return "GGUF" + little_endian(version_, 4) + little_endian(claimed_tensors_.value_or(tensors_), 8) +
           little_endian(claimed_pairs_.value_or(pairs_), 8) + head_ + table_;
  }
  /// The whole file.
  std::string bytes() const {
    auto whole = header();
    whole.resize((whole.size() + alignment_ - 1) / alignment_ * alignment_ + data_, '\0');
    return whole;
  }

  static std::string little_endian(std::uint64_t value, std::size_t size) {
    std::string bytes;
    for (std::size_t i = 0; i < size; ++i)
      bytes += static_cast<char>(value >> (8 * i) & 0xFF);
    return bytes;
  }
  static std::string counted(std::string_view text) { return little_endian(text.size(), 8) + std::string(text); }
  static std::string array(GgufType element, std::uint64_t count, std::string_view values) {
    return little_endian(static_cast<std::uint32_t>(element), 4) + little_endian(count, 8) + std::string(values);
  }

 private:
  static std::size_t width(GgufType type) {
    switch (type) {
      case GgufType::u8:
      case GgufType::i8:
      case GgufType::boolean: return 1;
      case GgufType::u16:
      case GgufType::i16: return 2;
      case GgufType::u64:
      case GgufType::i64:
      case GgufType::f64: return 8;
      default: return 4;
    }
  }

  std::string head_, table_;
  std::uint64_t pairs_ = 0, tensors_ = 0, data_ = 0, alignment_ = 32;
  std::optional<std::uint64_t> claimed_pairs_, claimed_tensors_;
  std::uint32_t version_ = 3;
};

}  // namespace gpumod
