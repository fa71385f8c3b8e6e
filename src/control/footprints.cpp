#include "control/footprints.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/text.h"
#include "control/digest.h"
#include "control/launch.h"
#include "control/model_place.h"
#include "control/unit_files.h"
#include "engines/engine.h"
#include "engines/llama_router.h"
#include "fit/learning.h"
#include "fit/llama_flags.h"
#include "formats/model_file.h"
#include "formats/model_files.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

/// Words and variables, but for those that its engine is known to take no memory or time for. Secrets leave no more than
/// their part in the hash.
class Configuration {
 public:
  Configuration(Digest& digest, EngineKind engine) : digest_(digest), idle_(engine_for(engine).idle_names()) {}

  void add_words(const std::vector<std::string>& words) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::string_view word = words[i];
      const auto flag = word.substr(0, word.find('='));
      if (is_among(idle_.alone, flag)) continue;
      if (is_among(idle_.with_value, flag)) {
        if (flag.size() == word.size()) ++i;
        continue;
      }
      digest_.add(word);
    }
  }

  void add_environment(const std::map<std::string, Secret>& environment) {
    for (const auto& [name, value] : environment) {
      if (is_among(idle_.variables, name)) continue;
      digest_.add(name);
      digest_.add(value.reveal());
    }
  }

 private:
  static bool is_among(const std::vector<std::string_view>& names, std::string_view word) {
    return std::find(names.begin(), names.end(), word) != names.end();
  }
  Digest& digest_;
  IdleNames idle_;
};

/// Size and time of change: what is not there is something else than what is.
void add_file(Digest& digest, const fs::path& path) {
  struct stat info {};
  digest.add(path.native());
  if (::stat(path.c_str(), &info) == 0)
    digest.add(fmt::format("{} {} {}", info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec));
}

/// A model's file, and the other parts of its series.
void add_model_file(Digest& digest, const fs::path& path) {
  digest.add(path.native());
  for (const auto& part : files_of_model(path).files)
    if (part.role == ModelFile::Role::weights) add_file(digest, part.path);
}

/// The files of a folder, by name.
void add_folder(Digest& digest, const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code problem;
  for (fs::directory_iterator each(folder, problem), end; !problem && each != end; each.increment(problem)) {
    std::error_code gone;
    if (each->is_regular_file(gone)) files.push_back(each->path());
  }
  std::sort(files.begin(), files.end());
  for (const auto& file : files)
    add_file(digest, file);
}

/// Its files, and where it is named by an id, that too.
void add_model(Digest& digest, const Paths& paths, const Catalog& catalog, const Service& service) {
  const auto added = additions_of(catalog, service);
  const auto place = place_of_model(service, added, paths.home);
  if (!place || !place->hub_id.empty()) {
    digest.add(service.model.id);
    if (place && !place->path.empty()) add_folder(digest, place->path);
    return;
  }
  const auto path = model_path_of(service, added, paths.home);
  std::error_code problem;
  fs::is_directory(path, problem) ? add_folder(digest, path) : add_model_file(digest, path);
}

/// People's own unit: what it runs is in its file and its drop-ins.
bool add_adopted(Digest& digest, const Paths& paths, const std::string& unit) {
  const auto fragment = fragment_of(paths, unit);
  if (!fragment) return false;
  add_file(digest, *fragment);
  for (const auto& folder : drop_in_folders(paths, unit))
    add_folder(digest, folder);
  return true;
}

/// What a router's models have in common.
Result<void> add_router(Digest& digest, const Catalog& catalog, const std::vector<const Service*>& members) {
  const auto plan = TRY(plan_router(members));
  Configuration configuration(digest, members.front()->engine);
  configuration.add_words(plan.extra_args);
  configuration.add_environment(plan.environment);
  if (!plan.models_preset.empty()) add_file(digest, plan.models_preset);
  if (const auto* settings = engine_settings(catalog, members.front()->engine)) {
    configuration.add_words(settings->extra_args);
    configuration.add_environment(settings->environment);
  }
  return {};
}

Result<void> add_launch(Digest& digest, const Paths& paths, const Catalog& catalog, const Service& service) {
  const auto members = catalog.services_of_unit(service.unit_name());
  const auto binary = TRY(binary_of(paths, catalog, service));
  add_file(digest, binary);
  if (service.in_router()) {
    TRY(add_router(digest, catalog, members));
    for (const auto& [name, value] : model_settings(*service.llama())) {
      digest.add(name);
      digest.add(value);
    }
    return {};
  }
  LaunchContext context;
  context.binary = binary;
  context.settings = engine_settings(catalog, service.engine);
  context.unit = service.unit_name();
  const auto unit = TRY(engine_for(service.engine).launch(service, context));
  Configuration configuration(digest, service.engine);
  configuration.add_words({unit.argv.begin() + 1, unit.argv.end()});
  configuration.add_environment(unit.environment);
  digest.add(unit.working_directory.native());
  return {};
}

/// Another rule makes other keys: what was remembered under those of an earlier one is not found again.
constexpr std::string_view rule_of_keys = "2";

std::optional<std::string> key_of(const Paths& paths, const Catalog& catalog, const std::string& driver,
                                  const Service& service) {
  Digest digest;
  digest.add(rule_of_keys);
  digest.add(driver);
  digest.add(to_string(service.engine));
  if (!service.unit.empty()) {
    if (!add_adopted(digest, paths, service.unit)) return std::nullopt;
  } else if (!add_launch(digest, paths, catalog, service)) {
    return std::nullopt;
  }
  add_model(digest, paths, catalog, service);
  return digest.text();
}

