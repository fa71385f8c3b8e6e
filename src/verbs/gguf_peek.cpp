#include "verbs/gguf_peek.h"

#include <algorithm>
#include <array>
#include <cctype>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

namespace gpumod {

namespace {

constexpr std::size_t head_size = 128 * 1024;  // the model's own keys stand before the tokenizer's long arrays

enum ValueType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

/// Bytes of a value of fixed size; 0 for the others and for what is unknown.
std::size_t size_of(std::uint32_t type) {
  constexpr std::array<std::size_t, 13> sizes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < sizes.size() ? sizes[type] : 0;
}

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  std::optional<std::string_view> take(std::uint64_t size) {
    if (size > rest_.size()) return std::nullopt;
    const auto taken = rest_.substr(0, static_cast<std::size_t>(size));
    rest_.remove_prefix(static_cast<std::size_t>(size));
    return taken;
  }
  std::optional<std::uint64_t> number(std::size_t size) {
    const auto bytes = take(size);
    if (!bytes) return std::nullopt;
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i)
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>((*bytes)[i])) << (8 * i);
    return value;
  }
  std::optional<std::string_view> string() {
    const auto size = number(8);
    return size ? take(*size) : std::nullopt;
  }
  bool skip_array() {
    const auto type = number(4);
    const auto count = number(8);
    if (!type || !count) return false;
    if (const auto size = size_of(static_cast<std::uint32_t>(*type)); size != 0)
      return *count <= rest_.size() / size && take(*count * size).has_value();
    if (*type != text) return false;  // arrays of arrays: nobody writes them
    for (std::uint64_t i = 0; i < *count; ++i)
      if (!string()) return false;
    return true;
  }

 private:
  std::string_view rest_;
};

std::optional<std::int64_t> as_integer(std::uint64_t raw, std::uint32_t type) {
  switch (type) {
    case u8:
    case u16:
    case u32:
    case u64: return static_cast<std::int64_t>(raw);
    case i8: return static_cast<std::int8_t>(raw);
    case i16: return static_cast<std::int16_t>(raw);
    case i32: return static_cast<std::int32_t>(raw);
    case i64: return static_cast<std::int64_t>(raw);
    default: return std::nullopt;
  }
}

/// One key and its value. False: the block ends here, or holds what we do not know.
bool read_pair(Reader& reader, GgufPeek& peek) {
  const auto key = reader.string();
  const auto type = key ? reader.number(4) : std::nullopt;
  if (!type) return false;
  if (*type == array) return reader.skip_array();
  if (*type == text) {
    const auto value = reader.string();
    if (!value) return false;
    if (*key == "general.architecture") peek.architecture = *value;
    if (*key == "general.type") peek.type = *value;
    return true;
  }
  const auto size = size_of(static_cast<std::uint32_t>(*type));
  const auto raw = size == 0 ? std::nullopt : reader.number(size);
  if (!raw) return false;
  const auto value = as_integer(*raw, static_cast<std::uint32_t>(*type));
  if (key->ends_with(".context_length") && value && *value > 0) peek.context = value;
  if (key->ends_with(".pooling_type")) peek.pooling = value;
  return true;
}

bool contains_any(std::string_view text_, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](std::string_view part) { return text_.find(part) != std::string_view::npos; });
}

}  // namespace

std::optional<GgufPeek> peek_gguf(std::string_view head) {
  Reader reader(head);
  if (reader.take(4) != std::optional<std::string_view>("GGUF")) return std::nullopt;
  const auto version = reader.number(4);
  const auto tensors = reader.number(8);
  const auto pairs = reader.number(8);
  // Version 1 had other lengths, and no server reads it any more; a swapped number means the other byte order.
  if (!version || !tensors || !pairs || *version < 2 || *version > 0xFFFF) return std::nullopt;
  GgufPeek peek;
  peek.version = static_cast<std::uint32_t>(*version);
  peek.tensors = *tensors;
  std::uint64_t seen = 0;
  while (seen < *pairs && read_pair(reader, peek))
    ++seen;
  peek.whole = seen == *pairs;
  return peek;
}

std::optional<GgufPeek> peek_gguf_file(const std::filesystem::path& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat info {};
  if (!file || ::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return std::nullopt;
  std::string head(head_size, '\0');
  std::size_t filled = 0;
  while (filled < head.size()) {
    const ssize_t n = ::read(file.get(), head.data() + filled, head.size() - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    filled += static_cast<std::size_t>(n);
  }
  head.resize(filled);
  return peek_gguf(head);
}

std::string_view to_string(ModelKind kind) {
  switch (kind) {
    case ModelKind::chat: return "chat";
    case ModelKind::embedding: return "embedding";
    case ModelKind::reranker: return "reranker";
    case ModelKind::unusable: return "unusable";
  }
  return "unknown";
}

ModelGuess guess_kind(const GgufPeek& peek, std::string_view file_name) {
  std::string name(file_name);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const std::string_view architecture = peek.architecture;

  if (architecture == "clip" || peek.type == "mmproj" || peek.type == "adapter" || peek.type == "imatrix" ||
      name.starts_with("mmproj"))
    return {ModelKind::unusable, true};
  if (peek.whole && peek.tensors == 0 && name.find("-of-") == std::string::npos) return {ModelKind::unusable, true};

  if (peek.pooling == 4) return {ModelKind::reranker, true};
  const bool encoder = architecture.find("bert") != std::string_view::npos || architecture == "t5encoder" ||
                       architecture.ends_with("-embedding");
  if (encoder) return {name.find("rerank") != std::string::npos ? ModelKind::reranker : ModelKind::embedding, true};
  if (peek.pooling && *peek.pooling >= 1 && *peek.pooling <= 3) return {ModelKind::embedding, true};

  if (name.find("rerank") != std::string::npos) return {ModelKind::reranker, false};
  if (contains_any(name, {"embed", "bge-", "minilm", "gte-", "e5-"})) return {ModelKind::embedding, false};
  return {ModelKind::chat, !architecture.empty()};
}

}  // namespace gpumod
