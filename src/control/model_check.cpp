#include "control/model_check.h"

#include <algorithm>
#include <charconv>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/fd.h"
#include "base/paths.h"
#include "base/text.h"
#include "control/interpreter.h"
#include "control/model_place.h"
#include "control/unit_files.h"
#include "engines/engine.h"
#include "engines/hub.h"
#include "formats/elf.h"
#include "formats/gguf_facts.h"
#include "formats/hf_model.h"
#include "formats/model_files.h"
#include "formats/model_kind.h"
#include "formats/safetensors.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

constexpr std::size_t config_limit = 4 << 20;

/// The file that the loader takes for a library that `asking`, a program or another library, needs. Only what that says
/// itself counts; empty where it leaves that open.
fs::path file_of_library(const fs::path& asking, std::string_view search, const std::string& library) {
  std::error_code problem;
  for (const auto part : split_at(search, ':')) {
    std::string folder(part);
    for (std::string_view origin : {"$ORIGIN", "${ORIGIN}"})
      if (folder.starts_with(origin)) folder.replace(0, origin.size(), asking.parent_path().native());
    const bool plain = folder.starts_with('/') && folder.find('$') == std::string::npos;
    if (!plain || fs::exists(fs::path(folder) / "glibc-hwcaps", problem)) return {};
    if (auto file = fs::path(folder) / library; fs::exists(file, problem)) return file;
  }
  return {};
}

/// The library of llama.cpp that a program loads, by itself or through another one of llama.cpp's: its newer programs are
/// no more than a call into libllama-server-impl.so. The loader asks in this order too: what a program needs before what
/// those need, and the first that is asked for by a name is it for everybody. Empty where that cannot be told.
fs::path libllama_of(const fs::path& program) {
  constexpr std::size_t most_asked = 8;  // llama-server, its -impl, -common, mtmd
  std::vector<fs::path> asking{program};
  for (std::size_t next = 0; next < asking.size() && next < most_asked; ++next) {
    std::error_code problem;
    const auto real = fs::canonical(asking[next], problem);  // as $ORIGIN is
    const auto source = open_byte_source(real);
    const auto libraries = problem || !source ? Result<ProgramLibraries>() : read_program_libraries(**source);
    if (!libraries) return {};
    for (const auto& each : libraries->needed)
      if (each == "libllama.so" || each.starts_with("libllama.so."))
        return file_of_library(real, libraries->search, each);
    for (const auto& each : libraries->needed) {
      if (!each.starts_with("libllama")) continue;
      asking.push_back(file_of_library(real, libraries->search, each));
      if (asking.back().empty()) return {};
    }
  }
  return {};
}

class ModelCheck {
 public:
  ModelCheck(const Service& service, const Additions& added, const fs::path& home, const fs::path& binary)
      : service_(service), added_(added), home_(home), binary_(binary) {}

  std::vector<Error> run() {
    const auto place = place_of_model(service_, added_, home_);
    if (service_.llama())
      llama(place);
    else if (service_.vllm())
      vllm(place);
    return std::move(problems_);
  }

 private:
  std::string source() const { return to_string(service_.source); }

  void add(std::string_view what, std::string hint) {
    problems_.push_back({ErrorCode::refused, fmt::format("service '{}': {}", service_.id, what), std::move(hint), {}});
  }
  std::string correct_path() const { return fmt::format("Correct the path in {}, or put the model there.", source()); }

  /// One problem for all files that are missing: of a model of a hundred parts there may be a hundred.
  bool whole(const ModelFiles& files, const std::string& hint) {
    const auto problems = files.obstacles();
    if (problems.empty()) return true;
    const auto more = problems.size() > 1 ? fmt::format(" (and {} more of its files)", problems.size() - 1) : "";
    add(fmt::format("model {}{}", problems.front(), more), hint);
    return false;
  }

  // --- llama.cpp

  void llama(const std::optional<ModelPlace>& place) {
    const auto& options = *service_.llama();
    if (!options.models_dir.empty() && !has_flag("--models-dir") && !readable_folder(options.models_dir)) return;
    if (!options.models_preset.empty()) {
      const auto preset = look_at_model_file(options.models_preset);
      if (!preset.problem.empty())
        add(fmt::format("models_preset {} {}", preset.path.string(), preset.problem), correct_path());
    }
    named_files();
    if (!place || place->path.empty() || !place->hub_id.empty()) return;  // which file of it, llama-server knows
    std::error_code problem;
    const bool below_router = service_.in_router() && service_.model.path.empty();
    if (below_router && !fs::exists(fs::symlink_status(place->path, problem))) return not_in_router(*place);
    const auto files = files_of_model(place->path);
    if (!service_.in_router() && fs::is_directory(place->path, problem))
      return add(fmt::format("model {} is a folder, and llama-server takes a file", place->path.string()),
                 fmt::format("Name the GGUF file in {}.", source()));
    // A folder with several models, of which only the router knows which one it takes.
    if (files.layout != ModelLayout::gguf && fs::is_directory(place->path, problem)) return;
    if (files.files.empty() || !whole(files, correct_path())) return;
    header_of(files.files.front().path);
  }

