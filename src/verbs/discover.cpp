#include "verbs/discover.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "control/model_place.h"
#include "engines/hub.h"
#include "formats/gguf.h"
#include "formats/model_file.h"
#include "host/run.h"
#include "verbs/unit_text.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

constexpr std::size_t listing_limit = 2000;  // of one folder that is looked through for programs
constexpr std::size_t programs_asked = 3;    // of each kind: asking starts them
constexpr Duration version_timeout = 5s;

/// Names in a folder, sorted; none when it is not there. Folders on a network are not looked into.
std::vector<fs::path> entries_of(const fs::path& folder, const MountTable& mounts, const fs::path& home) {
  std::vector<fs::path> entries;
  const auto* mount = mounts.holding(folder);
  if (mount && mount != mounts.holding(home) && (mount->remote() || mount->pseudo())) return entries;
  std::error_code problem;
  for (fs::directory_iterator each(folder, problem), end; !problem && each != end && entries.size() < listing_limit;
       each.increment(problem))
    entries.push_back(each->path());
  std::sort(entries.begin(), entries.end());
  return entries;
}

bool is_program(const fs::path& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && ::access(path.c_str(), X_OK) == 0;
}

fs::path real(const fs::path& path) {
  std::error_code problem;
  auto canonical = fs::canonical(path, problem);
  return problem ? path : canonical;
}

void add_usual_folders(Places& places, const fs::path& home, const fs::path& working_directory) {
  for (const char* folder : {"models", "Models", "llm", "llms", "gguf", "ai/models", ".cache/llama.cpp",
                             ".lmstudio/models", ".cache/lm-studio/models", ".local/share/models",
                             ".local/share/llama.cpp", ".local/share/nomic.ai/GPT4All", "Downloads"})
    places.roots.push_back({home / folder, false, 4});
  for (const char* folder : {"/models", "/srv/models", "/opt/models", "/data/models"})
    places.roots.push_back({folder, false, 4});
  places.roots.push_back({places.hub, false, 3});
  // From the home directory or above, everything would be walked: only what lies there itself.
  const bool above =
      working_directory == "/" || home.lexically_relative(working_directory).native().find("..") == std::string::npos;
  places.roots.push_back({working_directory, false, above ? 0 : 4});
}

}  // namespace

Places usual_places(const Paths& paths, const fs::path& working_directory,
                    const std::vector<std::string>& model_folders, const std::string& llama_server) {
  Places places;
  const auto& home = places.home = paths.home;
  places.mounts = MountTable::of_this_machine();
  places.path = environment_variable("PATH");
  if (places.path.empty()) places.path = "/usr/local/bin:/usr/bin:/bin";
  places.path += ":" + (home / ".local/bin").string();
  const auto absolute = [&](const std::string& text) {
    if (text == "~" || text.starts_with("~/")) return home / fs::path(text).lexically_relative("~");
    return (working_directory / text).lexically_normal();
  };
  if (!llama_server.empty()) places.llama_server = absolute(llama_server);
  places.hub = hub_root_of({}, home);

  for (const auto& folder : model_folders)
    places.roots.push_back({absolute(folder), true, 4});
  // Who names folders means these; beside them only the hub's cache, where its own program put what people asked for.
  if (model_folders.empty())
    add_usual_folders(places, home, working_directory);
  else
    places.roots.push_back({places.hub, false, 3});

  const auto add_programs = [&](const fs::path& folder) {
    for (const char* below : {"", "bin", "build/bin"})
      places.program_folders.push_back(folder / below);
  };
  for (const char* folder :
       {".local/bin", "bin", "llama.cpp/build/bin", "llama.cpp", "src/llama.cpp/build/bin", "git/llama.cpp/build/bin"})
    places.program_folders.push_back(home / folder);
  add_programs(working_directory);
  if (working_directory != "/")
    for (const auto& each : entries_of(working_directory, places.mounts, home))
      add_programs(each);
  for (const auto& each : entries_of("/opt", places.mounts, home))
    add_programs(each);

  for (const char* folder : {".venv", "venv", ".local"})
    places.environments.push_back(home / folder);
  for (const char* folder : {".venv", "venv"})
    places.environments.push_back(working_directory / folder);
  for (const char* parent : {"", "venvs", ".virtualenvs", ".local/share/uv/tools", ".local/share/pipx/venvs",
                             "miniconda3/envs", "miniforge3/envs"})
    for (const auto& each : entries_of(home / parent, places.mounts, home)) {
      places.environments.push_back(each);
      if (*parent == 0) places.environments.push_back(each / ".venv"), places.environments.push_back(each / "venv");
    }
  for (const auto& each : entries_of("/opt", places.mounts, home))
    places.environments.push_back(each);

  const fs::path xdg = environment_variable("XDG_CONFIG_HOME");
  places.own_units = (xdg.is_absolute() ? xdg : home / ".config") / "systemd/user";
  places.all_units = {places.own_units, home / ".local/share/systemd/user", "/etc/systemd/user",
                      "/usr/local/lib/systemd/user", "/usr/lib/systemd/user"};
  return places;
}

