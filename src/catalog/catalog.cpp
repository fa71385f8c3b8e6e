// Finding the files, reading each by itself, and only then looking at what they say of each other.
#include "catalog/catalog.h"

#include <algorithm>
#include <tuple>

#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "catalog/checks.h"
#include "catalog/env_file.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t folder_depth_limit = 16;
constexpr std::size_t environment_file_limit = 256 * 1024;

VariableLookup variables_of_the_machine(const Paths& paths) {
  return [home = paths.home.string()](const std::string& name) -> std::optional<std::string> {
    if (name == "HOME") return home;
    if (name == "USER") {
      if (auto user = environment_variable("USER"); !user.empty()) return user;
      const passwd* entry = ::getpwuid(::getuid());
      return entry ? std::optional<std::string>(entry->pw_name) : std::nullopt;
    }
    if (!name.starts_with("XDG_")) return std::nullopt;
    if (auto value = environment_variable(name.c_str()); !value.empty()) return value;
    if (home.empty()) return std::nullopt;
    static const std::map<std::string, std::string> usual = {{"XDG_CONFIG_HOME", "/.config"},
                                                             {"XDG_DATA_HOME", "/.local/share"},
                                                             {"XDG_STATE_HOME", "/.local/state"},
                                                             {"XDG_CACHE_HOME", "/.cache"}};
    const auto found = usual.find(name);
    return found == usual.end() ? std::nullopt : std::optional(home + found->second);
  };
}

Result<FileText> read_environment_text(const fs::path& path) {
  FileText file{TRY(read_file(path, environment_file_limit)), false};
  struct stat info {};
  file.others_may_read = ::stat(path.c_str(), &info) == 0 && (info.st_mode & 077) != 0;
  return file;
}

/// Collects files into a catalogue; `finish` looks at all of them together.
class Assembly {
 public:
  explicit Assembly(Surroundings around) : around_(std::move(around)) {}

  void complain(Severity severity, SourceLocation where, std::string message, std::string hint = {}) {
    catalog_.problems.push_back({severity, std::move(where), std::move(message), std::move(hint)});
  }

  void add_settings(const std::string& file, std::string_view text) {
    const auto document = parse(file, text);
    if (document.root && !document.root->is_null())
      catalog_.settings = read_settings_file(file, document.root, around_, catalog_.problems);
  }

  /// Somebody may have wanted to limit them, in a line that could not be understood.
  void limit_assistants_by_broken_settings() {
    const auto& problems = catalog_.problems;
    if (std::any_of(problems.begin(), problems.end(), [](const auto& one) { return one.severity == Severity::error; }))
      catalog_.settings.mcp.allow = AssistantRights::read;
  }

  void add_service_file(const std::string& file, std::string_view text) {
    const auto document = parse(file, text);
    if (!document.root || document.root->is_null()) {
      if (document.problems.empty())
        complain(Severity::error, {file, 1, 1}, "the file is empty", "Write a service, or remove it.");
      return lose_service(stem_of(file), file);
    }
    auto drafts = read_service_file(file, document.root, around_, catalog_.problems);
    for (auto& draft : drafts) {
      if (!document.problems.empty()) draft.ok = false;
      services_.push_back(std::move(draft));
    }
    if (drafts.empty()) lose_service(stem_of(file), file);
  }

  void add_mode_file(const std::string& file, std::string_view text) {
    const auto document = parse(file, text);
    if (!document.root || document.root->is_null()) {
      if (document.problems.empty())
        complain(Severity::error, {file, 1, 1}, "the file is empty", "Write a mode, or remove it.");
      return lose_mode(stem_of(file), file);
    }
    auto draft = read_mode_file(file, document.root, around_, catalog_.problems);
    if (!document.problems.empty()) draft.ok = false;
    modes_.push_back(std::move(draft));
  }

