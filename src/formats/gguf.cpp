#include "formats/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>

#include <fmt/format.h>

#include "base/text.h"
#include "formats/ggml_types.h"

namespace gpumod {

namespace limits = gguf_limits;

namespace {

/// Bytes of a value of fixed size; 0 for text and arrays.
std::size_t size_of(GgufType type) {
  constexpr std::array<std::size_t, 13> sizes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return sizes[static_cast<std::size_t>(type)];
}

/// The least a value of this type takes in a file.
std::uint64_t least_size(GgufType type) {
  if (type == GgufType::text) return 8;
  return type == GgufType::array ? 12 : size_of(type);
}

std::int64_t signed_of(GgufType type, std::uint64_t raw) {
  switch (type) {
    case GgufType::i8: return static_cast<std::int8_t>(raw);
    case GgufType::i16: return static_cast<std::int16_t>(raw);
    case GgufType::i32: return static_cast<std::int32_t>(raw);
    case GgufType::i64: return static_cast<std::int64_t>(raw);
    case GgufType::boolean: return raw != 0 ? 1 : 0;
    default:
      return static_cast<std::int64_t>(
          std::min<std::uint64_t>(raw, static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())));
  }
}

bool is_real(GgufType type) {
  return type == GgufType::f32 || type == GgufType::f64;
}

class Reader {
 public:
  explicit Reader(const ByteSource& source) : source_(source), in_(source, limits::header_bytes) {}

  Result<GgufFile> read() {
    file_.file = source_.name();
    file_.file_bytes = source_.size();
    const auto [tensors, pairs] = TRY(counts());
    for (std::uint64_t i = 0; i < pairs; ++i)
      TRY(pair());
    TRY(alignment());
    std::set<std::string_view> names;
    file_.tensors.reserve(static_cast<std::size_t>(tensors));  // bounded: names point into it
    for (std::uint64_t i = 0; i < tensors; ++i) {
      TRY(tensor());
      if (!names.insert(file_.tensors.back().name).second)
        return in_.wrong(fmt::format("the tensor '{}' is listed twice", file_.tensors.back().name));
    }
    TRY(data());
    return std::move(file_);
  }

 private:
  struct Counts {
    std::uint64_t tensors, pairs;
  };

  Result<Counts> counts() {
    char magic[4];
    TRY(in_.take(magic, sizeof magic, "the letters GGUF"));
    if (std::memcmp(magic, "GGUF", 4) != 0)
      return fail(ErrorCode::configuration,
                  fmt::format("{}: at byte 0: expected the letters GGUF: this is no GGUF file", source_.name()));
    file_.version = static_cast<std::uint32_t>(TRY(in_.number(4, "the format's version")));
    if (file_.version > 0xFFFF)
      return in_.wrong("the version is that of a big-endian file, which no server here reads");
    if (file_.version != 2 && file_.version != 3)
      return in_.wrong(fmt::format("version {} of the format, and only 2 and 3 are known", file_.version));
    Counts counts{};
    counts.tensors = TRY(in_.number(8, "the number of tensors"));
    counts.pairs = TRY(in_.number(8, "the number of keys"));
    // A tensor takes at least 24 bytes (an empty name, no dimension), a pair 13 (an empty key, a byte).
    TRY(bounded(counts.tensors, limits::tensors, 24, "tensors"));
    TRY(bounded(counts.pairs, limits::pairs, 13, "keys"));
    return counts;
  }

  /// A count that the rest of the file can hold, and that a real model could have.
  Result<void> bounded(std::uint64_t count, std::uint64_t most, std::uint64_t each, std::string_view what) const {
    if (count > in_.left() / each)
      return in_.wrong(
          fmt::format("{} {} are claimed, more than the {} bytes behind can hold", count, what, in_.left()));
    if (count > most) return in_.wrong(fmt::format("{} {} are claimed; at most {} are read", count, what, most));
    return {};
  }

  Result<GgufType> type(std::string_view what) {
    const auto number = TRY(in_.number(4, what));
    if (number > static_cast<std::uint64_t>(GgufType::f64))
      return in_.wrong(fmt::format("{} is {}, and there are only 0 to 12", what, number));
    return static_cast<GgufType>(number);
  }

