#include "verbs/propose.h"

#include <algorithm>
#include <cmath>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "engines/hub.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

constexpr std::uint16_t first_port = 7070;
constexpr std::size_t services_at_most = 12;
constexpr std::int64_t usual_context = 8192;

std::string size_text(Bytes size) {
  const double gib = static_cast<double>(size.count()) / static_cast<double>(Bytes::gib(1).count());
  return gib >= 0.95 ? fmt::format("{:.1f} GiB", gib) : fmt::format("{} MiB", std::max<std::int64_t>(1, size.to_mib()));
}

/// Loading is bound by the disk: 100 MB a second is a slow one.
std::int64_t startup_seconds(Bytes size, std::int64_t least) {
  const auto loading = size.count() / 100'000'000 + 30;
  return std::max(least, (loading + 29) / 30 * 30);
}

bool same_path(const fs::path& a, const fs::path& b) {
  return !a.empty() && a.lexically_normal() == b.lexically_normal();
}

bool lies_in(const fs::path& folder, const fs::path& path) {
  const auto relative = path.lexically_normal().lexically_relative(folder.lexically_normal());
  return !folder.empty() && !relative.empty() && *relative.begin() != "..";
}

/// A service to be: enough to name it in modes and in advice.
struct Planned {
  std::string id;
  ModelKind kind = ModelKind::chat;
  bool certain = false;
  std::string text;
  std::uint16_t port = 0;
  std::string model_name;  ///< as requests carry it
  bool api = true;         ///< it answers /v1/chat/completions
  bool can_run = true;     ///< its program was found
};

class Proposer {
 public:
  Proposer(const Findings& findings, const Ground& ground)
      : findings_(findings), ground_(ground), catalog_(*ground.catalog) {
    for (const auto& [id, service] : catalog_.services)
      taken_ports_.insert(service.port);
    taken_ports_.insert(ground.busy_ports.begin(), ground.busy_ports.end());
    for (const auto& unit : findings.units)
      taken_ports_.insert(unit.guess.port.value_or(unit.guess.usual_port));
  }

  Proposal run() {
    settings();
    for (const auto& unit : findings_.units)
      adopt(unit);
    for (const auto& model : findings_.models)
      serve(model);
    if (findings_.engine(EngineKind::vllm))
      for (const auto& model : findings_.hub)
        serve(model);
    for (const auto& planned : planned_)
      proposal_.files.push_back({"services/" + planned.id + ".yaml", planned.text});
    modes();
    if (planned_.empty() && catalog_.services.empty() && catalog_.broken_services.empty()) example();
    advise();
    return std::move(proposal_);
  }

 private:
  void advice(std::string text) { proposal_.advice.push_back(std::move(text)); }

  // --- names and numbers

  bool is_free(const std::string& id) const {
    const bool known = catalog_.services.contains(id) || catalog_.broken_services.contains(id);
    const bool planned =
        std::any_of(planned_.begin(), planned_.end(), [&](const Planned& each) { return each.id == id; });
    return !known && !planned && !ground_.exists("services/" + id + ".yaml");
  }

  /// A unit of that name would be taken for the service's own, and starting be refused: see preflight.
  std::string new_id(std::string_view stem, const std::string& own_unit = {}) const {
    const auto base = id_from(stem);
    for (int number = 1;; ++number) {
      const auto suffix = number == 1 ? std::string() : fmt::format("-{}", number);
      auto id = base.substr(0, 64 - suffix.size()) + suffix;
      const auto unit = id + ".service";
      if (is_free(id) && (unit == own_unit || !findings_.unit_names.contains(unit))) return id;
    }
  }

  std::uint16_t new_port() {
    std::uint16_t port = first_port;
    while (taken_ports_.contains(port) && port < 65535)
      ++port;
    taken_ports_.insert(port);
    return port;
  }

  bool room_left() const { return planned_.size() < services_at_most; }

  // --- gpumod.yaml

