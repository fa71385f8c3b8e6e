#include "control/model_place.h"

#include <algorithm>

#include "base/fd.h"
#include "base/paths.h"
#include "base/text.h"
#include "engines/engine.h"
#include "engines/hub.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

/// A router knows a model by its file's stem, or by the name of a folder below its own (llama.cpp's --models-dir).
fs::path router_model(const fs::path& models, const std::string& name) {
  std::error_code problem;
  const auto file = models / (name + ".gguf"), folder = models / name;
  if (!fs::exists(fs::symlink_status(file, problem)) && fs::is_directory(folder, problem)) return folder;
  return file;
}

std::optional<ModelPlace> place_in_router(const Service& service) {
  const auto& llama = *service.llama();
  if (!service.model.path.empty()) return ModelPlace{service.model.path, {}, {}, false};
  const auto name = model_name(service);
  // People's own preset may put it anywhere, and names like these are the router's own downloads.
  if (llama.models_dir.empty() || !llama.models_preset.empty() || name.find_first_of("/:") != std::string::npos)
    return std::nullopt;
  return ModelPlace{router_model(llama.models_dir, name), {}, {}, false};
}

ModelPlace place_on_hub(const Service& service, const fs::path& home) {
  const auto variable = [&](const char* name) {
    const auto own = service.environment.find(name);
    return own != service.environment.end() ? own->second.reveal() : environment_variable(name);
  };
  ModelPlace place;
  place.hub_id = service.model.id;
  place.hub_root = hub_root_from(variable("HF_HUB_CACHE"), variable("HF_HOME"), variable("XDG_CACHE_HOME"), home);
  const auto offline = variable("HF_HUB_OFFLINE");
  place.may_download = offline == "0" || offline == "false";
  place.path = hub_snapshot(place.hub_id, place.hub_root);
  return place;
}

}  // namespace

std::optional<ModelPlace> place_of_model(const Service& service, const fs::path& home) {
  if (service.in_router()) return place_in_router(service);
  if (!service.model.path.empty()) return ModelPlace{service.model.path, {}, {}, false};
  const bool by_id = service.vllm() || service.model.id.find('/') != std::string::npos;
  if (by_id && is_hub_id(service.model.id)) return place_on_hub(service, home);
  return std::nullopt;
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
  std::vector<fs::path> snapshots;
  for (fs::directory_iterator each(model / "snapshots", problem), end; !problem && each != end; each.increment(problem))
    snapshots.push_back(each->path());
  std::sort(snapshots.begin(), snapshots.end());
  for (const auto& snapshot : snapshots)
    if (fs::exists(snapshot / "config.json", problem)) return snapshot;
  return snapshots.empty() ? fs::path() : snapshots.front();
}

}  // namespace gpumod
