#include "formats/hf_model.h"

#include <algorithm>
#include <set>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/fd.h"
#include "base/text.h"
#include "formats/safetensors.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

constexpr std::size_t config_limit = 4 << 20;
constexpr std::size_t index_limit = 32 << 20;
constexpr std::size_t most_shards = 1024;
constexpr std::size_t most_tensors = 1 << 20;

/// The index's map from tensors to shards; nothing when there is no index.
using WeightMap = std::map<std::string, std::string>;
Result<std::optional<WeightMap>> read_index(const fs::path& path) {
  const auto text = read_file(path, index_limit);
  if (!text && text.error().code == ErrorCode::not_found) return std::optional<WeightMap>();
  if (!text) return fail(text.error());
  const auto wrong = [&](std::string_view message) {
    return fail(ErrorCode::configuration, fmt::format("{}: {}", printable(path.string()), message));
  };
  json::parse_options options;
  options.max_depth = 8;
  boost::system::error_code problem;
  const auto parsed = json::parse(*text, problem, {}, options);
  const auto* object = problem ? nullptr : parsed.if_object();
  const auto* map = object ? object->if_contains("weight_map") : nullptr;
  if (!map || !map->is_object()) return wrong("expected a JSON object with a weight_map");
  WeightMap weights;
  for (const auto& [tensor, shard] : map->get_object()) {
    const auto name = shard.is_string() ? std::string(shard.get_string()) : std::string();
    // A shard lies beside its index: a path would lead out of the folder.
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos)
      return wrong(fmt::format("the tensor '{}' must be in a file of this folder, not in '{}'", printable(tensor),
                               printable(name)));
    weights.emplace(printable(tensor), name);
  }
  if (weights.empty()) return wrong("its weight_map is empty");
  return std::optional(std::move(weights));
}

Result<std::vector<std::string>> shards_of(const fs::path& folder, const std::optional<WeightMap>& weights) {
  std::set<std::string> names;
  if (weights) {
    for (const auto& [tensor, shard] : *weights)
      names.insert(shard);
  } else {
    std::error_code problem;
    const bool single = fs::exists(folder / "model.safetensors", problem);
    if (single) names.emplace("model.safetensors");
    for (fs::directory_iterator entries(folder, problem), end; !single && !problem && entries != end;
         entries.increment(problem)) {
      const auto name = entries->path().filename().string();
      // Mistral's folders hold the same weights a second time, under this name.
      if (name.ends_with(".safetensors") && !name.starts_with("consolidated")) names.insert(name);
      if (names.size() > most_shards) break;
    }
    if (names.empty())
      return fail(ErrorCode::not_found, fmt::format("{} holds no *.safetensors file", printable(folder.string())));
  }
  if (names.size() > most_shards)
    return fail(ErrorCode::configuration,
                fmt::format("{}: more than {} safetensors files", printable(folder.string()), most_shards));
  return std::vector<std::string>(names.begin(), names.end());
}

Result<void> add_shards(const fs::path& folder, ModelFacts& facts) {
  const auto index = folder / "model.safetensors.index.json";
  const auto weights = TRY(read_index(index));
  const auto shards = TRY(shards_of(folder, weights));
  std::map<std::string, std::size_t> found;
  for (const auto& shard : shards) {
    const auto path = folder / shard;
    const auto source = TRY(open_byte_source(path));
    auto tensors = TRY(read_safetensors(*source));
    const auto file = facts.files.size();
    facts.files.push_back(path);
    facts.file_bytes += Bytes(static_cast<std::int64_t>(source->size()));
    if (facts.tensors.size() + tensors.size() > most_tensors)
      return fail(ErrorCode::configuration, fmt::format("{}: more than {} tensors", source->name(), most_tensors));
    for (auto& tensor : tensors) {
      if (!found.emplace(tensor.name, file).second)
        return fail(ErrorCode::configuration,
                    fmt::format("{}: the tensor '{}' is in an earlier file too", source->name(), tensor.name));
      tensor.file = file;
      auto& share = facts.types[tensor.type];
      ++share.tensors;
      share.parameters += tensor.elements;
      share.bytes += tensor.bytes;
      facts.parameters += tensor.elements;
      facts.weights += tensor.bytes;
      facts.tensors.push_back(std::move(tensor));
    }
  }
  if (!weights) return {};
  for (const auto& [tensor, shard] : *weights) {
    const auto place = found.find(tensor);
    if (place == found.end() || facts.files[place->second].filename() != shard)
      return fail(ErrorCode::configuration,
                  fmt::format("{}: the tensor '{}' is not in {}", printable(index.string()), tensor, printable(shard)));
  }
  return {};
}

std::string tokenizer_of(const fs::path& folder, bool& chat_template) {
  std::error_code ignored;
  chat_template = fs::exists(folder / "chat_template.jinja", ignored);
  const auto text = read_file(folder / "tokenizer_config.json", config_limit);
  if (!text) return "";
  boost::system::error_code problem;
  const auto parsed = json::parse(*text, problem);
  const auto* object = problem ? nullptr : parsed.if_object();
  if (!object) return "";
  chat_template = chat_template || object->contains("chat_template");
  const auto* name = object->if_contains("tokenizer_class");
  return name && name->is_string() ? printable(std::string_view(name->get_string())) : std::string();
}

}  // namespace

Result<ModelFacts> read_hf_model(const fs::path& folder) {
  const auto config = folder / "config.json";
  const auto text = TRY(read_file(config, config_limit));
  auto facts = TRY(facts_of_hf_config(printable(config.string()), text));
  TRY(add_shards(folder, facts));
  if (facts.name.empty()) facts.name = printable(folder.filename().string());
  facts.tokenizer = tokenizer_of(folder, facts.chat_template);
  // Packed weights: eight numbers of four bits lie in one element of 32, so elements are not parameters.
  if (facts.types.contains("I32") && !facts.quantization.empty())
    facts.remarks.emplace_back(
        "weights are packed: the number of parameters is that of the elements as they are stored");
  return facts;
}

}  // namespace gpumod
