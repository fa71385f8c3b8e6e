#include "formats/hub_listing.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "formats/gguf.h"
#include "formats/hf_model.h"
#include "formats/model_files.h"
#include "formats/safetensors.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr std::size_t most_files = 20'000;
constexpr std::size_t longest_name = 1024;

const json::value* at(const json::object& object, std::string_view key) {
  return object.if_contains(key);
}
const json::object* object_at(const json::object& object, std::string_view key) {
  const auto* value = at(object, key);
  return value ? value->if_object() : nullptr;
}
std::string text_at(const json::object& object, std::string_view key) {
  const auto* value = at(object, key);
  return value && value->is_string() ? std::string(value->get_string()) : std::string();
}
/// Bounded so that the sum over all files can still be counted.
std::optional<std::int64_t> amount_at(const json::object& object, std::string_view key) {
  constexpr std::int64_t most = std::int64_t{1} << 46;
  const auto* value = at(object, key);
  if (!value || !value->is_int64() || value->get_int64() < 0 || value->get_int64() > most) return std::nullopt;
  return value->get_int64();
}

/// A path that stays inside the repository and can be shown as it is.
bool is_inside(const std::string& name) {
  if (name.empty() || name.size() > longest_name || name.front() == '/' || printable(name) != name) return false;
  std::string_view rest = name;
  while (!rest.empty()) {
    const auto end = std::min(rest.find('/'), rest.size());
    const auto part = rest.substr(0, end);
    if (part.empty() || part == "." || part == "..") return false;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return name.back() != '/';
}

bool is_sha256(std::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::optional<HubFile> file_from(const json::value& entry) {
  const auto* object = entry.if_object();
  if (!object) return std::nullopt;
  HubFile file;
  file.name = text_at(*object, "rfilename");
  if (!is_inside(file.name)) return std::nullopt;
  auto size = amount_at(*object, "size");
  if (const auto* large = object_at(*object, "lfs")) {
    const auto sum = text_at(*large, "sha256");
    if (is_sha256(sum)) file.sha256 = sum;
    if (const auto real = amount_at(*large, "size")) size = real;
  }
  if (size) file.size = Bytes(*size);
  return file;
}

std::string folder_of(const std::string& name) {
  const auto slash = name.rfind('/');
  return slash == std::string::npos ? std::string() : name.substr(0, slash + 1);
}

bool is_weights_of_whole(const std::string& name) {
  return name.ends_with(".safetensors") && name.find('/') == std::string::npos && !name.starts_with("consolidated");
}
bool is_configuration(const std::string& name) {
  return name.find('/') == std::string::npos &&
         (name.ends_with(".json") || name.ends_with(".jinja") || name == "tokenizer.model" || name == "merges.txt");
}

}  // namespace

const HubFile* HubRepository::find(std::string_view name) const {
  const auto found = std::find_if(files.begin(), files.end(), [&](const HubFile& file) { return file.name == name; });
  return found == files.end() ? nullptr : &*found;
}

Result<HubRepository> read_hub_listing(std::string_view name, std::string_view body) {
  const auto wrong = [&](std::string_view what) {
    return fail(ErrorCode::configuration, fmt::format("{}: {}", name, what));
  };
  json::parse_options options;
  options.max_depth = 32;
  boost::system::error_code malformed;
  const auto parsed = json::parse(body, malformed, {}, options);
  const auto* object = malformed ? nullptr : parsed.if_object();
  if (!object) return wrong("the answer is no JSON object");
  HubRepository repository;
  repository.id = printable(text_at(*object, "id"));
  repository.revision = printable(text_at(*object, "sha"));
  const auto* siblings = at(*object, "siblings");
  if (repository.id.empty() || !siblings || !siblings->is_array())
    return wrong("the answer is no description of a model: it has no id, or no list of files");
  const auto* gated = at(*object, "gated");
  repository.gated = gated && (gated->is_string() || (gated->is_bool() && gated->get_bool()));
  for (const auto& entry : siblings->get_array()) {
    if (repository.files.size() >= most_files) {
      repository.more_files = true;
      break;
    }
    if (auto file = file_from(entry)) repository.files.push_back(std::move(*file));
  }
  if (const auto* config = object_at(*object, "config")) {
    repository.architecture = printable(text_at(*config, "model_type"));
    const auto* classes = at(*config, "architectures");
    if (classes && classes->is_array() && !classes->get_array().empty() && classes->get_array()[0].is_string())
      repository.model_class = printable(std::string_view(classes->get_array()[0].get_string()));
  }
  const auto* safetensors = object_at(*object, "safetensors");
  if (const auto* types = safetensors ? object_at(*safetensors, "parameters") : nullptr)
    for (const auto& [type, count] : *types)
      if (const auto amount = amount_at(*types, type))
        repository.parameters[printable(type)] = static_cast<std::uint64_t>(*amount);
  return repository;
}

std::vector<std::string> gguf_models_of(const HubRepository& repository) {
  std::vector<std::string> models;
  for (const auto& file : repository.files) {
    const auto base = file.name.substr(folder_of(file.name).size());
    const auto part = gguf_part_of(base);
    if (is_gguf_name(base) && !is_projector_name(base) && (!part || part->number == 1)) models.push_back(file.name);
  }
  std::sort(models.begin(), models.end());
  return models;
}

std::vector<HubFile> files_of_hub_model(const HubRepository& repository, const std::string& file) {
  std::vector<HubFile> files;
  if (file.empty()) {
    for (const auto& each : repository.files)
      if (is_weights_of_whole(each.name) || is_configuration(each.name)) files.push_back(each);
    return files;
  }
  const auto folder = folder_of(file), base = file.substr(folder.size());
  const auto part = gguf_part_of(base);
  std::vector<std::string> beside;
  for (const auto& each : repository.files) {
    if (folder_of(each.name) != folder) continue;
    const auto name = each.name.substr(folder.size());
    beside.push_back(name);
    const auto other = gguf_part_of(name);
    const bool same = part && other ? part->prefix == other->prefix && part->count == other->count : name == base;
    if (same) files.push_back(each);
  }
  for (const auto& projector : projectors_of(base, beside))
    if (const auto* found = repository.find(folder + projector)) files.push_back(*found);
  return files;
}

Result<ModelFacts> facts_of_hub_model(const HubRepository& repository, std::string_view file, std::string_view config) {
  auto facts = TRY(facts_of_hf_config(file, config));
  if (facts.name.empty()) facts.name = repository.id;
  Bytes weights;
  for (const auto& each : files_of_hub_model(repository, "")) {
    facts.file_bytes += each.size.value_or(Bytes());
    if (!is_weights_of_whole(each.name)) continue;
    facts.files.emplace_back(each.name);
    weights += each.size.value_or(Bytes());
  }
  for (const auto& [type, count] : repository.parameters) {
    auto& share = facts.types[type];
    share.parameters += count;
    std::uint64_t bits = 0;
    if (multiply(count, dtype_bits(type), bits)) share.bytes = Bytes(static_cast<std::int64_t>(bits / 8));
    facts.parameters += count;
  }
  facts.weights = weights;
  facts.remarks.emplace_back("weights counted by the sizes of their files: their headers were not read");
  return facts;
}

}  // namespace gpumod