  bool readable_folder(const fs::path& folder) {
    std::error_code problem;
    const auto found = look_at_model_file(folder);
    if (found.problem == "is a folder") {
      fs::directory_iterator readable(folder, problem);
      if (!problem) return true;
      add(fmt::format("models_dir {} cannot be read by you", folder.string()), correct_path());
    } else if (found.problem.empty()) {
      add(fmt::format("models_dir {} is no folder", folder.string()), correct_path());
    } else {
      add(fmt::format("models_dir {} {}", folder.string(), found.problem), correct_path());
    }
    return false;
  }

  void not_in_router(const ModelPlace& place) {
    const auto& folder = service_.llama()->models_dir;
    std::vector<std::string> known;
    std::error_code problem;
    for (fs::directory_iterator each(folder, problem), end; !problem && each != end && known.size() < 1000;
         each.increment(problem)) {
      const auto name = each->path().filename().string();
      if (each->is_directory(problem))
        known.push_back(name);
      else if (name.ends_with(".gguf") && !is_projector_name(name))
        known.push_back(each->path().stem().string());
    }
    add(fmt::format("model {} is not there, and no folder of that name", place.path.string()),
        known.empty() ? fmt::format("{} holds no model: put the file there.", folder.string())
                      : did_you_mean(model_name(service_), known));
  }

  /// Files that the command line names beside the model. Of options that take one file the last counts.
  void named_files() {
    const auto last = [this](OptionNames names) {
      if (const auto path = option_value(added_.words, names)) named_file(*names.begin(), *path);
    };
    last({"--mmproj", "-mm"});
    last({"--model-draft", "-md"});
    last({"--grammar-file"});
    last({"--chat-template-file"});
    const auto& words = added_.words;
    for (std::size_t i = 0; i + 1 < words.size(); ++i)
      if (words[i] == "--lora") adapters(words[i + 1]);
  }

  /// Builds of today take several between commas; to those of before, the commas belong to the name.
  void adapters(const std::string& paths) {
    std::error_code problem;
    if (fs::exists(paths, problem)) return named_file("--lora", paths);
    for (const auto part : split_at(paths, ','))
      named_file("--lora", part);
  }

  void named_file(std::string_view option, const fs::path& path) {
    if (!path.is_absolute()) return;  // relative to where it will run
    const auto file = look_at_model_file(path);
    if (!file.problem.empty())
      add(fmt::format("{} {} {}", option, path.string(), file.problem), correct_arguments(path));
  }

  std::string correct_arguments(const fs::path& path) const {
    const auto& own = service_.extra_args;
    const bool here = std::any_of(
        own.begin(), own.end(), [&](const std::string& word) { return word.find(path.native()) != std::string::npos; });
    return fmt::format("Correct extra_args in {}.", here ? source()
                                                    : service_.in_router()
                                                        ? "gpumod.yaml, or of the router's other models"
                                                        : "gpumod.yaml");
  }

  void header_of(const fs::path& path) {
    const auto model = read_gguf_model(path);
    if (!model) return add(fmt::format("model {}", model.error().message), model_is_broken());
    const auto* header = &model->parts.front();
    const auto architecture = header->text("general.architecture"), type = header->text("general.type");
    if (architecture == "clip" || type == "mmproj" || type == "adapter" || type == "imatrix")
      return add(fmt::format("{} is no model but {}", path.string(),
                             type == "adapter"   ? "an adapter (LoRA)"
                             : type == "imatrix" ? "an importance matrix"
                                                 : "a projector (mmproj)"),
                 fmt::format("Name the model itself in {}; this file goes into extra_args.", source()));
    const bool no_weights = std::all_of(model->parts.begin(), model->parts.end(),
                                        [](const GgufFile& part) { return part.tensors.empty(); });
    if (no_weights && header->find("tokenizer.ggml.tokens"))
      return add(
          fmt::format("{} holds a vocabulary and no weights: there is no model in it that could run", path.string()),
          fmt::format("Name the model itself in {}.", source()));
    architecture_known(architecture);
  }

  std::string model_is_broken() const {
    return fmt::format(
        "The file is damaged or its download was not finished: fetch it again, or correct the path in {}.", source());
  }

