#include "formats/model_file.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "formats/gguf_facts.h"
#include "formats/hf_model.h"
#include "formats/model_files.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

/// The GGUF models of a folder: of a series its first part. Projectors are no models of their own.
std::vector<fs::path> gguf_models_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code problem;
  for (fs::directory_iterator entries(folder, problem), end; !problem && entries != end; entries.increment(problem)) {
    const auto& path = entries->path();
    const auto name = path.filename().string();
    if (!is_gguf_name(name) || is_projector_name(name)) continue;
    const auto part = gguf_part_of(path);
    if (!part || part->number == 1) found.push_back(path);
  }
  std::sort(found.begin(), found.end());
  return found;
}

Result<ModelFacts> read_gguf_facts(const fs::path& path) {
  return facts_of(TRY(read_gguf_model(path)));
}

}  // namespace

Result<ModelFacts> read_model(const fs::path& path) {
  std::error_code problem;
  const auto status = fs::status(path, problem);
  if (!fs::exists(status))
    return fail(ErrorCode::not_found, fmt::format("{} is not there", printable(path.string())),
                fs::is_symlink(fs::symlink_status(path, problem)) ? "It is a link that leads nowhere." : "");
  if (fs::is_directory(status)) {
    if (fs::exists(path / "config.json", problem)) return read_hf_model(path);
    const auto models = gguf_models_in(path);
    if (models.size() == 1) return read_gguf_facts(models.front());
    if (models.empty())
      return fail(ErrorCode::not_found,
                  fmt::format("{} holds no model: neither a config.json nor a *.gguf file", printable(path.string())));
    std::vector<std::string> names;
    for (const auto& model : models)
      names.push_back(printable(model.filename().string()));
    return fail(ErrorCode::usage, fmt::format("{} holds {} models", printable(path.string()), models.size()),
                fmt::format("Name one of them: {}.", join(names, ", ")));
  }
  if (path.extension() == ".safetensors" || path.filename() == "config.json" ||
      path.filename() == "model.safetensors.index.json")
    return read_hf_model(path.has_parent_path() ? path.parent_path() : fs::path("."));
  return read_gguf_facts(path);
}

}  // namespace gpumod
