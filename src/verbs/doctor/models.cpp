#include "verbs/doctor/models.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "control/model_place.h"
#include "formats/model_files.h"
#include "verbs/doctor/look_within.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

using Found = std::optional<WeightsFacts>;

Error disk_is_late(Duration limit) {
  return Error{ErrorCode::environment,
               fmt::format("its disk did not answer within {}", format_seconds(limit)),
               "See `mount`, and whether its server is there.",
               {}};
}

WeightsFacts not_found(const ModelToFind& wanted, Error why) {
  WeightsFacts model;
  model.path = wanted.near;
  model.disk = fail(std::move(why));
  return model;
}

/// All models of one disk, one after the other.
Task<void> look_at_disk(Loop& loop, std::vector<const ModelToFind*> wanted, std::vector<Found*> found,
                        LookForModel look, Duration patience) {
  const TimePoint enough = now() + 3 * patience;
  bool late = false;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const ModelToFind one = *wanted[i];
    std::function<Found()> ask = [look, one] { return look(one); };
    Result<Found> seen = fail(disk_is_late(patience));
    if (!late)
      seen = co_await look_within<Found>(loop, std::min(patience, enough - now()), std::move(ask), seen.error());
    late = late || (!seen && seen.error().code == ErrorCode::environment) || now() >= enough;
    *found[i] = seen ? std::move(*seen) : not_found(one, seen.error());
  }
}

}  // namespace

std::vector<ModelToFind> models_to_find(const Catalog& catalog, const fs::path& home, const MountTable& mounts) {
  std::vector<ModelToFind> wanted;
  for (const auto& [id, service] : catalog.services) {
    if (!service.unit.empty()) continue;  // what people's own unit loads is theirs
    ModelToFind one{service, additions_of(catalog, service), {}};
    const auto place = place_of_model(service, one.added, home, Touch::nothing);
    if (!place) continue;
    one.near = place->path.empty() ? place->hub_root : place->path;
    if (const auto* mount = mounts.reached_by(one.near)) one.on = *mount;
    wanted.push_back(std::move(one));
  }
  return wanted;
}

LookForModel look_for_model(fs::path home, fs::path root) {
  return [home = std::move(home), root = std::move(root)](const ModelToFind& wanted) -> Found {
    const auto place = place_of_model(wanted.service, wanted.added, home);
    if (!place) return std::nullopt;
    WeightsFacts model;
    model.path = place->path.empty() ? place->hub_root / place->hub_id : place->path;
    model.may_download = place->may_download;
    model.size = files_of_model(model.path).bytes();
    model.disk = disk_facts(model.path, root);
    return model;
  };
}

Task<std::vector<WeightsFacts>> find_models(Loop& loop, std::vector<ModelToFind> wanted, LookForModel look,
                                            Duration patience) {
  struct Disk {
    std::vector<const ModelToFind*> wanted;
    std::vector<Found*> found;
  };
  std::vector<Found> found(wanted.size());
  std::map<fs::path, Disk> disks;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    auto& disk = disks[wanted[i].on.point];
    disk.wanted.push_back(&wanted[i]);
    disk.found.push_back(&found[i]);
  }
  std::vector<Task<void>> looking;
  for (auto& [point, disk] : disks)
    looking.push_back(look_at_disk(loop, std::move(disk.wanted), std::move(disk.found), look, patience));
  co_await run_all(std::move(looking));
  std::vector<WeightsFacts> models;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!found[i]) continue;
    auto known = std::find_if(models.begin(), models.end(),
                              [&](const WeightsFacts& other) { return other.path == found[i]->path; });
    if (known == models.end()) {
      if (wanted[i].on.remote()) found[i]->remote = wanted[i].on.type;
      known = models.insert(models.end(), std::move(*found[i]));
    }
    known->services.push_back(wanted[i].service.id);
  }
  co_return models;
}

}  // namespace gpumod
