// A model in several files. Any part leads to the others: they lie beside each other and count themselves in their
// names ("-00002-of-00003.gguf") and in their keys (split.no from 0, split.count, split.tensors.count). Both must agree,
// so a link that leads from one part to another, or a part of another model, is found out and never read in a circle.

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/text.h"
#include "formats/gguf.h"

namespace gpumod {

namespace {

constexpr unsigned most_parts = 1024;
constexpr std::size_t tail_length = std::string_view("-00001-of-00003.gguf").size();

std::optional<unsigned> five_digits(std::string_view text) {
  unsigned value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<unsigned>(c - '0');
  }
  return value;
}

Result<GgufFile> read_part(const std::filesystem::path& path, const OpenSource& open) {
  const auto source = TRY(open(path));
  return read_gguf(*source);
}

tl::unexpected<Error> no_series(const GgufFile& part, std::string_view message) {
  return fail(ErrorCode::configuration, fmt::format("{}: {}", part.file, message));
}

/// What a part says of its place must be what its name says.
Result<void> check_place(const GgufFile& part, unsigned number, unsigned count) {
  const auto said_count = part.integer("split.count"), said_number = part.integer("split.no");
  if (!said_count || !said_number)
    return no_series(part,
                     fmt::format("its name says part {} of {}, but it has no split.no and split.count", number, count));
  if (*said_count != count || *said_number != static_cast<std::int64_t>(number) - 1)
    return no_series(part, fmt::format("its name says part {} of {}, its keys say split.no {} of {}", number, count,
                                       *said_number, *said_count));
  return {};
}

}  // namespace

std::optional<GgufPart> gguf_part_of(const std::filesystem::path& path) {
  const auto name = path.filename().string();
  if (name.size() < tail_length) return std::nullopt;
  const auto tail = std::string_view(name).substr(name.size() - tail_length);
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || tail.substr(15) != ".gguf") return std::nullopt;
  const auto number = five_digits(tail.substr(1, 5)), count = five_digits(tail.substr(10, 5));
  if (!number || !count || *number == 0 || *number > *count) return std::nullopt;
  return GgufPart{name.substr(0, name.size() - tail_length), *number, *count};
}

Result<GgufModel> read_gguf_model(const std::filesystem::path& path, const OpenSource& open) {
  auto opened = TRY(read_part(path, open));
  const auto place = gguf_part_of(path);
  const auto claimed = opened.integer("split.count").value_or(1);
  GgufModel model;
  if (claimed <= 1 && (!place || place->count == 1)) {
    model.paths.push_back(path);
    model.parts.push_back(std::move(opened));
    return model;
  }
  if (!place)
    return no_series(opened, fmt::format("it is one of {} parts, but its name does not say which "
                                         "(NAME-00001-of-{:05}.gguf)",
                                         claimed, claimed));
  if (place->count > most_parts)
    return no_series(opened, fmt::format("a series of {} parts; at most {} are read", place->count, most_parts));

  std::set<std::string> names;
  std::uint64_t tensors = 0;
  for (unsigned number = 1; number <= place->count; ++number) {
    auto part_path = path.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", place->prefix, number, place->count);
    auto part = read_part(part_path, open);
    if (!part && part.error().code == ErrorCode::not_found)
      return fail(ErrorCode::not_found,
                  fmt::format("part {} of {} is missing: {}", number, place->count, printable(part_path.string())));
    if (!part) return fail(part.error());
    TRY(check_place(*part, number, place->count));
    for (const auto& tensor : part->tensors)
      if (!names.insert(tensor.name).second)
        return no_series(*part, fmt::format("the tensor '{}' is in an earlier part too", tensor.name));
    tensors += part->tensors.size();
    model.paths.push_back(std::move(part_path));
    model.parts.push_back(std::move(*part));
  }
  const auto promised = model.parts.front().integer("split.tensors.count");
  if (promised && *promised != static_cast<std::int64_t>(tensors))
    return no_series(model.parts.front(),
                     fmt::format("{} tensors are promised, the parts hold {}", *promised, tensors));
  return model;
}

}  // namespace gpumod