/// A router's own process: it is what its models have in common.
std::optional<std::string> key_of_router(const Paths& paths, const Catalog& catalog, const std::string& driver,
                                         const std::vector<const Service*>& members) {
  Digest digest;
  digest.add(rule_of_keys);
  digest.add(driver);
  const auto& first = *members.front();
  if (!first.unit.empty()) {
    if (!add_adopted(digest, paths, first.unit)) return std::nullopt;
    return digest.text();
  }
  const auto binary = binary_of(paths, catalog, first);
  if (!binary || !add_router(digest, catalog, members)) return std::nullopt;
  add_file(digest, *binary);
  return digest.text();
}

}  // namespace

std::map<std::string, std::string> footprint_keys(const Paths& paths, const Catalog& catalog,
                                                  const std::string& driver) {
  std::map<std::string, std::string> keys;
  for (const auto& [id, service] : catalog.services) {
    if (auto key = key_of(paths, catalog, driver, service)) keys[id] = std::move(*key);
    const auto unit = service.unit_name();
    if (service.router.empty() || keys.contains(unit)) continue;
    if (auto key = key_of_router(paths, catalog, driver, catalog.services_of_unit(unit))) keys[unit] = std::move(*key);
  }
  return keys;
}

namespace {

std::string text_of_flags(const LlamaFlags& flags) {
  std::string overrides;
  for (const auto& each : flags.overrides)
    overrides += fmt::format("{}={},", each.pattern, each.buffer);
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {}", flags.context.value_or(-1),
                     flags.gpu_layers.value_or(-1), flags.cache_k, flags.cache_v, flags.parallel.value_or(-1),
                     flags.unified ? *flags.unified : 2, flags.batch, flags.swa_full, flags.kv_offload,
                     flags.flash_attention, flags.n_cpu_moe, flags.cpu_moe, overrides);
}

json::value to_json(const EstimatedMemory& memory) {
  return json::object{{"weights", memory.weights.count()},
                      {"kv", memory.kv.count()},
                      {"compute", memory.compute.count()},
                      {"context", memory.context.count()},
                      {"rough", memory.rough},
                      {"assumptions", json::value_from(memory.assumptions)}};
}

std::optional<EstimatedMemory> from_cache(const fs::path& file) {
  const auto text = read_file(file, 1 << 16);
  if (!text) return std::nullopt;
  std::error_code malformed;
  const auto value = json::parse(*text, malformed);
  if (malformed) return std::nullopt;
  try {
    const auto& object = value.as_object();
    const auto bytes = [&](const char* name) { return Bytes(object.at(name).as_int64()); };
    EstimatedMemory memory{
        bytes("weights"), bytes("kv"), bytes("compute"), bytes("context"), object.at("rough").as_bool(), {}};
    for (const auto& words : object.at("assumptions").as_array())
      memory.assumptions.emplace_back(words.as_string());
    return memory;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

Footprint from_file(const fs::path& path, const LlamaFlags& flags) {
  Footprint footprint;
  const auto facts = read_model(path);
  if (!facts || facts->tensors.empty()) {
    footprint.not_estimated = facts ? "its file holds no weights" : facts.error().message;
    return footprint;
  }
  const auto estimate = estimate_llama(*facts, flags);
  if (!estimate) {
    footprint.not_estimated = estimate.error().message;
    return footprint;
  }
  const auto need = estimate->sum();
  footprint.estimated =
      EstimatedMemory{need.weights, need.kv, need.compute, need.context, estimate->rough, estimate->assumptions};
  return footprint;
}

Footprint estimate_of(const Paths& paths, const Catalog& catalog, const Service& service) {
  Footprint footprint;
  const auto added = additions_of(catalog, service);
  const auto flags = llama_flags_of(service, added.words);
  if (!flags) {
    footprint.not_estimated = flags.error().message;
    return footprint;
  }
  const auto path = model_path_of(service, added, paths.home);
  struct stat info {};
  if (path.empty() || ::stat(path.c_str(), &info) != 0) {
    footprint.not_estimated =
        path.empty() ? "its file names no model file" : fmt::format("{} is not there", path.string());
    return footprint;
  }
  Digest digest;
  digest.add("3");  // of the arithmetic
  add_model_file(digest, path);
  digest.add(text_of_flags(*flags));
  const auto kept = paths.cache / "estimates" / (digest.text() + ".json");
  footprint.estimated = from_cache(kept);
  if (footprint.estimated) return footprint;
  footprint = from_file(path, *flags);
  // What could not be read may be readable tomorrow, and a later gpumod may know more architectures.
  if (footprint.estimated && make_directories(kept.parent_path(), 0700))
    (void)write_file_atomically(kept, json::serialize(to_json(*footprint.estimated)), 0600);
  return footprint;
}

}  // namespace

void add_estimates(const Paths& paths, const Catalog& catalog, const std::set<ServiceId>& wanted, Footprints& known) {
  for (const auto& id : wanted) {
    const auto found = catalog.services.find(id);
    if (found == catalog.services.end() || !found->second.llama() || found->second.vram == Bytes(0)) continue;
    auto estimate = estimate_of(paths, catalog, found->second);
    known[id].estimated = std::move(estimate.estimated);
    known[id].not_estimated = std::move(estimate.not_estimated);
  }
}

void add_measurements(const std::vector<Measurement>& remembered, Footprints& known) {
  std::map<std::string, std::vector<Measurement>> by_subject;
  for (const auto& run : remembered)
    by_subject[run.subject].push_back(run);
  for (const auto& [subject, runs] : by_subject)
    known[subject].measured = summaries_of(runs);
}

}  // namespace gpumod