  void settings() {
    const auto* llama = findings_.engine(EngineKind::llamacpp);
    const auto* vllm = findings_.engine(EngineKind::vllm);
    const bool exists = ground_.exists("gpumod.yaml");
    std::string text =
        "# Settings of gpumod, for all services. Every line may be left out.\n"
        "\n"
        "# Memory on each GPU that is never given away.\n"
        "vram_margin: 512 MiB\n"
        "\n"
        "# Who runs the services: systemd (your user manager), or local (gpumod's own supervisor).\n";
    text += ground_.unit_manager == "local" ? "unit_manager: local\n" : "# unit_manager: systemd\n";
    std::string engines;
    const auto add = [&](const FoundEngine* engine, std::string_view name) {
      if (!engine || engine->in_path) return;
      if (exists)
        binaries_[engine->engine] = missing_[engine->engine] = engine->binary;
      else
        engines += fmt::format("  {}:\n    binary: {}\n", name, yaml_text(engine->binary.string()));
    };
    const auto settled = [&](EngineKind kind) {
      const auto found = catalog_.settings.engines.find(kind);
      return found != catalog_.settings.engines.end() && !found->second.binary.empty();
    };
    if (!settled(EngineKind::llamacpp)) add(llama, "llamacpp");
    if (!settled(EngineKind::vllm)) add(vllm, "vllm");
    if (!engines.empty()) text += "\n# Where the programs are: not every PATH leads to them.\nengines:\n" + engines;
    proposal_.files.push_back({"gpumod.yaml", text});
    if (exists && ground_.unit_manager == "local" && catalog_.settings.unit_manager != UnitManagerKind::local)
      advice("No systemd user manager answers here: write 'unit_manager: local' into gpumod.yaml.");
    std::erase_if(missing_, [&](const auto& entry) { return needs_no_setting(entry.first); });
    if (!missing_.empty()) say_what_to_add();
  }

  /// Where every service of the engine says itself where its program is.
  bool needs_no_setting(EngineKind kind) const {
    std::size_t of_the_kind = 0, without = 0;
    for (const auto& [id, service] : catalog_.services) {
      if (service.engine != kind || !service.unit.empty()) continue;
      ++of_the_kind;
      without += service.binary.empty() ? 1 : 0;
    }
    return of_the_kind > 0 && without == 0;
  }

  /// gpumod.yaml is never written again, so what was installed since is for its owner to add.
  void say_what_to_add() {
    const bool has_block = !catalog_.settings.engines.empty();
    std::vector<std::string> names;
    std::string lines = has_block ? "" : "engines:\n";
    for (const auto& [kind, binary] : missing_) {
      names.push_back(fmt::format("{} ({})", program_of(kind), binary.string()));
      const auto settings = catalog_.settings.engines.find(kind);
      lines += settings == catalog_.settings.engines.end()
                   ? fmt::format("  {}:\n", to_string(kind))
                   : fmt::format("  {}:  # it is there already\n", to_string(kind));
      lines += fmt::format("    binary: {}\n", yaml_text(binary.string()));
    }
    lines.pop_back();
    advice(fmt::format("{} {} not where every PATH leads, and your {} does not say where {}. Add {}:\n{}",
                       join(names, " and "), names.size() == 1 ? "is" : "are", ground_.settings_file,
                       names.size() == 1 ? "it is" : "they are",
                       has_block ? "there, below the line `engines:`" : "at its end", lines));
  }

  static std::string_view program_of(EngineKind kind) { return kind == EngineKind::llamacpp ? "llama-server" : "vllm"; }

  /// gpumod.yaml is people's: where it stands already, a service says itself where its program is.
  std::string binary_line(EngineKind kind) const {
    const auto found = binaries_.find(kind);
    return found == binaries_.end()
               ? ""
               : fmt::format("\n# Not every PATH leads to it.\nbinary: {}\n", yaml_text(found->second.string()));
  }

  // --- services

  bool is_served(const fs::path& model) const {
    for (const auto& [id, service] : catalog_.services)
      if (same_path(service.model.path, model) || (service.llama() && lies_in(service.llama()->models_dir, model)))
        return true;
    return std::any_of(findings_.units.begin(), findings_.units.end(),
                       [&](const FoundUnit& unit) { return same_path(unit.guess.model, model); });
  }