  /// llama.cpp has the name of each architecture that it knows in its library.
  void architecture_known(const std::string& architecture) {
    if (architecture.empty() || binary_.empty()) return;
    for (const char* name : {"LD_LIBRARY_PATH", "LD_PRELOAD"})  // then it may load another one
      if (added_.environment.contains(name) || !environment_variable(name).empty()) return;
    const auto library = libllama_of(binary_);
    const auto text = library.empty() ? Result<std::string>() : read_file(library, 256 << 20);
    if (!text || text->find("general.architecture") == std::string::npos) return;
    if (text->find(std::string_view(architecture.c_str(), architecture.size() + 1)) == std::string::npos)
      add(fmt::format("{} does not know the architecture {} of its model", binary_.string(), architecture),
          "Update llama.cpp.");
  }

  // --- vLLM

  void vllm(const std::optional<ModelPlace>& place) {
    flags_agree();
    tokenizers_work();
    if (!place) return;
    if (!place->hub_id.empty()) {
      if (place->may_download) return;
      std::error_code problem;
      const auto download = fmt::format("Download it first: {}", download_command(place->hub_id));
      const auto described = [&](const char* name) { return fs::exists(place->path / name, problem); };
      if (place->path.empty() || (!described("config.json") && !described("params.json")))
        return add(fmt::format("model {} is not in the cache {}", place->hub_id, place->hub_root.string()), download);
      return folder(place->path, fmt::format("Its download was not finished. {}", download));
    }
    std::error_code problem;
    if (fs::is_directory(place->path, problem)) return folder(place->path, correct_path());
    const auto file = look_at_model_file(place->path);
    if (!file.problem.empty())
      return add(fmt::format("model {} {}", place->path.string(), file.problem), correct_path());
    if (place->path.extension() == ".gguf") header_of(place->path);
  }

  bool has_flag(std::string_view flag) const { return has_option(added_.words, {flag}); }

  void flags_agree() {
    const bool sleeps = service_.sleep == SleepAbility::level1 || service_.sleep == SleepAbility::level2;
    if (sleeps && has_flag("--no-enable-sleep-mode"))
      add("it is to sleep, and extra_args has --no-enable-sleep-mode",
          fmt::format("Remove that, or write `sleep: none` in {}.", source()));
  }

  /// Until 0.12, vLLM read an attribute of every tokenizer that transformers 5 no longer has (vllm#29686).
  void tokenizers_work() {
    if (binary_.empty()) return;
    const auto vllm = installed_package_version(binary_, "vllm");
    const auto transformers = installed_package_version(binary_, "transformers");
    if (is_at_least(vllm, 0, 0) && !is_at_least(vllm, 0, 12) && is_at_least(transformers, 5, 0))
      add(fmt::format("vLLM {} fails on every tokenizer with transformers {}, which is installed beside it", vllm,
                      transformers),
          "Install 'transformers<5' into that environment, or update vLLM.");
  }

  void folder(const fs::path& path, const std::string& hint) {
    auto files = files_of_model(path);
    if (files.layout == ModelLayout::gguf) {
      if (whole(files, hint)) header_of(files.files.front().path);
      return;
    }
    std::error_code problem;
    if (files.layout == ModelLayout::local) {
      // Mistral's own layout, and a configuration that is somewhere else.
      if (fs::exists(path / "params.json", problem) || has_flag("--hf-config-path")) return;
      return add(fmt::format("model {} holds no config.json", path.string()), hint);
    }
    // Another format takes other files than the index names; and what a file of arguments says is not known here.
    if (has_option(added_.words, {"--load-format", "--config"})) return configuration(path / "config.json", hint);
    const bool own_tokenizer =
        !has_option(added_.words, {"--tokenizer", "--tokenizer-mode", "--skip-tokenizer-init", "--hf-config-path"});
    if (!own_tokenizer)
      std::erase_if(files.files, [](const ModelFile& file) { return file.role == ModelFile::Role::configuration; });
    if (!whole(files, hint)) return;
    for (const auto& file : files.files)
      if (file.role == ModelFile::Role::weights && !sane_shard(file.path, hint)) return;
    if (!has_flag("--hf-config-path")) configuration(path / "config.json", hint);
  }

  bool sane_shard(const fs::path& path, const std::string& hint) {
    const auto source = open_byte_source(path);
    if (!source) return true;  // it was looked at before: what has changed since is the engine's to find
    const auto tensors = read_safetensors(**source);
    if (tensors) return true;
    add(fmt::format("model {}", tensors.error().message), hint);
    return false;
  }