  void lose_service(const ServiceId& id, const std::string& file) {
    lost_services_.emplace(id, SourceLocation{file, 0, 0});
  }
  void lose_mode(const ModeId& id, const std::string& file) { lost_modes_.emplace(id, SourceLocation{file, 0, 0}); }

  Catalog finish() {
    check_services(services_, catalog_.problems);
    for (auto& draft : services_) {
      if (draft.ok)
        catalog_.services.emplace(draft.service.id, draft.service);
      else
        lost_services_.emplace(draft.service.id, draft.service.source);
    }
    gather_secrets();
    for (auto& [id, service] : catalog_.services)
      inherit(catalog_, service);
    settle_faults(lost_services_, catalog_.services, catalog_.broken_services, catalog_.service_faults);
    std::map<ModeId, SourceLocation> first;
    for (const auto& draft : modes_) {
      bool good = check_mode(draft, catalog_.services, catalog_.service_faults, catalog_.problems);
      const auto* id = draft.root->is_map() ? draft.root->find("id") : nullptr;
      const auto& at = id ? *id->value : *draft.root;
      const SourceLocation here{draft.mode.source.file, at.line, at.column};
      if (good) {
        const auto [found, fresh] = first.emplace(draft.mode.id, here);
        if (!fresh) {
          complain(Severity::error, here, fmt::format("the mode '{}' is already defined", draft.mode.id),
                   fmt::format("It stands at {}, and that one is used. Rename or remove one of them.",
                               to_string(found->second)));
          good = false;
        }
      }
      if (good)
        catalog_.modes.emplace(draft.mode.id, draft.mode);
      else
        lost_modes_.emplace(draft.mode.id, draft.mode.source);
    }
    settle_faults(lost_modes_, catalog_.modes, catalog_.broken_modes, catalog_.mode_faults);
    sort_problems();
    return std::move(catalog_);
  }

  Catalog& catalog() { return catalog_; }

 private:
  YamlDocument parse(const std::string& file, std::string_view text) {
    auto document = parse_yaml(text);
    for (const auto& each : document.problems)
      complain(Severity::error, {file, each.line, each.column}, each.message, each.hint);
    return document;
  }

  /// What env_file holds comes with the files (load_catalog).
  void gather_secrets() {
    const auto named = [this](const std::string& name, const std::string& value) {
      if (!names_a_secret(name)) return;
      catalog_.secrets.insert(value);
      // Several keys, each of which counts by itself.
      for (const auto part : split_at(value, ','))
        catalog_.secrets.emplace(trim(part));
    };
    const auto among_words = [&](const std::vector<std::string>& words) {
      for (std::size_t i = 0; i < words.size(); ++i) {
        const auto& word = words[i];
        if (const auto equals = word.find('='); equals != std::string::npos) {
          const auto value = word.substr(equals + 1);
          named(word.substr(0, equals), value);
          // --env=NAME=value
          if (const auto second = value.find('='); second != std::string::npos)
            named(value.substr(0, second), value.substr(second + 1));
        } else if (word.starts_with('-') && i + 1 < words.size())
          named(word, words[i + 1]);
      }
    };
    const auto in_environment = [&](const std::map<std::string, Secret>& environment) {
      for (const auto& [name, value] : environment)
        named(name, value.reveal());
    };
    for (const auto& [name, value] : around_.variables)
      named(name, value);
    for (const auto& [kind, settings] : catalog_.settings.engines) {
      in_environment(settings.environment);
      among_words(settings.extra_args);
    }
    for (const auto& draft : services_) {
      in_environment(draft.service.environment);
      among_words(draft.service.extra_args);
      if (const auto* command = draft.service.command()) among_words(command->cmd);
    }
  }

  /// Ids that no sound file defines are broken; the place is that of their file's first error.
  template <typename Defined>
  void settle_faults(const std::map<std::string, SourceLocation>& lost, const Defined& defined,
                     std::set<std::string>& broken, std::map<std::string, SourceLocation>& faults) {
    for (const auto& [id, source] : lost) {
      if (defined.contains(id)) continue;
      broken.insert(id);
      SourceLocation fault = source;
      for (const auto& problem : catalog_.problems)
        if (problem.severity == Severity::error && problem.where.file == source.file &&
            problem.where.line >= source.line) {
          fault = problem.where;
          break;
        }
      faults.emplace(id, std::move(fault));
    }
  }