  void adopt(const FoundUnit& unit) {
    const auto stem = unit.name.substr(0, unit.name.rfind('.'));
    for (const auto& [id, service] : catalog_.services) {
      if (service.unit == unit.name) return;
      if (id == stem)
        return advice(
            fmt::format("Your unit {} has the name of the service '{}': add 'unit: {}' to {} to adopt it. Until then "
                        "starting that service is refused.",
                        unit.name, id, unit.name, service.source.file));
    }
    if (!room_left()) return left_out(unit.name);
    const auto& guess = unit.guess;
    const bool generic = guess.engine == EngineKind::command || guess.router;
    Planned planned;
    planned.id = new_id(stem, unit.name);
    planned.port = guess.port.value_or(guess.usual_port);
    planned.certain = true;
    planned.api = !generic && guess.engine != EngineKind::fastapi;
    planned.kind = guess.embedding || !planned.api ? ModelKind::embedding : ModelKind::chat;
    auto& text = planned.text;
    text = fmt::format(
        "# Your own unit {}, adopted as it stands: gpumod starts and stops it, and never changes it.\n"
        "# Its command line says {}; correct here what was read wrongly.\n"
        "engine: {}\nunit: {}\n",
        unit.name, guess.server, generic ? "command" : to_string(guess.engine), unit.name);
    text += fmt::format(
        "port: {}{}\n", planned.port,
        guess.port ? "" : fmt::format("  # its command line names none: this is what {} uses then", guess.server));
    if (!guess.host.empty() && guess.host != "127.0.0.1") text += fmt::format("host: {}\n", yaml_text(guess.host));
    if (generic) {
      text += guess.router ? "# A router of several models, started and stopped as one.\n" : "";
      text += fmt::format("health: {}\nprobe: none\n", guess.server == "ollama" ? "/" : "/health");
    } else {
      adopted_model(guess, planned);
    }
    if (guess.engine == EngineKind::vllm) text += "startup_timeout: 300s\n";
    if (guess.engine == EngineKind::llamacpp) text += "startup_timeout: 180s\n";
    text += "\n# GPU memory at its peak. Once you know it, declare it: gpumod then plans with it.\n# vram: 8 GiB\n";
    planned_.push_back(std::move(planned));
  }

  static void adopted_model(const UnitGuess& guess, Planned& planned) {
    const auto repository = guess.model.substr(0, guess.model.find(':'));
    const bool path = guess.model.starts_with('/');
    if (path || is_hub_id(repository)) {
      if (guess.served_name.empty())
        planned.text += fmt::format("model: {}\n", yaml_text(guess.model));
      else
        planned.text += fmt::format("model:\n  {}: {}\n  served_name: {}\n", path ? "path" : "id",
                                    yaml_text(guess.model), yaml_text(guess.served_name));
      planned.model_name = !guess.served_name.empty()                     ? guess.served_name
                           : path && guess.engine == EngineKind::llamacpp ? fs::path(guess.model).stem().string()
                                                                          : guess.model;
    }
    if (guess.utilization)
      planned.text += fmt::format("# What it takes of the GPU, as its command line says.\ngpu_memory_utilization: {}\n",
                                  *guess.utilization);
    if (guess.embedding) planned.text += guess.engine == EngineKind::vllm ? "runner: pooling\n" : "embeddings: true\n";
  }

  void serve(const FoundModel& model) {
    if (is_served(model.path)) return;
    if (!room_left()) return left_out(model.path.string());
    Planned planned;
    planned.kind = model.guess.kind;
    planned.certain = model.guess.certain;
    auto stem = model.path.stem().string();
    if (const auto part = stem.rfind("-00001-of-"); part != std::string::npos) stem.resize(part);
    planned.id = new_id(stem);
    planned.port = new_port();
    planned.model_name = model.path.stem().string();
    const auto* program = findings_.engine(EngineKind::llamacpp);
    planned.can_run = program && program->problem.empty();
    auto& text = planned.text;
    text = fmt::format("# {} ({}), found by gpumod init. The file is yours: change what you like.\n",
                       model.path.filename().string(), size_text(model.size));
    text += fmt::format("engine: llamacpp\nmodel: {}\nport: {}\n", yaml_text(model.path.string()), planned.port);
    text += kind_lines(model);
    text += context_lines(model);
    text += gpu_lines(model);
    if (const auto seconds = startup_seconds(model.size, 60); seconds > 60)
      text += fmt::format("\n# It is large: a slow disk needs this long.\nstartup_timeout: {}s\n", seconds);
    text += binary_line(EngineKind::llamacpp);
    planned_.push_back(std::move(planned));
  }

