#include "control/footprints.h"

#include <algorithm>
#include <array>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/text.h"
#include "control/launch.h"
#include "control/unit_files.h"
#include "engines/engine.h"
#include "engines/hub.h"
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
  for (const auto& entry : fs::directory_iterator(folder, problem))
    if (entry.is_regular_file(problem)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const auto& file : files)
    add_file(digest, file);
}

/// The GGUF of one model below a router's folder: NAME.gguf, or the first file of the folder NAME.
fs::path file_below(const fs::path& folder, const std::string& name) {
  std::error_code problem;
  if (auto file = folder / (name + ".gguf"); fs::is_regular_file(file, problem)) return file;
  fs::path first;
  for (const auto& entry : fs::directory_iterator(folder / name, problem)) {
    const auto& file = entry.path();
    if (file.extension() != ".gguf" || file.filename().native().starts_with("mmproj")) continue;
    if (first.empty() || file < first) first = file;
  }
  return first;
}

}  // namespace

fs::path model_path_of(const Service& service) {
  const auto* llama = service.llama();
  if (llama && !llama->models_dir.empty()) {
    if (service.model.path.is_absolute()) return service.model.path;
    return file_below(llama->models_dir, model_name(service));
  }
  return service.model.path;
}

namespace {

void add_model(Digest& digest, const Paths& paths, const Service& service) {
  const auto path = model_path_of(service);
  std::error_code problem;
  if (!path.empty()) {
    fs::is_directory(path, problem) ? add_folder(digest, path) : add_file(digest, path);
    return;
  }
  digest.add(service.model.id);
  if (!is_hub_id(service.model.id)) return;
  const auto root = hub_root_from(environment_variable("HF_HUB_CACHE"), environment_variable("HF_HOME"),
                                  environment_variable("XDG_CACHE_HOME"), paths.home);
  for (const auto& snapshot : fs::directory_iterator(hub_snapshot_dir(service.model.id, root), problem))
    add_folder(digest, snapshot.path());
}

/// People's own unit: what it runs is in its file and its drop-ins.
bool add_adopted(Digest& digest, const Paths& paths, const std::string& unit) {
  const auto fragment = fragment_of(paths, unit);
  if (!fragment) return false;
  add_file(digest, *fragment);
  for (const auto& folder : unit_folders(paths))
    add_folder(digest, folder / (unit + ".d"));
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
  add_model(digest, paths, service);
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

}  // namespace

std::vector<std::string> further_words(const Catalog& catalog, const Service& service) {
  std::vector<std::string> words;
  if (const auto* settings = engine_settings(catalog, service.engine)) words = settings->extra_args;
  for (const auto* member : catalog.services_of_unit(service.unit_name()))
    words.insert(words.end(), member->extra_args.begin(), member->extra_args.end());
  return words;
}

namespace {

Footprint estimate_of(const Paths& paths, const Catalog& catalog, const Service& service) {
  Footprint footprint;
  const auto flags = llama_flags_of(service, further_words(catalog, service));
  if (!flags) {
    footprint.not_estimated = flags.error().message;
    return footprint;
  }
  const auto path = model_path_of(service);
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