  void sort_problems() {
    const auto place = [](const Problem& p) { return std::tie(p.where.file, p.where.line, p.where.column); };
    std::stable_sort(catalog_.problems.begin(), catalog_.problems.end(),
                     [&](const Problem& a, const Problem& b) { return place(a) < place(b); });
  }

  Surroundings around_;
  Catalog catalog_;
  std::vector<ServiceDraft> services_;
  std::vector<ModeDraft> modes_;
  std::map<ServiceId, SourceLocation> lost_services_;
  std::map<ModeId, SourceLocation> lost_modes_;
};

/// The YAML files of one folder, in the order of their names.
class Folder {
 public:
  using Take = std::function<void(const std::string& file, const std::string& text)>;
  using Lose = std::function<void(const std::string& file)>;

  Folder(Assembly& assembly, const fs::path& config, Take take, Lose lose)
      : assembly_(assembly), config_(config), take_(std::move(take)), lose_(std::move(lose)) {}

  void read(const fs::path& folder, bool recursive, std::size_t depth = 0) {
    std::error_code problem;
    if (!fs::exists(fs::symlink_status(config_ / folder, problem))) return;
    std::vector<std::pair<std::string, bool>> names;  // and whether it is a directory
    fs::directory_iterator entries(config_ / folder, problem);
    for (; !problem && entries != fs::directory_iterator(); entries.increment(problem)) {
      std::error_code unknown;
      const auto& entry = entries->path().native();
      names.emplace_back(entry.substr(entry.rfind('/') + 1), entries->is_directory(unknown));
    }
    if (problem) {
      assembly_.complain(Severity::error, {folder.string(), 0, 0},
                         fmt::format("the folder cannot be read: {}", problem.message()));
      return;
    }
    std::sort(names.begin(), names.end());
    for (const auto& [name, directory] : names) {
      if (name.front() == '.') continue;  // an editor's swap files, version control
      const auto path = folder / name;
      const bool yaml = name.ends_with(".yaml") || name.ends_with(".yml");
      if (directory && recursive && !yaml)
        descend(path, depth);
      else if (yaml)
        take_one(path);
    }
  }

 private:
  void descend(const fs::path& path, std::size_t depth) {
    std::error_code problem;
    const auto real = fs::canonical(config_ / path, problem);
    if (problem || !visited_.insert(real).second) return;
    if (depth + 1 >= folder_depth_limit) {
      assembly_.complain(Severity::warning, {path.string(), 0, 0},
                         "folders are nested too deeply: this one is not read");
      return;
    }
    read(path, true, depth + 1);
  }

  void take_one(const fs::path& path) {
    const auto file = path.string();
    auto text = read_file(config_ / path, yaml_file_limit);
    if (text) return take_(file, *text);
    std::error_code problem;
    const auto full = config_ / path;
    std::string message = text.error().message;
    std::string hint;
    if (fs::is_directory(full, problem)) {
      message = "this is a folder, not a file";
      hint = "Rename it so that it does not end in .yaml.";
    } else if (text.error().code == ErrorCode::not_found) {
      message = "the link leads nowhere";
    } else if (fs::exists(full, problem) && !fs::is_regular_file(full, problem)) {
      message = "this is not a regular file";
    } else if (text.error().code == ErrorCode::configuration) {
      message = fmt::format("the file is larger than {} KiB", yaml_file_limit / 1024);
      hint = "A service or a mode needs a few lines.";
    } else {
      message = fmt::format("the file cannot be read: {}", message);
    }
    assembly_.complain(Severity::error, {file, 0, 0}, message, hint);
    lose_(file);
  }