  static std::string kind_lines(const FoundModel& model) {
    const std::string sure = model.guess.certain ? "" : " Its name says so; remove this if it is a chat model.";
    if (model.guess.kind == ModelKind::embedding)
      return fmt::format(
          "\n# It makes embeddings (numbers that stand for a text) and does not chat.{}\nembeddings: true\n", sure);
    if (model.guess.kind == ModelKind::reranker)
      return fmt::format(
          "\n# It orders documents by how well they fit a question (/v1/rerank).{}\nextra_args: [--reranking]\n"
          "probe: none  # gpumod has no question for such a model\n",
          sure);
    return {};
  }

  static std::string context_lines(const FoundModel& model) {
    const auto trained = model.context ? fmt::format(" The model knows up to {}.", *model.context) : std::string();
    if (model.guess.kind != ModelKind::chat && !model.context) return {};
    return fmt::format("\n# How much text it keeps in mind, in tokens; more takes more memory.{}\ncontext_size: {}\n",
                       trained, std::min(usual_context, model.context.value_or(usual_context)));
  }

  std::string gpu_lines(const FoundModel& model) const {
    if (ground_.gpus.value_or(0) == 0) return {};
    const bool too_large = ground_.largest_gpu && model.size.count() > ground_.largest_gpu->count() / 10 * 9;
    std::string text;
    if (too_large)
      text = fmt::format(
          "\n# The file is about as large as the largest GPU ({}), or larger: llama-server decides how much of it goes "
          "there.\n"
          "# Pin that with gpu_layers: or n_cpu_moe:, or use a smaller quantization.\n# gpu_layers: 30\n",
          to_string(*ground_.largest_gpu));
    else
      text =
          "\n# Every layer on the GPU. Left out, llama-server takes what happens to be free and may run slowly for "
          "ever.\n"
          "gpu_layers: 999\n";
    return text +
           "\n# GPU memory at its peak. Once you know it (gpumod status shows it), declare it: gpumod then plans with "
           "it.\n# vram: 8 GiB\n";
  }

  void serve(const FoundHubModel& model) {
    if (model.kind == ModelKind::unusable) return;
    for (const auto& [id, service] : catalog_.services)
      if (service.model.id == model.id || lies_in(model.snapshot, service.model.path)) return;
    for (const auto& unit : findings_.units)
      if (unit.guess.model == model.id) return;
    if (!room_left()) return left_out(model.id);
    Planned planned;
    planned.kind = model.kind;
    planned.certain = true;
    planned.id = new_id(model.id.substr(model.id.find('/') + 1));
    planned.port = new_port();
    planned.model_name = model.id;
    auto& text = planned.text;
    text = fmt::format(
        "# {}, found in the Hugging Face cache by gpumod init. The file is yours: change what you like.\n", model.id);
    text += fmt::format("engine: vllm\nmodel: {}\nport: {}\n", yaml_text(model.id), planned.port);
    if (model.kind != ModelKind::chat) {
      text += "\n# It does not chat: it turns texts into numbers.\nrunner: pooling\n";
      if (model.kind == ModelKind::reranker) text += "probe: none  # gpumod has no question for a reranker\n";
    }
    text +=
        "\n# The part of the GPU that it takes, whatever the model needs. vLLM starts only when so much is free.\n"
        "gpu_memory_utilization: 0.85\n";
    if (model.context)
      text +=
          fmt::format("\n# How much text it keeps in mind, in tokens. The model knows up to {}.\nmax_model_len: {}\n",
                      *model.context, std::min(usual_context, *model.context));
    text += "\n# It compiles itself at its first start.\nstartup_timeout: 600s\n";
    text += binary_line(EngineKind::vllm);
    planned_.push_back(std::move(planned));
  }

  void left_out(std::string what) { left_out_.push_back(std::move(what)); }

  // --- modes

  bool is_free_mode(const std::string& id) const {
    return !catalog_.modes.contains(id) && !catalog_.broken_modes.contains(id) &&
           !ground_.exists("modes/" + id + ".yaml");
  }

