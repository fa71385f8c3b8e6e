#include "formats/safetensors.h"

#include <algorithm>
#include <limits>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace json = boost::json;

namespace {

struct Dtype {
  std::string_view name;
  unsigned bits;
};
// The dtypes of the safetensors format (safetensors/src/tensor.rs).
constexpr Dtype dtypes[] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
};

std::optional<std::uint64_t> natural(const json::value& value) {
  if (value.is_int64() && value.get_int64() >= 0) return static_cast<std::uint64_t>(value.get_int64());
  if (value.is_uint64() && value.get_uint64() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    return value.get_uint64();
  return std::nullopt;
}

class Header {
 public:
  Header(const ByteSource& source, std::uint64_t length) : source_(source), length_(length) {}

  Result<std::vector<TensorFacts>> tensors(const json::object& entries) {
    std::vector<TensorFacts> found;
    for (const auto& [key, entry] : entries) {
      if (key == "__metadata__") continue;
      found.push_back(TRY(tensor(printable(key), entry)));
    }
    std::sort(spans_.begin(), spans_.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
    for (std::size_t i = 1; i < spans_.size(); ++i)
      if (spans_[i].begin < spans_[i - 1].end)
        return wrong(spans_[i].begin, fmt::format("the tensor '{}' lies over another one", spans_[i].name));
    return found;
  }

 private:
  struct Span {
    std::uint64_t begin, end;
    std::string name;
  };

  /// `at` counts from the beginning of the data.
  tl::unexpected<Error> wrong(std::uint64_t at, std::string_view message) const {
    return fail(ErrorCode::configuration, fmt::format("{}: at byte {}: {}", source_.name(), 8 + length_ + at, message));
  }
  tl::unexpected<Error> misshapen(const std::string& name, std::string_view message) const {
    return fail(ErrorCode::configuration, fmt::format("{}: in the header (bytes 8 to {}): the tensor '{}' {}",
                                                      source_.name(), 8 + length_, name, message));
  }

  Result<TensorFacts> tensor(std::string name, const json::value& entry) {
    const auto* object = entry.if_object();
    const auto* dtype = object ? object->if_contains("dtype") : nullptr;
    const auto* shape = object ? object->if_contains("shape") : nullptr;
    const auto* offsets = object ? object->if_contains("data_offsets") : nullptr;
    if (!dtype || !dtype->is_string() || !shape || !shape->is_array() || !offsets || !offsets->is_array() ||
        offsets->get_array().size() != 2)
      return misshapen(name, "must have a dtype, a shape and two data_offsets");
    TensorFacts fact;
    fact.name = std::move(name);
    fact.type = printable(std::string_view(dtype->get_string()));
    fact.elements = 1;
    if (shape->get_array().size() > safetensors_limits::dimensions)
      return misshapen(fact.name, "has more dimensions than any tensor");
    for (const auto& extent : shape->get_array()) {
      const auto size = natural(extent);
      if (!size || !multiply(fact.elements, *size, fact.elements))
        return misshapen(fact.name, "has a shape that cannot be counted");
      fact.shape.push_back(*size);
    }
    const auto begin = natural(offsets->get_array()[0]), end = natural(offsets->get_array()[1]);
    if (!begin || !end || *begin > *end) return misshapen(fact.name, "has data_offsets that are no range");
    const auto data = source_.size() - 8 - length_;
    if (*end > data)
      return wrong(*begin, fmt::format("expected the {} bytes of the tensor '{}', but the file ends at byte {}: it is "
                                       "cut short",
                                       *end - *begin, fact.name, source_.size()));
    const auto bits = dtype_bits(fact.type);
    std::uint64_t total = 0;
    if (bits != 0 && (!multiply(fact.elements, bits, total) || total % 8 != 0 || total / 8 != *end - *begin))
      return misshapen(fact.name, fmt::format("takes {} bytes, and {} elements of {} take another number",
                                              *end - *begin, fact.elements, fact.type));
    fact.bytes = Bytes(static_cast<std::int64_t>(*end - *begin));
    if (*begin != *end) spans_.push_back({*begin, *end, fact.name});
    return fact;
  }

  const ByteSource& source_;
  std::uint64_t length_;
  std::vector<Span> spans_;
};

}  // namespace

unsigned dtype_bits(std::string_view dtype) {
  const auto found =
      std::find_if(std::begin(dtypes), std::end(dtypes), [&](const auto& each) { return each.name == dtype; });
  return found == std::end(dtypes) ? 0 : found->bits;
}

Result<std::vector<TensorFacts>> read_safetensors(const ByteSource& source) {
  Cursor in(source, 8 + safetensors_limits::header_bytes);
  const auto length = TRY(in.number(8, "the header's length"));
  if (length > in.left())
    return in.wrong(fmt::format("the header is said to have {} bytes, and only {} are left", length, in.left()));
  if (length > safetensors_limits::header_bytes)
    return in.wrong(fmt::format("the header is said to have {} bytes; at most {} are read", length,
                                safetensors_limits::header_bytes));
  std::string text(static_cast<std::size_t>(length), '\0');
  TRY(in.take(text.data(), text.size(), "the header"));
  json::parse_options options;
  options.max_depth = 8;
  boost::system::error_code problem;
  const auto parsed = json::parse(text, problem, {}, options);
  if (problem || !parsed.is_object())
    return fail(ErrorCode::configuration,
                fmt::format("{}: at byte 8: expected a JSON object of {} bytes: {}", source.name(), length,
                            problem ? problem.message() : "it is something else"));
  return Header(source, length).tensors(parsed.get_object());
}

}  // namespace gpumod