  Assembly& assembly_;
  fs::path config_;
  Take take_;
  Lose lose_;
  std::set<fs::path> visited_;
};

void read_settings(Assembly& assembly, const Paths& paths) {
  std::error_code problem;
  const auto status = fs::symlink_status(paths.config / "gpumod.yaml", problem);
  if (!fs::exists(status)) {
    if (fs::exists(paths.config / "gpumod.yml", problem))
      assembly.complain(Severity::warning, {"gpumod.yml", 0, 0}, "this file is not read", "Rename it to gpumod.yaml.");
    return;
  }
  auto text = read_file(paths.config / "gpumod.yaml", yaml_file_limit);
  if (text)
    assembly.add_settings("gpumod.yaml", *text);
  else
    assembly.complain(Severity::error, {"gpumod.yaml", 0, 0},
                      fmt::format("the file cannot be read: {}", text.error().message));
  assembly.limit_assistants_by_broken_settings();
}

std::string problems_of(const std::vector<Problem>& problems, const std::string& file) {
  std::vector<std::string> lines;
  for (const auto& problem : problems)
    if (problem.severity == Severity::error && problem.where.file == file && lines.size() < 10)
      lines.push_back(to_string(problem));
  return join(lines, "\n");
}

template <typename Value>
Result<const Value*> look_up(const Catalog& catalog, const char* noun, std::string_view id,
                             const std::map<std::string, Value>& defined,
                             const std::map<std::string, SourceLocation>& faults) {
  if (const auto found = defined.find(std::string(id)); found != defined.end()) return &found->second;
  if (const auto fault = faults.find(std::string(id)); fault != faults.end()) {
    const auto lines = problems_of(catalog.problems, fault->second.file);
    const auto first = lines.substr(0, lines.find('\n'));
    return fail(ErrorCode::configuration, fmt::format("the {} '{}' cannot be used: {}", noun, id, first),
                first.size() < lines.size() ? lines.substr(first.size() + 1) : "gpumod config check reads every file.");
  }
  std::vector<std::string> names;
  for (const auto& [name, value] : defined)
    names.push_back(name);
  return fail(ErrorCode::not_found, fmt::format("there is no {} '{}'", noun, printable(id.substr(0, 80))),
              did_you_mean(id, names));
}

}  // namespace

std::string to_string(const Problem& problem) {
  auto text = fmt::format("{}: {}: {}", printable(to_string(problem.where)),
                          problem.severity == Severity::error ? "error" : "warning", printable(problem.message));
  if (!problem.hint.empty()) {
    if (text.back() != '.') text += '.';
    text += ' ' + printable(problem.hint);
  }
  return text;
}

bool Catalog::has_errors() const {
  return std::any_of(problems.begin(), problems.end(), [](const Problem& p) { return p.severity == Severity::error; });
}

Result<const Service*> Catalog::service(std::string_view id) const {
  return look_up<Service>(*this, "service", id, services, service_faults);
}

Result<const Mode*> Catalog::mode(std::string_view id) const {
  return look_up<Mode>(*this, "mode", id, modes, mode_faults);
}

std::vector<const Service*> Catalog::services_of_unit(std::string_view unit) const {
  std::vector<const Service*> found;
  for (const auto& [id, service] : services)
    if (service.unit_name() == unit) found.push_back(&service);
  return found;
}

void inherit(const Catalog& catalog, Service& service) {
  service.inherited_args.clear();
  service.inherited_environment.clear();
  if (!service.unit.empty()) return;
  if (const auto settings = catalog.settings.engines.find(service.engine); settings != catalog.settings.engines.end()) {
    service.inherited_args = settings->second.extra_args;
    service.inherited_environment = settings->second.environment;
  }
  if (service.router.empty()) return;
  for (const auto* other : catalog.services_of_unit(service.unit_name())) {
    if (other->id == service.id) continue;
    service.inherited_args.insert(service.inherited_args.end(), other->extra_args.begin(), other->extra_args.end());
    for (const auto& [name, value] : other->environment)
      service.inherited_environment.insert_or_assign(name, value);
  }
}

