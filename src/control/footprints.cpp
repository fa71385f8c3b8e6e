#include "control/footprints.h"

#include <algorithm>
#include <array>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/text.h"
#include "control/launch.h"
#include "control/model_place.h"
#include "control/unit_files.h"
#include "engines/engine.h"
#include "engines/llama_router.h"
#include "fit/learning.h"
#include "fit/llama_flags.h"
#include "formats/model_file.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

/// FNV-1a over parts that cannot run into each other, twice with different beginnings: 128 bits are plenty to tell
/// configurations of one machine apart, and need to withstand nobody.
class Digest {
 public:
  void add(std::string_view part) {
    mix(fmt::format("{}:", part.size()));
    mix(part);
  }
  std::string text() const { return fmt::format("{:016x}{:016x}", one_, other_); }

 private:
  void mix(std::string_view bytes) {
    for (const char byte : bytes) {
      one_ = (one_ ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
      other_ = (other_ ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
    }
  }
  std::uint64_t one_ = 0xcbf29ce484222325u, other_ = 0x9ae16a3b2f90404fu;
};

/// Arguments that take a value, and those that take none, of which it is known that they cost no memory.
constexpr std::array idle_with_value{"--port",       "--host",
                                     "--alias",      "-a",
                                     "--api-key",    "--api-key-file",
                                     "--log-file",   "--served-model-name",
                                     "--timeout",    "-to",
                                     "--root-path",  "--uvicorn-log-level",
                                     "--models-dir", "--models-preset",
                                     "--model",      "-m"};
constexpr std::array idle_alone{"--metrics", "--offline", "--log-disable", "--no-models-autoload", "--no-webui"};

template <typename Names>
bool is_among(const Names& names, std::string_view word) {
  return std::find(names.begin(), names.end(), word) != names.end();
}

void add_words(Digest& digest, const std::vector<std::string>& words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    const auto flag = word.substr(0, word.find('='));
    if (is_among(idle_alone, flag)) continue;
    if (is_among(idle_with_value, flag)) {
      if (flag.size() == word.size()) ++i;
      continue;
    }
    digest.add(word);
  }
}

/// What is secret, or says only where something is, or who is who.
bool is_idle_variable(std::string_view name) {
  static constexpr std::array idle{"GPUMOD_SERVICE", "CUDA_VISIBLE_DEVICES", "PATH", "HOME", "VIRTUAL_ENV", "LANG"};
  static constexpr std::array secret{"TOKEN", "KEY", "SECRET", "PASSWORD"};
  return is_among(idle, name) || name.ends_with("_PORT") || name.ends_with("_HOST") ||
         std::any_of(secret.begin(), secret.end(),
                     [&](std::string_view part) { return name.find(part) != std::string_view::npos; });
}

void add_environment(Digest& digest, const std::map<std::string, Secret>& environment) {
  for (const auto& [name, value] : environment) {
    if (is_idle_variable(name)) continue;
    digest.add(name);
    digest.add(value.reveal());
  }
}

/// Size and time of change: what is not there is something else than what is.
void add_file(Digest& digest, const fs::path& path) {
  struct stat info {};
  digest.add(path.native());
  if (::stat(path.c_str(), &info) == 0)
    digest.add(fmt::format("{} {} {}", info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec));
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
  fs::is_directory(path, problem) ? add_folder(digest, path) : add_file(digest, path);
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
  add_words(digest, plan.extra_args);
  add_environment(digest, plan.environment);
  if (!plan.models_preset.empty()) add_file(digest, plan.models_preset);
  if (const auto* settings = engine_settings(catalog, members.front()->engine)) {
    add_words(digest, settings->extra_args);
    add_environment(digest, settings->environment);
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
  add_words(digest, {unit.argv.begin() + 1, unit.argv.end()});
  add_environment(digest, unit.environment);
  return {};
}

std::optional<std::string> key_of(const Paths& paths, const Catalog& catalog, const std::string& driver,
                                  const Service& service) {
  Digest digest;
  digest.add("1");  // of this rule
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
  digest.add("1");
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

json::value to_json(const Footprint& footprint) {
  if (!footprint.estimated) return json::object{{"problem", footprint.not_estimated}};
  const auto& memory = *footprint.estimated;
  return json::object{{"weights", memory.weights.count()},
                      {"kv", memory.kv.count()},
                      {"compute", memory.compute.count()},
                      {"context", memory.context.count()},
                      {"rough", memory.rough},
                      {"assumptions", json::value_from(memory.assumptions)}};
}

std::optional<Footprint> from_cache(const fs::path& file) {
  const auto text = read_file(file, 1 << 16);
  if (!text) return std::nullopt;
  std::error_code malformed;
  const auto value = json::parse(*text, malformed);
  if (malformed) return std::nullopt;
  try {
    const auto& object = value.as_object();
    Footprint footprint;
    if (const auto* problem = object.if_contains("problem")) {
      footprint.not_estimated = std::string(problem->as_string());
      return footprint;
    }
    const auto bytes = [&](const char* name) { return Bytes(object.at(name).as_int64()); };
    footprint.estimated = EstimatedMemory{
        bytes("weights"), bytes("kv"), bytes("compute"), bytes("context"), object.at("rough").as_bool(), {}};
    for (const auto& words : object.at("assumptions").as_array())
      footprint.estimated->assumptions.emplace_back(words.as_string());
    return footprint;
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
  digest.add("1");  // of the arithmetic
  add_file(digest, path);
  digest.add(text_of_flags(*flags));
  const auto kept = paths.cache / "estimates" / (digest.text() + ".json");
  if (auto cached = from_cache(kept)) return *cached;
  footprint = from_file(path, *flags);
  if (make_directories(kept.parent_path(), 0700))
    (void)write_file_atomically(kept, json::serialize(to_json(footprint)), 0600);
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