const FoundEngine* Findings::engine(EngineKind kind) const {
  const FoundEngine* any = nullptr;
  for (const auto& each : engines) {
    if (each.engine != kind) continue;
    if (each.problem.empty()) return &each;
    if (!any) any = &each;
  }
  return any;
}

namespace {

// --- programs

/// Candidates for a program, the best first, each file once.
class Candidates {
 public:
  void add(const fs::path& path, bool in_path = false) {
    if (!is_program(path)) return;
    const auto file = real(path);
    if (std::find(files_.begin(), files_.end(), file) != files_.end()) return;
    files_.push_back(file);
    found_.push_back({{}, path, {}, in_path, {}});
  }
  std::vector<FoundEngine> take(EngineKind kind) {
    for (auto& each : found_)
      each.engine = kind;
    return std::move(found_);
  }

 private:
  std::vector<fs::path> files_;
  std::vector<FoundEngine> found_;
};

/// Only what lies where every PATH leads: cron and a desktop's programs do not read a shell's.
void add_from_path(Candidates& candidates, const Places& places, const char* name) {
  const auto path = find_program(name, places.path);
  if (!path) return;
  const auto folder = path->parent_path();
  candidates.add(*path, folder == "/usr/bin" || folder == "/usr/local/bin" || folder == "/bin");
}

std::vector<FoundEngine> find_llama_servers(const Places& places, const std::vector<fs::path>& walked) {
  Candidates candidates;
  if (!places.llama_server.empty()) {
    candidates.add(places.llama_server);
    for (const char* below : {"llama-server", "bin/llama-server", "build/bin/llama-server"})
      candidates.add(places.llama_server / below);
    return candidates.take(EngineKind::llamacpp);
  }
  add_from_path(candidates, places, "llama-server");
  for (const auto& folder : places.program_folders)
    candidates.add(folder / "llama-server");
  for (const auto& path : walked)
    candidates.add(path);
  return candidates.take(EngineKind::llamacpp);
}

std::vector<FoundEngine> find_in_environments(const Places& places, const char* name, EngineKind kind) {
  Candidates candidates;
  add_from_path(candidates, places, name);
  for (const auto& environment : places.environments)
    candidates.add(environment / "bin" / name);
  return candidates.take(kind);
}

/// Asking vllm takes many seconds; its package's folder carries the version.
std::string installed_version(const fs::path& binary, const Places& places) {
  const auto root = real(binary).parent_path().parent_path();
  for (const auto& python : entries_of(root / "lib", places.mounts, places.home)) {
    if (!python.filename().string().starts_with("python")) continue;
    std::error_code problem;
    for (fs::directory_iterator each(python / "site-packages", problem), end; !problem && each != end;
         each.increment(problem)) {
      const auto name = each->path().filename().string();
      constexpr std::string_view prefix = "vllm-", suffix = ".dist-info";
      if (name.starts_with(prefix) && name.ends_with(suffix))
        return printable(name.substr(prefix.size(), name.size() - prefix.size() - suffix.size()));
    }
  }
  return {};
}

std::string first_line(std::string_view text) {
  for (const auto line : split_lines(text))
    if (!trim(line).empty()) return printable(trim(line).substr(0, 200));
  return {};
}

Task<void> ask_version(FoundEngine& found) {
  std::vector<std::string> argv{found.binary.string(), "--version"};
  const auto outcome = co_await run_program(std::move(argv), version_timeout);
  if (!outcome) {
    found.problem = outcome.error().message;
    co_return;
  }
  if (outcome->timed_out || outcome->exit_code != 0) {
    found.problem = outcome->timed_out ? "it does not answer --version" : first_line(outcome->output);
    if (found.problem.empty()) found.problem = fmt::format("--version ends with {}", outcome->exit_code);
    co_return;
  }
  for (const auto line : split_lines(outcome->output)) {
    constexpr std::string_view llama = "version: ", uvicorn = "Running uvicorn ";
    if (line.starts_with(llama)) found.version = printable(trim(line.substr(llama.size())).substr(0, 80));
    if (line.starts_with(uvicorn))
      found.version = printable(line.substr(uvicorn.size(), line.find(' ', uvicorn.size()) - uvicorn.size()));
    if (!found.version.empty()) co_return;
  }
}

// --- models

bool can_be_written(const fs::path& path) {
  const auto& text = path.native();
  return is_valid_utf8(text) && printable(text) == text;
}

/// From files to models: parts joined, each header read.
void read_models(const std::vector<WalkedFile>& files, Findings& findings) {
  std::map<std::string, std::vector<const WalkedFile*>> series;
  std::vector<std::pair<const WalkedFile*, Bytes>> whole;
  for (const auto& file : files) {
    if (const auto part = gguf_part_of(file.path))
      series[(file.path.parent_path() / part->prefix).string()].push_back(&file);
    else
      whole.emplace_back(&file, file.size);
  }
  for (auto& [name, parts] : series) {
    std::sort(parts.begin(), parts.end(), [](const auto* a, const auto* b) { return a->path < b->path; });
    Bytes size;
    for (const auto* part : parts)
      size += part->size;
    const auto first = gguf_part_of(parts.front()->path);
    if (first->number == 1 && parts.size() == first->count)
      whole.emplace_back(parts.front(), size);
    else
      findings.remarks.push_back(fmt::format("{} is split into {} parts, and only {} are there: left out",
                                             printable(name), first->count, parts.size()));
  }

  std::size_t unusable = 0;
  for (const auto& [file, size] : whole) {
    if (!can_be_written(file->path)) {
      findings.remarks.push_back(fmt::format("{} has a name that YAML cannot carry as it is: rename it to use it",
                                             printable(file->path.string())));
      continue;
    }
    const auto model = read_model(file->path);
    if (!model) {
      findings.remarks.push_back(fmt::format("{} is left out: {}", file->path.string(), model.error().message));
      continue;
    }
    const auto guess = guess_kind(*model, file->path.filename().string());
    if (guess.kind == ModelKind::unusable) {
      ++unusable;
      continue;
    }
    const auto context = model->context_length > 0 ? std::optional<std::int64_t>(model->context_length) : std::nullopt;
    findings.models.push_back({file->path, size, guess, context});
  }
  if (unusable > 0)
    findings.remarks.push_back(
        fmt::format("{} GGUF {} no model to serve alone (a projector, an adapter, a vocabulary): left out", unusable,
                    unusable == 1 ? "file is" : "files are"));
  std::sort(findings.models.begin(), findings.models.end(), [](const FoundModel& a, const FoundModel& b) {
    return std::pair(lower(a.path.filename().string()), a.path) < std::pair(lower(b.path.filename().string()), b.path);
  });
}

/// What a transformers configuration describes; see its "architectures".
ModelKind kind_of_snapshot(const json::object& config, const fs::path& snapshot) {
  std::error_code problem;
  if (fs::exists(snapshot / "modules.json", problem)) return ModelKind::embedding;  // sentence-transformers
  const auto* architectures = config.if_contains("architectures");
  const auto* type = config.if_contains("model_type");
  const std::string model_type = type && type->is_string() ? std::string(type->as_string()) : std::string();
  for (const char* other : {"whisper", "t5", "bart", "marian", "pix2struct", "blip"})
    if (model_type.starts_with(other)) return ModelKind::unusable;
  if (!architectures || !architectures->is_array()) return ModelKind::unusable;
  for (const auto& each : architectures->as_array()) {
    const std::string name = each.is_string() ? std::string(each.as_string()) : std::string();
    if (name.ends_with("ForCausalLM") || name.ends_with("ForConditionalGeneration")) return ModelKind::chat;
    if (name.ends_with("ForSequenceClassification")) return ModelKind::reranker;
    if (name.ends_with("Model") &&
        (name.find("Bert") != std::string::npos || name.find("Roberta") != std::string::npos))
      return ModelKind::embedding;
  }
  return ModelKind::unusable;
}

std::optional<std::int64_t> context_of(const json::object& config) {
  const auto* text = config.if_contains("text_config");
  for (const auto* where : {&config, text && text->is_object() ? &text->as_object() : nullptr}) {
    const auto* value = where ? where->if_contains("max_position_embeddings") : nullptr;
    if (value && value->is_int64() && value->as_int64() > 0) return value->as_int64();
  }
  return std::nullopt;
}

std::optional<FoundHubModel> read_snapshot(const std::string& id, const fs::path& snapshot) {
  std::error_code problem;
  bool weights = false;
  for (fs::directory_iterator each(snapshot, problem), end; !problem && each != end; each.increment(problem))
    weights = weights || each->path().extension() == ".safetensors";
  if (!weights) return std::nullopt;
  const auto text = read_file(snapshot / "config.json", 1 << 20);
  if (!text) return std::nullopt;
  boost::system::error_code broken;
  const auto config = json::parse(*text, broken);
  if (broken || !config.is_object()) return std::nullopt;
  return FoundHubModel{id, snapshot, kind_of_snapshot(config.as_object(), snapshot), context_of(config.as_object())};
}

void read_hub(const Places& places, Findings& findings) {
  constexpr std::string_view prefix = "models--";
  for (const auto& folder : entries_of(places.hub, places.mounts, places.home)) {
    auto name = folder.filename().string();
    if (!name.starts_with(prefix)) continue;
    auto id = name.substr(prefix.size());
    if (const auto separator = id.find("--"); separator != std::string::npos) id.replace(separator, 2, "/");
    if (!is_hub_id(id)) continue;
    for (const auto& snapshot : entries_of(folder / "snapshots", places.mounts, places.home))
      if (auto model = read_snapshot(id, snapshot)) {
        findings.hub.push_back(std::move(*model));
        break;
      }
  }
}

// --- units

bool is_gpumods(std::string_view name) {
  return name == "gpumod.service" || name.starts_with("gpumod-");
}

void read_units(const Places& places, Findings& findings) {
  for (const auto& folder : places.all_units)
    for (const auto& path : entries_of(folder, places.mounts, places.home))
      if (path.extension() == ".service") findings.unit_names.insert(path.filename().string());
  for (const auto& path : entries_of(places.own_units, places.mounts, places.home)) {
    const auto name = path.filename().string();
    if (path.extension() != ".service" || name.ends_with("@.service") || is_gpumods(name)) continue;
    const auto text = read_file(path, 64 * 1024);
    if (!text) continue;
    const auto commands = unit_file_values(*text, "Service", "ExecStart");
    if (commands.empty()) continue;
    if (auto guess = guess_server(command_words(commands.back(), places.home)))
      findings.units.push_back({name, path, std::move(*guess)});
  }
}

void look_at_files(const Places& places, Findings& findings) {
  std::vector<WalkedFile> models;
  std::vector<fs::path> servers;
  const auto wanted = [](std::string_view name) {
    return name == "llama-server" || lower(std::string(name)).ends_with(".gguf");
  };
  const auto found = [&](WalkedFile file) {
    if (file.path.filename() == "llama-server")
      servers.push_back(file.path);
    else
      models.push_back(std::move(file));
  };
  auto outcome = walk_folders(places.roots, places.home, places.mounts, places.limits, wanted, found);
  findings.searched = std::move(outcome.searched);
  findings.cut_short = outcome.cut_short;
  for (const auto& avoided : outcome.avoided)
    findings.remarks.push_back(fmt::format(
        "{} is on the network and was not looked into; name it with --models to do so", printable(avoided.string())));
  read_models(models, findings);
  read_hub(places, findings);
  read_units(places, findings);
  std::sort(servers.begin(), servers.end());
  findings.engines = find_llama_servers(places, servers);
  for (auto& each : find_in_environments(places, "vllm", EngineKind::vllm)) {
    each.version = installed_version(each.binary, places);
    findings.engines.push_back(std::move(each));
  }
  for (auto& each : find_in_environments(places, "uvicorn", EngineKind::fastapi))
    findings.engines.push_back(std::move(each));
}

/// What people named must be there: an empty answer would hide the slip.
Result<void> check_told_folders(const Places& places) {
  for (const auto& root : places.roots) {
    if (!root.told) continue;
    std::error_code problem;
    const auto status = fs::status(root.folder, problem);
    const auto name = printable(root.folder.string());
    constexpr auto hint = "Give --models the folder that the GGUF files lie in.";
    if (status.type() == fs::file_type::not_found)
      return fail(ErrorCode::not_found, fmt::format("there is no folder {}", name), hint);
    if (!problem && !fs::is_directory(status))
      return fail(ErrorCode::usage, fmt::format("{} is no folder", name), hint);
    if (::access(root.folder.c_str(), R_OK | X_OK) != 0)
      return fail(system_error(fmt::format("look into {}", name), errno, ErrorCode::environment));
  }
  return {};
}

}  // namespace

Task<Result<Findings>> look_around(Places places) {
  Findings findings;
  Result<void> told;
  // Disks can be slow; who waits on the loop meanwhile shall not.
  const std::function<void()> look = [&] {
    told = check_told_folders(places);
    if (told) look_at_files(places, findings);
  };
  co_await run_blocking(look);
  if (!told) co_return fail(told.error());
  if (!places.llama_server.empty() && !findings.engine(EngineKind::llamacpp))
    co_return fail(ErrorCode::not_found,
                   fmt::format("there is no llama-server at {}", printable(places.llama_server.string())),
                   "Give --llama-server the program itself, or the folder that it lies in.");
  std::map<EngineKind, std::size_t> asked;
  for (auto& each : findings.engines)
    if (each.engine != EngineKind::vllm && asked[each.engine]++ < programs_asked) co_await ask_version(each);
  co_return findings;
}

}  // namespace gpumod