  void configuration(const fs::path& path, const std::string& hint) {
    const auto text = read_file(path, config_limit);
    if (!text) return add(fmt::format("model {}", text.error().message), hint);
    boost::system::error_code malformed;
    if (!json::parse(*text, malformed).is_object() || malformed)
      return add(fmt::format("model {} is no JSON object", path.string()), model_is_broken());
    const auto facts = facts_of_hf_config(printable(path.string()), *text);
    if (!facts) return;  // an architecture that is read otherwise than here
    const auto gpus = service_.vllm()->tensor_parallel_size.value_or(1);
    for (const auto& layer : facts->layers)
      if (gpus > 1 && layer.attention && layer.heads % static_cast<unsigned>(gpus) != 0)
        return add(fmt::format("tensor_parallel_size is {}, and the model's {} attention heads cannot be divided by it",
                               gpus, layer.heads),
                   fmt::format("Correct it in {}.", source()));
  }

  const Service& service_;
  const Additions& added_;
  const fs::path& home_;
  const fs::path& binary_;
  std::vector<Error> problems_;
};

}  // namespace

std::vector<Error> model_problems(const Service& service, const Additions& added, const fs::path& home,
                                  const fs::path& binary) {
  return ModelCheck(service, added, home, binary).run();
}

namespace {

/// Where the packages lie that a program of a virtual environment imports; empty where several folders could be meant.
fs::path site_packages_of(const fs::path& binary) {
  std::error_code problem;
  const auto real = fs::canonical(binary, problem);  // it may be a link into an environment
  if (problem) return {};
  fs::path python = interpreter_of(real);
  if (!python.is_absolute() || !python.filename().string().starts_with("python"))
    python = real.parent_path() / "python";
  const auto library = python.parent_path().parent_path() / "lib";
  // The environment's own python is a link to one that has its version in its name.
  const auto versioned = fs::canonical(python, problem).filename().string();
  if (versioned.starts_with("python3."))
    if (auto folder = library / versioned / "site-packages"; fs::is_directory(folder, problem)) return folder;
  std::vector<fs::path> found;
  for (fs::directory_iterator each(library, problem), end; !problem && each != end; each.increment(problem)) {
    std::error_code unreadable;
    if (each->path().filename().string().starts_with("python") &&
        fs::is_directory(each->path() / "site-packages", unreadable))
      found.push_back(each->path() / "site-packages");
  }
  return found.size() == 1 ? found.front() : fs::path();
}

}  // namespace

std::string installed_package_version(const fs::path& binary, std::string_view package) {
  const auto prefix = fmt::format("{}-", package);
  constexpr std::string_view suffix = ".dist-info";
  std::error_code problem;
  for (fs::directory_iterator each(site_packages_of(binary), problem), end; !problem && each != end;
       each.increment(problem)) {
    const auto name = each->path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(suffix))
      return printable(name.substr(prefix.size(), name.size() - prefix.size() - suffix.size()));
  }
  return {};
}

bool is_at_least(std::string_view version, int major, int minor) {
  int is_major = 0, is_minor = 0;
  const auto* end = version.data() + version.size();
  const auto [dot, bad_major] = std::from_chars(version.data(), end, is_major);
  if (bad_major != std::errc() || dot == end || *dot != '.') return false;
  if (std::from_chars(dot + 1, end, is_minor).ec != std::errc()) return false;
  return is_major != major ? is_major > major : is_minor >= minor;
}

std::vector<Error> adopted_unit_problems(const Paths& paths, const Service& service, const fs::path& fragment) {
  const bool sleeps = service.sleep == SleepAbility::level1 || service.sleep == SleepAbility::level2;
  if (!service.vllm() || !sleeps || fragment.empty()) return {};
  for (const auto& folder : drop_in_folders(paths, service.unit))
    if (is_there(folder)) return {};  // it may say otherwise
  const auto text = read_file(fragment, 1 << 20);
  if (!text) return {};
  std::string command;
  bool goes_on = false;
  for (const auto line : split_lines(*text)) {
    if (goes_on || trim(line).starts_with("ExecStart=")) command += std::string(line) + " ";
    goes_on = !command.empty() && (goes_on || trim(line).starts_with("ExecStart=")) && line.ends_with('\\');
  }
  // A variable may hold the flag, a script may add it, and a file of arguments may name it.
  const bool plain = command.find("vllm serve") != std::string::npos && command.find('$') == std::string::npos &&
                     command.find("--config") == std::string::npos;
  std::replace(command.begin(), command.end(), '_', '-');  // as vLLM reads its flags
  if (!plain || command.find("--enable-sleep-mode") != std::string::npos) return {};
  return {{ErrorCode::refused,
           fmt::format("service '{}' is to sleep, and {} starts vLLM without --enable-sleep-mode", service.id,
                       service.unit),
           fmt::format("Add the flag and Environment=VLLM_SERVER_DEV_MODE=1 to {}, or write `sleep: none` in {}.",
                       fragment.string(), to_string(service.source)),
           {}}};
}

}  // namespace gpumod