  void modes() {
    if (is_free_mode("blank") || ground_.exists("modes/blank.yaml"))
      proposal_.files.push_back({"modes/blank.yaml",
                                 "# Nothing runs: `gpumod mode switch blank` frees the GPU.\n"
                                 "description: Nothing of gpumod's runs\n"
                                 "services: []\n"});
    // A helper that is surely an embedding model, and the only one, runs beside every chat model.
    std::vector<const Planned*> embeddings, chats;
    for (const auto& each : planned_) {
      if (each.kind == ModelKind::embedding && each.certain && each.api) embeddings.push_back(&each);
      if (each.kind == ModelKind::chat) chats.push_back(&each);
    }
    const auto* helper = embeddings.size() == 1 && !chats.empty() ? embeddings.front() : nullptr;
    for (const auto& each : planned_) {
      if (&each == helper) continue;
      std::string id = each.id;
      for (int number = 2; !is_free_mode(id) || id == "blank"; ++number)
        id = fmt::format("{}-{}", each.id.substr(0, 60), number);
      std::string text = fmt::format(
          "# `gpumod mode switch {}` starts these services and stops all others.\n"
          "description: {}\n"
          "services:\n  - {}\n",
          id,
          yaml_text(each.kind == ModelKind::chat ? fmt::format("Chat with {}", each.id)
                                                 : fmt::format("{} by itself", each.id)),
          yaml_text(each.id));
      if (helper && each.kind == ModelKind::chat)
        text += fmt::format(
            "  # The one embedding model that was found, for searching in documents. Remove the line to do without "
            "it.\n  - {}\n",
            yaml_text(helper->id));
      proposal_.files.push_back({"modes/" + id + ".yaml", std::move(text)});
      if (!each.can_run) continue;  // not the thing to try next
      if (each.kind == ModelKind::chat && each.api && first_mode_.empty()) first_mode_ = id, first_ = &each;
      if (any_mode_.empty()) any_mode_ = id;
    }
  }

  void example() {
    proposal_.files.push_back({"services/example.yaml.off",
                               "# An example. gpumod does not read it, because of how its name ends: fill in your "
                               "model and rename it to chat.yaml.\n"
                               "# Then `gpumod mode create chat --services chat` and `gpumod mode switch chat`.\n"
                               "engine: llamacpp\n"
                               "model: ~/models/MODEL.gguf\n"
                               "port: 7070\n"
                               "\n"
                               "# How much text it keeps in mind, in tokens; more takes more memory.\n"
                               "context_size: 8192\n"
                               "\n"
                               "# Every layer on the GPU. Leave it out on a machine without one.\n"
                               "gpu_layers: 999\n"
                               "\n"
                               "# Where llama-server is, when it is not in PATH.\n"
                               "# binary: ~/llama.cpp/build/bin/llama-server\n"
                               "\n"
                               "# GPU memory at its peak. Once you know it, declare it: gpumod then plans with it.\n"
                               "# vram: 8 GiB\n"});
  }

  // --- advice

  void advise() {
    programs();
    if (findings_.models.empty() && findings_.hub.empty() && findings_.units.empty()) {
      std::vector<std::string> folders;
      for (const auto& folder : findings_.searched)
        folders.push_back(folder.string());
      advice(
          fmt::format("No GGUF file and no model in the Hugging Face cache was found. Looked in: {}. Put a model into "
                      "~/models, or name "
                      "its folder: gpumod init --models DIR.",
                      folders.empty() ? "(none of the usual folders is there)" : join(folders, ", ")));
    }
    if (findings_.cut_short)
      advice(
          "Looking through the folders took too long and was ended: name the right ones with --models DIR to see all "
          "of them.");
    if (!left_out_.empty())
      advice(fmt::format("Written for the first {} only. Also found: {}.", services_at_most, join(left_out_, ", ")));
    for (const auto& remark : findings_.remarks)
      advice(remark + ".");
    previous_files();
    if (catalog_.has_errors())
      advice("Some of the files that were there already have errors: gpumod config check lists them.");
    next_steps();
  }

