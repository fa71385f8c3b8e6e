#include "control/model_place.h"

#include <algorithm>

#include "base/fd.h"
#include "base/paths.h"
#include "base/text.h"
#include "engines/engine.h"
#include "engines/hub.h"
#include "formats/model_files.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code problem;
  for (fs::directory_iterator each(folder, problem), end; !problem && each != end; each.increment(problem))
    entries.push_back(each->path());
  std::sort(entries.begin(), entries.end());
  return entries;
}

/// A router knows a model by its file's stem, or by the name of a folder below its own (llama.cpp's --models-dir).
fs::path router_model(const fs::path& models, const std::string& name, Touch touch) {
  std::error_code problem;
  const auto file = models / (name + ".gguf"), folder = models / name;
  if (touch == Touch::nothing) return file;
  if (!fs::exists(fs::symlink_status(file, problem)) && fs::is_directory(folder, problem)) return folder;
  return file;
}

std::optional<ModelPlace> place_in_router(const Service& service, const std::vector<std::string>& words, Touch touch) {
  const auto& llama = *service.llama();
  if (!service.model.path.empty()) return ModelPlace{service.model.path, {}, {}, false};
  const auto name = model_name(service);
  // People's own preset may put it anywhere, and names like these are the router's own downloads.
  if (llama.models_dir.empty() || !llama.models_preset.empty() || name.find_first_of("/:") != std::string::npos ||
      has_option(words, {"--models-dir", "--models-preset"}))
    return std::nullopt;
  return ModelPlace{router_model(llama.models_dir, name, touch), {}, {}, false};
}

/// What is downloaded is kept where the engine alone knows.
bool is_download(const std::vector<std::string>& words) {
  return has_option(words,
                    {"-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-mu", "--model-url", "-dr", "--docker-repo"});
}

std::string variable(const std::map<std::string, Secret>& environment, const char* name) {
  const auto own = environment.find(name);
  return own != environment.end() ? own->second.reveal() : environment_variable(name);
}

std::optional<ModelPlace> place_on_hub(const Service& service, const Additions& added, const fs::path& home,
                                       Touch touch) {
  // Weights in another folder, at another revision, or from another hub.
  if (service.vllm() &&
      (has_option(added.words, {"--download-dir", "--revision"}) || added.environment.contains("VLLM_USE_MODELSCOPE")))
    return std::nullopt;
  ModelPlace place;
  place.hub_id = service.model.id;
  place.hub_root = hub_root_of(added.environment, home);
  // The engines are started offline, unless people say otherwise.
  const auto offline = added.environment.find("HF_HUB_OFFLINE");
  place.may_download = offline != added.environment.end() && !is_hub_offline(offline->second.reveal());
  if (touch == Touch::files) place.path = hub_snapshot(place.hub_id, place.hub_root);
  return place;
}

}  // namespace

std::optional<ModelPlace> place_of_model(const Service& service, const Additions& added, const fs::path& home,
                                         Touch touch) {
  if (service.in_router()) return place_in_router(service, added.words, touch);
  if (service.llama()) {
    if (is_download(added.words)) return std::nullopt;
    // llama-server takes the last model that it is told of; a relative path counts from where it runs.
    if (const auto other = option_value(added.words, {"-m", "--model"}))
      return fs::path(*other).is_absolute() ? std::optional(ModelPlace{*other, {}, {}, false}) : std::nullopt;
  }
  if (!service.model.path.empty()) return ModelPlace{service.model.path, {}, {}, false};
  const bool by_id = service.vllm() || service.model.id.find('/') != std::string::npos;
  if (by_id && is_hub_id(service.model.id)) return place_on_hub(service, added, home, touch);
  return std::nullopt;
}

fs::path model_path_of(const Service& service, const Additions& added, const fs::path& home) {
  const auto place = place_of_model(service, added, home);
  // Which file of a repository another engine takes, it alone knows.
  if (!place || (!place->hub_id.empty() && !service.vllm())) return {};
  std::error_code problem;
  if (!service.in_router() || !fs::is_directory(place->path, problem)) return place->path;
  for (const auto& file : entries_of(place->path))
    if (const auto name = file.filename().string(); is_gguf_name(name) && !is_projector_name(name)) return file;
  return {};
}

fs::path hub_root_of(const std::map<std::string, Secret>& environment, const fs::path& home) {
  return hub_root_from(variable(environment, "HF_HUB_CACHE"), variable(environment, "HF_HOME"),
                       variable(environment, "XDG_CACHE_HOME"), home);
}

fs::path hub_snapshot(const std::string& id, const fs::path& root) {
  const auto model = hub_model_dir(id, root);
  if (model.empty()) return {};
  std::error_code problem;
  if (const auto main = read_file(model / "refs" / "main", 256)) {
    const auto revision = trim(*main);
    if (!revision.empty() && revision.find('/') == std::string_view::npos && revision != ".." &&
        fs::is_directory(model / "snapshots" / revision, problem))
      return model / "snapshots" / revision;
  }
  const auto snapshots = entries_of(hub_snapshot_dir(id, root));
  for (const auto& snapshot : snapshots)
    if (fs::exists(snapshot / "config.json", problem)) return snapshot;
  return snapshots.empty() ? fs::path() : snapshots.front();
}

}  // namespace gpumod