namespace {
Surroundings surroundings_of(const Paths& paths, VariableLookup variables) {
  Surroundings around;
  around.config = paths.config;
  around.machine = variables ? std::move(variables) : variables_of_the_machine(paths);
  around.read = read_environment_text;
  return around;
}
}  // namespace

Settings load_settings(const Paths& paths, VariableLookup variables) {
  Assembly assembly(surroundings_of(paths, std::move(variables)));
  read_settings(assembly, paths);
  return assembly.finish().settings;
}

Result<Catalog> load_catalog(const Paths& paths, VariableLookup variables) {
  std::error_code problem;
  const auto status = fs::status(paths.config, problem);
  if (status.type() == fs::file_type::not_found) {
    // Ours need not be there yet. One that people named and that is not there is a slip, not an empty configuration.
    if (paths.config_named)
      return fail(ErrorCode::environment,
                  fmt::format("GPUMOD_CONFIG_DIR is {}, and there is no such folder", printable(paths.config.string())),
                  "Mend the variable; for a new configuration in that place: gpumod init.");
    return Catalog{};
  }
  if (!fs::is_directory(status))
    return fail(ErrorCode::environment, fmt::format("{} is not a directory", paths.config.string()),
                "Set GPUMOD_CONFIG_DIR to the folder that holds services/ and modes/.");
  fs::directory_iterator probe(paths.config, problem);
  if (problem)
    return fail(ErrorCode::environment, fmt::format("{} cannot be read: {}", paths.config.string(), problem.message()));

  std::set<fs::path> open_files;
  std::set<std::string> secrets;
  auto around = surroundings_of(paths, std::move(variables));
  around.read = [&](const fs::path& path) {
    auto file = read_environment_text(path);
    if (file && file->others_may_read) open_files.insert(path);
    if (!file) return file;
    for (const auto lines = parse_environment_file(file->text); const auto& [name, value] : lines.values)
      if (!value.starts_with('/') || names_a_secret(name)) {
        secrets.insert(value);
        for (const auto part : split_at(value, ','))
          if (names_a_secret(name)) secrets.emplace(trim(part));
      }
    return file;
  };
  Assembly assembly(std::move(around));
  read_settings(assembly, paths);
  const auto take_service = [&](const std::string& file, const std::string& text) {
    assembly.add_service_file(file, text);
  };
  const auto lose_service = [&](const std::string& file) { assembly.lose_service(stem_of(file), file); };
  const auto take_mode = [&](const std::string& file, const std::string& text) { assembly.add_mode_file(file, text); };
  const auto lose_mode = [&](const std::string& file) { assembly.lose_mode(stem_of(file), file); };
  // Our own folder first: a service that people have moved there stands, even while the old preset is still around.
  Folder(assembly, paths.config, take_service, lose_service).read("services", false);
  Folder(assembly, paths.config, take_service, lose_service).read("presets", true);
  Folder(assembly, paths.config, take_mode, lose_mode).read("modes", false);
  auto catalog = assembly.finish();
  catalog.open_env_files = std::move(open_files);
  catalog.secrets.merge(secrets);
  return catalog;
}

Catalog read_catalog_text(FileKind kind, std::string_view file_name, std::string_view text, VariableLookup variables) {
  Surroundings around;
  around.config = "/config";
  around.machine = std::move(variables);
  Assembly assembly(std::move(around));
  const std::string file(file_name);
  switch (kind) {
    case FileKind::service: assembly.add_service_file(file, text); break;
    case FileKind::mode: assembly.add_mode_file(file, text); break;
    case FileKind::settings: assembly.add_settings(file, text); break;
  }
  return assembly.finish();
}

fs::path path_of(const Paths& paths, const SourceLocation& source) {
  return (paths.config / source.file).lexically_normal();
}

}  // namespace gpumod