  /// Reads a string and keeps its first `keep` bytes; its whole length goes to `length`.
  Result<std::string> string(std::uint64_t longest, std::uint64_t keep, std::string_view what,
                             std::uint64_t* length = nullptr) {
    const auto size = TRY(in_.number(8, what));
    if (size > in_.left())
      return in_.wrong(fmt::format("{} is said to have {} bytes, and only {} are left", what, size, in_.left()));
    if (size > longest) return in_.wrong(fmt::format("{} is said to have {} bytes; {} are read", what, size, longest));
    std::string text(static_cast<std::size_t>(std::min(size, keep)), '\0');
    TRY(in_.take(text.data(), text.size(), what));
    TRY(in_.skip(size - text.size(), what));
    if (length) *length = size;
    return text;
  }

  Result<void> pair() {
    const auto key = printable(TRY(string(limits::key_bytes, limits::key_bytes, "a key")));
    GgufValue value;
    value.type = TRY(type("a value's type"));
    if (value.type == GgufType::text) {
      value.text = printable(TRY(string(limits::header_bytes, limits::kept_text, "a text", &value.text_bytes)));
    } else if (value.type == GgufType::array) {
      TRY(array(value, 0));
    } else {
      const auto raw = TRY(in_.number(size_of(value.type), "a number"));
      if (value.type == GgufType::f32)
        value.real = static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(raw)));
      else if (value.type == GgufType::f64)
        value.real = std::bit_cast<double>(raw);
      else
        value.integer = signed_of(value.type, raw);
    }
    if (!file_.pairs.emplace(key, std::move(value)).second)
      return in_.wrong(fmt::format("the key '{}' is there twice", key));
    return {};
  }

  /// An array of arrays is walked and counted, its content is not kept: no key that matters here is one.
  Result<void> array(GgufValue& value, int depth) {
    if (depth >= limits::array_depth)
      return in_.wrong(fmt::format("arrays within arrays, more than {} deep", limits::array_depth));
    value.element = TRY(type("an array's type"));
    value.count = TRY(in_.number(8, "an array's count"));
    const auto each = least_size(value.element);
    if (value.count > in_.left() / each)
      return in_.wrong(fmt::format("an array of {} values is claimed, more than the {} bytes behind can hold",
                                   value.count, in_.left()));
    if (value.element == GgufType::text) {
      for (std::uint64_t i = 0; i < value.count; ++i)
        TRY(string(limits::header_bytes, 0, "a text of an array"));
      return {};
    }
    if (value.element == GgufType::array) {
      for (std::uint64_t i = 0; i < value.count; ++i) {
        GgufValue inner;
        TRY(array(inner, depth + 1));
      }
      return {};
    }
    if (depth > 0 || is_real(value.element) || value.count > limits::kept_numbers)
      return in_.skip(value.count * each, "an array");
    value.numbers.reserve(static_cast<std::size_t>(value.count));
    for (std::uint64_t i = 0; i < value.count; ++i)
      value.numbers.push_back(
          signed_of(value.element, TRY(in_.number(static_cast<std::size_t>(each), "a number of an array"))));
    return {};
  }

  Result<void> alignment() {
    const auto* pair = file_.find("general.alignment");
    if (!pair) return {};
    const auto value = file_.integer("general.alignment").value_or(0);
    if (value <= 0 || value > (1 << 20) || !std::has_single_bit(static_cast<std::uint64_t>(value)))
      return in_.wrong("general.alignment must be a power of two up to 1 MiB");
    file_.alignment = static_cast<std::uint64_t>(value);
    return {};
  }

  Result<void> tensor() {
    GgufTensor tensor;
    tensor.name = printable(TRY(string(limits::name_bytes, limits::name_bytes, "a tensor's name")));
    const auto dimensions = TRY(in_.number(4, "a tensor's number of dimensions"));
    if (dimensions > limits::dimensions)
      return in_.wrong(fmt::format("the tensor '{}' has {} dimensions, and ggml knows at most {}", tensor.name,
                                   dimensions, limits::dimensions));
    tensor.elements = 1;
    for (std::uint64_t i = 0; i < dimensions; ++i) {
      tensor.shape.push_back(TRY(in_.number(8, "a dimension")));
      if (tensor.shape.back() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) ||
          !multiply(tensor.elements, tensor.shape.back(), tensor.elements))
        return in_.wrong(fmt::format("the tensor '{}' has more elements than can be counted", tensor.name));
    }
    tensor.type = static_cast<std::uint32_t>(TRY(in_.number(4, "a tensor's type")));
    tensor.offset = TRY(in_.number(8, "a tensor's offset"));
    if (tensor.offset % file_.alignment != 0)
      return in_.wrong(fmt::format("the tensor '{}' begins at {}, which is no multiple of the alignment {}",
                                   tensor.name, tensor.offset, file_.alignment));
    if (const auto* known = ggml_type(tensor.type)) {
      const auto row = row_bytes(*known, tensor.shape.empty() ? 1 : tensor.shape.front());
      const auto rows = tensor.shape.empty() || tensor.shape.front() == 0 ? 1 : tensor.elements / tensor.shape.front();
      if (!row || !multiply(*row, rows, tensor.bytes))
        return in_.wrong(fmt::format("the rows of the tensor '{}' are not made of blocks of {} ({} elements each)",
                                     tensor.name, known->name, known->block));
    }
    file_.tensors.push_back(std::move(tensor));
    return {};
  }

  /// Where the data begins, and that it is there.
  Result<void> data() {
    const auto align = file_.alignment;
    file_.data_offset = (in_.offset() + align - 1) / align * align;
    // A file without tensors (a vocabulary) may end right behind its table.
    const auto there = file_.file_bytes > file_.data_offset ? file_.file_bytes - file_.data_offset : 0;
    std::vector<std::size_t> order(file_.tensors.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
      return file_.tensors[a].offset < file_.tensors[b].offset;
    });
    std::uint64_t end = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
      auto& tensor = file_.tensors[order[i]];
      if (tensor.offset < end) return in_.wrong(fmt::format("the tensor '{}' lies over another one", tensor.name));
      if (!ggml_type(tensor.type)) {
        const auto next = i + 1 < order.size() ? file_.tensors[order[i + 1]].offset : std::max(there, tensor.offset);
        tensor.bytes = next - tensor.offset;
      }
      if (tensor.offset > there || tensor.bytes > there - tensor.offset)
        return fail(ErrorCode::configuration,
                    fmt::format("{}: at byte {}: expected the {} bytes of the tensor '{}', but the file ends at byte "
                                "{}: it is cut short",
                                file_.file, file_.data_offset + std::min(tensor.offset, there), tensor.bytes,
                                tensor.name, file_.file_bytes),
                    "It may still be on its way here, or the copy was broken off.");
      end = tensor.offset + tensor.bytes;
    }
    return {};
  }

  const ByteSource& source_;
  Cursor in_;
  GgufFile file_;
};

}  // namespace

std::string_view to_string(GgufType type) {
  constexpr std::array<std::string_view, 13> names{"u8",   "i8",   "u16",   "i16", "u32", "i32", "f32",
                                                   "bool", "text", "array", "u64", "i64", "f64"};
  const auto index = static_cast<std::size_t>(type);
  return index < names.size() ? names[index] : "unknown";
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = pairs.find(key);
  return found == pairs.end() ? nullptr : &found->second;
}

std::string GgufFile::text(std::string_view key) const {
  const auto* value = find(key);
  return value && value->type == GgufType::text ? value->text : std::string();
}

std::optional<std::int64_t> GgufFile::integer(std::string_view key) const {
  const auto* value = find(key);
  if (!value || value->type == GgufType::text || value->type == GgufType::array || value->type == GgufType::boolean ||
      is_real(value->type))
    return std::nullopt;
  return value->integer;
}

bool GgufFile::flag(std::string_view key, bool otherwise) const {
  const auto* value = find(key);
  return value && value->type == GgufType::boolean ? value->integer != 0 : otherwise;
}

Result<GgufFile> read_gguf(const ByteSource& source) {
  return Reader(source).read();
}

}  // namespace gpumod
