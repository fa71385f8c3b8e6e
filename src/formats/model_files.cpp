#include "formats/model_files.h"

#include <algorithm>
#include <array>
#include <set>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "formats/gguf.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

constexpr std::size_t most_files = 2000;  // of one folder
constexpr std::size_t index_limit = 32 << 20;

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code problem;
  for (fs::directory_iterator each(folder, problem), end; !problem && each != end && names.size() < most_files;
       each.increment(problem))
    names.push_back(each->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// A model's file name without ".gguf", and a series without its numbers.
std::string stem_of(const std::string& name) {
  if (const auto part = gguf_part_of(name)) return part->prefix;
  return is_gguf_name(name) ? name.substr(0, name.size() - 5) : name;
}

/// "mmproj-Qwen2.5-VL-7B-f16.gguf" → "qwen2.5-vl-7b"; "" when it names no model.
std::string model_named_by(const std::string& projector) {
  auto base = lower(stem_of(projector));
  if (const auto at = base.find("mmproj"); at != std::string::npos) base.erase(at, 6);
  if (base.starts_with("-model")) base.erase(0, 6);
  for (const char* type : {"bf16", "f16", "f32", "fp16", "q8_0", "q4_0", "q4_k_m", "q5_k_m", "q6_k"})
    if (base.ends_with(type)) {
      base.erase(base.size() - std::string_view(type).size());
      break;
    }
  const auto is_separator = [](char c) { return c == '-' || c == '.' || c == '_'; };
  while (!base.empty() && is_separator(base.front()))
    base.erase(0, 1);
  while (!base.empty() && is_separator(base.back()))
    base.pop_back();
  return base;
}

/// The models of a folder, by what people would call them.
std::set<std::string> model_stems(const std::vector<std::string>& names) {
  std::set<std::string> stems;
  for (const auto& name : names)
    if (is_gguf_name(name) && !is_projector_name(name)) stems.insert(stem_of(name));
  return stems;
}

/// Some programs keep GGUF files under the name of their checksum.
bool begins_as_gguf(const fs::path& path) {
  const auto source = open_byte_source(path);
  char magic[4] = {};
  return source && (*source)->read_at(0, magic, sizeof magic).value_or(0) == sizeof magic &&
         std::string_view(magic, sizeof magic) == "GGUF";
}

ModelFiles gguf_files(const fs::path& path) {
  ModelFiles found{ModelLayout::gguf, {}};
  const auto folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (const auto part = gguf_part_of(path); part && part->count <= 1024) {
    for (unsigned number = 1; number <= part->count; ++number)
      found.files.push_back(look_at_model_file(
          path.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", part->prefix, number, part->count)));
  } else {
    found.files.push_back(look_at_model_file(path));
  }
  const auto name = path.filename().string();
  if (is_projector_name(name)) return found;
  for (const auto& projector : projectors_of(name, names_in(folder)))
    found.files.push_back(look_at_model_file(path.parent_path() / projector, ModelFile::Role::projector));
  return found;
}

/// The shards that the index names, or every safetensors file that there is.
std::set<std::string> shards_of(const fs::path& folder, const std::vector<std::string>& names) {
  std::set<std::string> shards;
  if (const auto index = read_file(folder / "model.safetensors.index.json", index_limit)) {
    boost::system::error_code malformed;
    const auto parsed = json::parse(*index, malformed);
    const auto* object = malformed ? nullptr : parsed.if_object();
    const auto* map = object ? object->if_contains("weight_map") : nullptr;
    if (map && map->is_object())
      for (const auto& [tensor, shard] : map->get_object())
        if (shard.is_string() && shard.get_string().find('/') == json::string::npos && shards.size() < most_files)
          shards.insert(std::string(shard.get_string()));
  }
  if (!shards.empty()) return shards;
  for (const auto& name : names)
    if (name.ends_with(".safetensors") && !name.starts_with("consolidated")) shards.insert(name);
  return shards;
}

ModelFiles safetensors_files(const fs::path& folder) {
  ModelFiles found{ModelLayout::safetensors, {}};
  const auto names = names_in(folder);
  for (const auto& shard : shards_of(folder, names))
    found.files.push_back(look_at_model_file(folder / shard));
  for (const auto& name : names)
    if (name.ends_with(".json") || name.ends_with(".jinja") || name == "tokenizer.model" || name == "merges.txt")
      found.files.push_back(look_at_model_file(folder / name, ModelFile::Role::configuration));
  return found;
}

ModelFiles folder_files(const fs::path& folder) {
  const auto names = names_in(folder);
  if (std::find(names.begin(), names.end(), "config.json") != names.end()) return safetensors_files(folder);
  std::vector<std::string> models;
  for (const auto& name : names) {
    const auto part = gguf_part_of(name);
    if (is_gguf_name(name) && !is_projector_name(name) && (!part || part->number == 1)) models.push_back(name);
  }
  if (models.size() == 1) return gguf_files(folder / models.front());
  ModelFiles found{ModelLayout::local, {}};
  for (const auto& name : names) {
    std::error_code problem;
    if (!fs::is_directory(folder / name, problem)) found.files.push_back(look_at_model_file(folder / name));
  }
  return found;
}

/// Of a Hugging Face folder: what says which weights there are, what they are, and how text becomes numbers.
bool is_needed_configuration(const std::string& name) {
  constexpr std::array<std::string_view, 7> needed{"config.json",     "model.safetensors.index.json",
                                                   "tokenizer.json",  "tokenizer_config.json",
                                                   "tokenizer.model", "vocab.json",
                                                   "merges.txt"};
  return std::find(needed.begin(), needed.end(), name) != needed.end();
}

std::vector<std::string> problems_of(const std::vector<ModelFile>& files, bool needed_alone) {
  std::vector<std::string> problems;
  for (const auto& file : files)
    if (!file.problem.empty() && (file.needed || !needed_alone))
      problems.push_back(fmt::format("{} {}", printable(file.path.string()), file.problem));
  return problems;
}

}  // namespace

std::string_view to_string(ModelLayout layout) {
  switch (layout) {
    case ModelLayout::gguf: return "gguf";
    case ModelLayout::safetensors: return "safetensors";
    case ModelLayout::local: return "local";
  }
  return "local";
}

std::string_view to_string(ModelFile::Role role) {
  switch (role) {
    case ModelFile::Role::weights: return "weights";
    case ModelFile::Role::projector: return "projector";
    case ModelFile::Role::configuration: return "configuration";
  }
  return "weights";
}

Bytes ModelFiles::bytes() const {
  Bytes sum;
  for (const auto& file : files)
    sum += file.size.value_or(Bytes());
  return sum;
}

std::vector<std::string> ModelFiles::problems() const {
  return problems_of(files, false);
}

std::vector<std::string> ModelFiles::obstacles() const {
  return problems_of(files, true);
}

ModelFile look_at_model_file(const fs::path& path, ModelFile::Role role) {
  ModelFile file{path, role, {}, {}, {}};
  file.needed = role == ModelFile::Role::configuration ? is_needed_configuration(path.filename().string())
                                                       : role == ModelFile::Role::weights;
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    const int why = errno;
    struct stat link {};
    const bool dangling = ::lstat(path.c_str(), &link) == 0 && S_ISLNK(link.st_mode);
    if (why == EACCES)
      file.problem = "cannot be looked at by you";
    else if (dangling)
      file.problem = why == ELOOP ? "is a link that leads in a circle" : "is a link that leads nowhere";
    else
      file.problem = "is not there";
    return file;
  }
  if (S_ISDIR(info.st_mode)) {
    file.problem = "is a folder";
  } else if (!S_ISREG(info.st_mode)) {
    file.problem = S_ISFIFO(info.st_mode) ? "is a FIFO" : S_ISSOCK(info.st_mode) ? "is a socket" : "is a device";
  } else {
    file.size = Bytes(info.st_size);
    file.modified = info.st_mtim.tv_sec;
    if (::access(path.c_str(), R_OK) != 0) file.problem = "cannot be read by you";
  }
  return file;
}

ModelFiles files_of_model(const fs::path& path) {
  std::error_code problem;
  const auto status = fs::status(path, problem);
  const auto name = path.filename().string();
  if (fs::is_directory(status)) return folder_files(path);
  if (is_gguf_name(name)) return gguf_files(path);
  const auto folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const bool of_folder = name.ends_with(".safetensors") || name == "config.json" || name.ends_with(".index.json");
  if (of_folder && fs::exists(folder / "config.json", problem)) return safetensors_files(folder);
  if (begins_as_gguf(path)) return gguf_files(path);
  ModelFiles found{ModelLayout::local, {}};
  found.files.push_back(look_at_model_file(path));
  return found;
}

bool is_gguf_name(std::string_view file_name) {
  return lower(file_name).ends_with(".gguf");
}

bool is_projector_name(std::string_view file_name) {
  return is_gguf_name(file_name) && lower(file_name).find("mmproj") != std::string::npos;
}

std::vector<std::string> projectors_of(const std::string& model, const std::vector<std::string>& names) {
  std::vector<std::string> projectors;
  const bool alone = model_stems(names).size() <= 1;
  const auto own = lower(stem_of(model));
  for (const auto& name : names) {
    if (!is_projector_name(name)) continue;
    const auto named = model_named_by(name);
    if (alone || named.empty() || own.starts_with(named)) projectors.push_back(name);
  }
  return projectors;
}

std::string model_title(const fs::path& path) {
  const auto folder = path.parent_path();
  constexpr std::string_view prefix = "models--";
  for (auto part = path.begin(); part != path.end(); ++part) {
    auto name = part->string();
    const auto next = std::next(part);
    if (!name.starts_with(prefix) || next == path.end() || *next != "snapshots") continue;
    name.erase(0, prefix.size());
    if (const auto separator = name.find("--"); separator != std::string::npos) name.replace(separator, 2, "/");
    const auto file = path.filename().string();
    return is_gguf_name(file) ? stem_of(file) : name;
  }
  const auto name = path.filename().empty() ? folder.filename().string() : path.filename().string();
  if (name == "config.json" || name.ends_with(".safetensors") || name.ends_with(".index.json"))
    return folder.filename().string();
  return stem_of(name);
}

}  // namespace gpumod