  void programs() {
    const auto* llama = findings_.engine(EngineKind::llamacpp);
    if (llama && !llama->problem.empty())
      advice(fmt::format("{} does not run: {}.", llama->binary.string(), llama->problem));
    const bool needs_llama = std::any_of(planned_.begin(), planned_.end(), [](const Planned& each) {
      return each.text.find("engine: llamacpp") != std::string::npos && each.text.find("\nunit:") == std::string::npos;
    });
    if (!llama && (needs_llama || planned_.empty()))
      advice(
          "No llama-server was found in PATH, ~/.local/bin, ~/bin, ~/llama.cpp/build/bin, /opt, or here. Install "
          "llama.cpp, or say "
          "where it is: gpumod init --llama-server FILE.");
    const bool hub = std::any_of(findings_.hub.begin(), findings_.hub.end(),
                                 [](const FoundHubModel& model) { return model.kind != ModelKind::unusable; });
    if (hub && !findings_.engine(EngineKind::vllm))
      advice(
          "There are models in the Hugging Face cache, but no vllm was found to serve them: nothing was written for "
          "them.");
  }

  void previous_files() {
    std::size_t services = 0;
    for (const auto& [id, service] : catalog_.services)
      services += service.source.file.starts_with("presets/") ? 1 : 0;
    if (services > 0)
      advice(fmt::format("{} {} of gpumod 0.1 in presets/ {} read as {}: nothing needs to be converted.", services,
                         services == 1 ? "service" : "services", services == 1 ? "is" : "are",
                         services == 1 ? "it is" : "they are"));
  }

  void next_steps() {
    if (first_) {
      advice(fmt::format("Next: gpumod mode switch {}", first_mode_));
      const boost::json::object message{{"role", "user"}, {"content", "Hello"}};
      boost::json::object body;
      if (!first_->model_name.empty()) body["model"] = first_->model_name;
      body["messages"] = boost::json::array{message};
      advice(
          fmt::format("Then: curl http://127.0.0.1:{}/v1/chat/completions -H 'Content-Type: application/json' -d '{}'",
                      first_->port, shell_text(boost::json::serialize(body))));
    } else if (!any_mode_.empty()) {
      advice(fmt::format("Next: gpumod mode switch {}", any_mode_));
    } else if (std::all_of(proposal_.files.begin(), proposal_.files.end(),
                           [&](const ProposedFile& file) { return ground_.exists(file.path); })) {
      advice(missing_.empty() ? "There is nothing new to write. gpumod mode list shows the modes."
                              : "There is no new file to write; the lines above are yours to add. gpumod config check "
                                "then reads them.");
    }
  }

  /// For between single quotes.
  static std::string shell_text(const std::string& text) {
    std::string escaped;
    for (const char c : text)
      escaped += c == '\'' ? "'\\''" : std::string(1, c);
    return escaped;
  }

  const Findings& findings_;
  const Ground& ground_;
  const Catalog& catalog_;
  Proposal proposal_;
  std::vector<Planned> planned_;
  std::set<std::uint16_t> taken_ports_;
  std::map<EngineKind, fs::path> binaries_;  // what gpumod.yaml, which stands already, does not name
  std::map<EngineKind, fs::path> missing_;   // and what of that it has to
  std::vector<std::string> left_out_;
  std::string first_mode_, any_mode_;
  const Planned* first_ = nullptr;
};

}  // namespace

Proposal propose(const Findings& findings, const Ground& ground) {
  return Proposer(findings, ground).run();
}

std::string yaml_text(std::string_view text) {
  static const std::set<std::string_view> words{"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
  const auto lowered = lower(text);
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const bool plain =
      !text.empty() && (letter(text.front()) || text.front() == '/') && !words.contains(lowered) &&
      std::all_of(text.begin(), text.end(), [&](char c) {
        return letter(c) || (c >= '0' && c <= '9') || std::string_view("/._+@-").find(c) != std::string_view::npos;
      });
  if (plain) return std::string(text);
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'' || c == '$') quoted += c;  // doubled, the one for YAML, the other for the catalogue
    quoted += c;
  }
  return quoted + "'";
}

std::string id_from(std::string_view stem) {
  std::string id;
  for (const char c : stem) {
    const char small = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    const bool allowed =
        (small >= 'a' && small <= 'z') || (small >= '0' && small <= '9') || small == '.' || small == '_';
    const char next = allowed ? small : '-';
    const bool first = id.empty();
    if (first && (next == '-' || next == '.' || next == '_')) continue;
    if (!first && (next == '-' || next == '.') && id.back() == next) continue;
    id += next;
  }
  id.resize(std::min<std::size_t>(id.size(), 64));
  while (!id.empty() && (id.back() == '-' || id.back() == '.'))
    id.pop_back();
  return is_valid_id(id) ? id : "model";
}

}  // namespace gpumod
