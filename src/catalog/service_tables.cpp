// What a service file may say. See schema.h for how a row is read.
#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "catalog/env_file.h"
#include "catalog/tables.h"

namespace gpumod {

namespace {

constexpr std::int64_t token_limit = 100'000'000;

bool only(std::string_view text, std::string_view extra) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           extra.find(c) != std::string_view::npos;
  });
}

bool is_unit_name(std::string_view name) {
  return only(name, ":_.@\\-") && name.size() <= 255 && name.size() > 8 && name.ends_with(".service") &&
         !name.ends_with("@.service") && name.find("..") == std::string_view::npos && name != "gpumod.service";
}
bool is_host(std::string_view host) {
  return only(host, ".:_-") && host.size() <= 255;
}
bool is_container_name(std::string_view name) {
  return only(name, "_.-") && name.size() <= 128;
}
bool is_application(std::string_view name) {
  const auto colon = name.find(':');
  return colon != std::string_view::npos && only(name.substr(0, colon), "_.") && only(name.substr(colon + 1), "_.()");
}
bool is_http_path(std::string_view path) {
  return !path.empty() && path.front() == '/' && path.find_first_of(" \t#") == std::string_view::npos;
}
bool is_health(std::string_view text) {
  return text == "none" || is_http_path(text);
}

Shape id_shape() {
  return shapes::named("an id: small letters, digits, and . _ - after the first, at most 64, without ..",
                       "^[a-z0-9][a-z0-9._-]{0,63}$", is_valid_id);
}
Shape http_path_shape() {
  return shapes::named("a path that begins with /, without blanks", "^/\\S*$", is_http_path);
}
Shape health_shape() {
  return shapes::named("a path such as /health, or none", "^(/\\S*|none)$", is_health);
}

std::optional<SleepAbility> sleep_from(std::string_view name) {
  for (const auto ability : {SleepAbility::none, SleepAbility::level1, SleepAbility::level2, SleepAbility::router})
    if (to_string(ability) == name) return ability;
  return std::nullopt;
}

template <typename Options, typename M>
auto option(M Options::*member) {
  return [member](Reading& reading, const YamlNode& node, const Shape& shape, Service& service) {
    if (auto* options = std::get_if<Options>(&service.options))
      if (auto value = read_as<M>(reading, node, shape)) options->*member = std::move(*value);
  };
}

void store_health(Reading& reading, const YamlNode& node, const Shape& shape, Service& service) {
  if (const auto text = read_text(reading, node, shape)) service.health_path = *text == "none" ? "" : *text;
}

void store_environment(Reading& reading, const YamlNode& node, const Shape& shape, Service& service) {
  if (auto values = read_environment(reading, node, shape))
    for (auto& [name, value] : *values)
      service.environment[name] = Secret(std::move(value));
}

void store_environment_files(Reading& reading, const YamlNode& node, const Shape& shape, Service& service) {
  auto values = read_environment_files(reading, node, shape);
  if (!values) return;
  for (const auto& [name, value] : *values)
    service.environment[name] = Secret(value);
  reading.know_environment(std::move(*values));
}

/// A path begins with / ./ ../ or ~, or is a GGUF file for a server that loads one file; everything else is a name.
void store_model(Reading& reading, const YamlNode& node, const Shape& shape, Service& service) {
  if (node.is_map()) {
    Seen seen;
    read_object(reading, node, model_table(), service.model, seen);
    return;
  }
  if (!node.is_scalar()) {
    reading.error(node, fmt::format("expected {}", expected_of(shape)));
    return;
  }
  auto text = read_text(reading, node, shapes::text());
  const auto begins = [&](std::string_view start) { return text->starts_with(start); };
  const bool home = text && begins("~");
  if (text) text = reading.expand(node, *text, {.home = home});
  if (!text) return;
  if (text->empty()) {
    reading.error(node, "the model is empty", "Write a Hugging Face id, a path or a name.");
    return;
  }
  const bool one_file = service.engine == EngineKind::llamacpp && text->ends_with(".gguf");
  if (home || begins("/") || begins("./") || begins("../") || one_file)
    service.model.path = reading.absolute(*text);
  else
    service.model.id = std::move(*text);
}

void store_probe(Reading& reading, const YamlNode& node, const Shape& shape, Service& service) {
  auto& probe = service.probe;
  if (!node.is_map()) {
    // The first alternative is the kind alone.
    if (const auto name = read_text(reading, node, shape.alternatives.front()))
      if (const auto kind = probe_kind_from(*name)) probe.kind = *kind;
    if (probe.kind == ProbeKind::http)
      reading.error(node, "a probe of kind http needs a path", "Write `probe: {kind: http, path: /…}`.");
    return;
  }
  Seen seen;
  read_object(reading, node, probe_table(), probe, seen);
  const auto misplaced = [&](const char* key, bool fits) {
    if (const auto found = seen.find(key); found != seen.end() && !fits)
      reading.error(*found->second, fmt::format("'{}' means nothing to a probe of kind {}", key, to_string(probe.kind)),
                    "Remove it, or choose another kind.");
  };
  const auto kind = probe.kind;
  const bool asks = kind == ProbeKind::automatic || kind == ProbeKind::chat || kind == ProbeKind::completion;
  misplaced("expect", asks || kind == ProbeKind::http);
  misplaced("prompt", asks || kind == ProbeKind::embedding);
  misplaced("dimensions", kind == ProbeKind::embedding || kind == ProbeKind::automatic);
  misplaced("path", kind == ProbeKind::http);
  if (kind == ProbeKind::http && probe.path.empty() && !seen.contains("path"))
    reading.error(node, "a probe of kind http needs a path", "Write `path: /…`.");
}

Shape probe_kinds() {
  return shapes::choice({"auto", "none", "chat", "completion", "embedding", "rerank", "http"});
}

std::vector<std::string> engine_names() {
  std::vector<std::string> names;
  for (const auto kind : all_engines)
    names.emplace_back(to_string(kind));
  return names;
}

}  // namespace

std::optional<std::map<std::string, std::string>> read_environment_files(Reading& reading, const YamlNode& node,
                                                                         const Shape& shape) {
  const auto paths = read_list(reading, node, shape);
  if (!paths) return std::nullopt;
  std::map<std::string, std::string> values;
  if (!reading.around().read) return values;
  bool good = true;
  for (std::size_t i = 0; i < paths->size(); ++i) {
    const auto& path = (*paths)[i];
    const YamlNode& at = node.is_sequence() ? *node.items[i] : node;
    const auto file = reading.around().read(path);
    if (!file) {
      reading.error(at, fmt::format("the environment file cannot be read: {}", file.error().message),
                    "Create it with NAME=VALUE lines and mode 0600, or remove it here.");
      good = false;
      continue;
    }
    if (file->others_may_read)
      reading.warning(at, fmt::format("{} can be read by other users of this machine", path),
                      fmt::format("It holds secrets: chmod 600 {}", path));
    auto lines = parse_environment_file(file->text);
    for (const auto& complaint : lines.complaints) {
      reading.error(at, fmt::format("{}, line {}: {}", path, complaint.line, complaint.message));
      good = false;
    }
    for (auto& [name, value] : lines.values)
      values[name] = std::move(value);
  }
  if (!good) return std::nullopt;
  return values;
}

EngineOptions options_of(EngineKind kind) {
  switch (kind) {
    case EngineKind::vllm: return VllmOptions{};
    case EngineKind::llamacpp: return LlamaOptions{};
    case EngineKind::fastapi: return FastapiOptions{};
    case EngineKind::command: return CommandOptions{};
  }
  return CommandOptions{};
}

const Table<ModelSource>& model_table() {
  static const Table<ModelSource> table = {
      {{"id", shapes::text(true), "", "A Hugging Face id, or in a router the name of the model."},
       into(&ModelSource::id)},
      {{"path", shapes::path(), "the hub's cache", "A local file or folder."}, into(&ModelSource::path)},
      {{"served_name", shapes::text(true), "the engine's default", "The name that clients use."},
       into(&ModelSource::served_name)},
  };
  return table;
}

const Table<Probe>& probe_table() {
  static const Table<Probe> table = {
      {{"kind", probe_kinds(), "auto", "What is asked: `auto` decides by engine and by what the service declares."},
       into_choice(&Probe::kind, probe_kind_from)},
      {{"prompt", shapes::prose(), "a short question", "What to send."}, into(&Probe::prompt)},
      {{"expect", shapes::prose(), "any answer", "Text that the answer must contain."}, into(&Probe::expect)},
      {{"dimensions", shapes::integer(1, 1'000'000), "any", "Length of an embedding."}, into(&Probe::dimensions)},
      {{"path", http_path_shape(), "", "For http: what to GET; it must answer 2xx."}, into(&Probe::path)},
      {{"timeout", shapes::duration(0.1, 600), "30s", "How long the answer may take."}, into(&Probe::timeout)},
  };
  return table;
}

const Table<Service>& common_service_table() {
  static const Table<Service> table = {
      {{"id", id_shape(), "the file's name without its ending", "What commands and modes call it.", true},
       into(&Service::id)},
      {{"name", shapes::text(), "the id", "What people read."}, into(&Service::name)},
      {{"engine", shapes::choice(engine_names()), "", "What kind of server it is.", true, true},
       into_choice(&Service::engine, engine_kind_from)},
      {{"model", shapes::one_of({shapes::text(true), shapes::object(declarations_of(model_table()))}), "",
        "What it serves: a Hugging Face id, a path, or a name; or a map of these."},
       store_model},
      {{"host", shapes::named("a host name or an address", "^[A-Za-z0-9.:_-]+$", is_host), "127.0.0.1",
        "Where it listens. Anything but the loopback puts it on the network.", true},
       into(&Service::host)},
      {{"port", shapes::integer(0, 65535), "0: it listens nowhere", "The TCP port. Only `command` may do without.",
        true},
       into(&Service::port)},
      {{"vram", shapes::memory(), "measured or estimated",
        "GPU memory at its peak, starting included, on each GPU that it uses. 0: it uses no GPU. Until a run was "
        "measured "
        "the larger of this and what the model's file comes to counts; of fastapi and command always the larger of "
        "this "
        "and what was measured."},
       into(&Service::vram)},
      {{"vram_mb", shapes::integer(0, 1048576), "", "The same in MiB, as a whole number.", false, false, "vram"},
       [](Reading& reading, const YamlNode& node, const Shape& shape, Service& service) {
         if (const auto mib = read_integer(reading, node, shape)) service.vram = Bytes::mib(*mib);
       }},
      {{"gpu", shapes::devices(), "auto",
        "Which GPUs it may use, as nvidia-smi -L names them: by index or UUID, a MIG slice by its UUID. `auto`: any."},
       into(&Service::gpu)},
      {{"health", health_shape(), "/health; none for command", "The path that answers 200 once it is up, or `none`."},
       store_health},
      {{"probe", shapes::one_of({probe_kinds(), shapes::object(declarations_of(probe_table()))}), "auto",
        "A real request whose answer proves it: a kind alone, or a map."},
       store_probe},
      {{"startup_timeout", shapes::duration(1, 86400), "60s",
        "How long it may take until it is ready. One that shows signs of life (log lines, CPU, reads, VRAM) gets up to "
        "three times as long; one that shows none for half of it, or for two minutes, is stuck and given up."},
       into(&Service::startup_timeout)},
      {{"stop_timeout", shapes::duration(1, 3600), "20s", "Between the request to end and being killed."},
       into(&Service::stop_timeout)},
      {{"sleep", shapes::choice({"none", "l1", "l2", "router"}), "router for a model in a router, otherwise none",
        "How it frees memory without stopping: vLLM's level 1 or 2, or unloading from its router."},
       into_choice(&Service::sleep, sleep_from)},
      {{"unit",
        shapes::named(
            "the name of a user unit such as glm-code.service: it ends in .service, holds no / and no .., and is "
            "not gpumod's own",
            "^[A-Za-z0-9:_.@\\\\-]+\\.service$", is_unit_name),
        "a unit of gpumod's", "A unit of your own, adopted as it stands."},
       into(&Service::unit)},
      {{"router", id_shape(), "none", "Services that name the same router share one llama-server and its port."},
       into(&Service::router)},
      {{"binary", shapes::path(), "the engine's setting, then PATH", "The program that is started."},
       into(&Service::binary)},
      {{"extra_args", shapes::arguments(), "none", "Arguments passed on as they stand."}, into(&Service::extra_args)},
      {{"working_dir", shapes::path(), "the unit manager's", "Where it is started."},
       into(&Service::working_directory)},
      {{"env_file", shapes::paths(), "none",
        "Files of NAME=VALUE lines, mode 0600. Their names are known to $NAME in this file.", true},
       store_environment_files},
      {{"env", shapes::environment(), "none",
        "Environment variables, over those of env_file. They are shown redacted."},
       store_environment},
  };
  return table;
}

const Table<Service>& engine_table(EngineKind kind) {
  using V = VllmOptions;
  using L = LlamaOptions;
  using F = FastapiOptions;
  using C = CommandOptions;
  static const Table<Service> vllm = {
      {{"gpu_memory_utilization", shapes::number(0, 1), "vLLM's 0.9",
        "The part of the GPU that it takes: its real claim."},
       option(&V::gpu_memory_utilization)},
      {{"max_model_len", shapes::integer(1, token_limit), "the model's", "Longest context, in tokens."},
       option(&V::max_model_len)},
      {{"max_num_seqs", shapes::integer(1, 65536), "vLLM's", "Requests that run beside each other."},
       option(&V::max_num_seqs)},
      {{"tensor_parallel_size", shapes::integer(1, 64), "1", "GPUs that share the model."},
       option(&V::tensor_parallel_size)},
      {{"dtype", shapes::choice({"auto", "half", "float16", "bfloat16", "float", "float32"}), "auto",
        "Type of the weights."},
       option(&V::dtype)},
      {{"runner", shapes::choice({"auto", "generate", "pooling", "draft"}), "auto",
        "`pooling` makes it an embedding service."},
       option(&V::runner)},
      {{"hf_overrides", shapes::json(), "none", "Changes to the model's configuration."}, option(&V::hf_overrides)},
      {{"enforce_eager", shapes::boolean(), "false", "No CUDA graphs: starts sooner, runs slower."},
       option(&V::enforce_eager)},
      {{"enable_sleep_mode", shapes::boolean(), "true when sleep is l1 or l2", "Starts it able to sleep."},
       option(&V::enable_sleep_mode)},
      {{"trust_remote_code", shapes::boolean(), "false", "Runs code that comes with the model."},
       option(&V::trust_remote_code)},
  };
  static const Table<Service> llamacpp = {
      {{"models_dir", shapes::path(), "none", "A folder of models: makes it a router."}, option(&L::models_dir)},
      {{"models_preset", shapes::path(), "none", "A router's preset file (.ini)."}, option(&L::models_preset)},
      {{"models_max", shapes::integer(0, 1024), "llama-server's 4", "Models that a router holds at once; 0: no limit."},
       option(&L::models_max)},
      {{"no_models_autoload", shapes::boolean(), "true", "A router loads only what gpumod asks for."},
       option(&L::no_models_autoload)},
      {{"context_size", shapes::integer(0, token_limit), "llama-server's",
        "Context in tokens; 0: the model's own. Set it, or "
        "llama-server shrinks it to what is free."},
       option(&L::context_size)},
      {{"gpu_layers", shapes::integer(-1, 100'000), "llama-server's", "Layers on the GPU; -1: all."},
       option(&L::gpu_layers)},
      {{"threads", shapes::integer(-1, 4096), "llama-server's", "CPU threads."}, option(&L::threads)},
      {{"n_cpu_moe", shapes::integer(0, 100'000), "0", "Layers whose experts stay in host memory."},
       option(&L::n_cpu_moe)},
      {{"jinja", shapes::boolean(), "false", "Uses the model's chat template."}, option(&L::jinja)},
      {{"flash_attention", shapes::one_of({shapes::choice({"on", "off", "auto"}), shapes::boolean()}), "llama-server's",
        "Flash attention."},
       [](Reading& reading, const YamlNode& node, const Shape& shape, Service& service) {
         auto* options = std::get_if<L>(&service.options);
         if (!options) return;
         const bool automatic = node.is_scalar() && node.text == "auto";
         Shape words = shapes::boolean();
         words.expected = expected_of(shape);
         const auto on = automatic ? std::optional(true) : read_boolean(reading, node, words);
         if (on) options->flash_attention = automatic ? "auto" : *on ? "on" : "off";
       }},
      {{"embeddings", shapes::boolean(), "false", "Makes it an embedding service."}, option(&L::embeddings)},
      {{"pooling", shapes::choice({"none", "mean", "cls", "last", "rank"}), "the model's",
        "How embeddings are pooled."},
       option(&L::pooling)},
  };
  static const Table<Service> fastapi = {
      {{"app",
        shapes::named("an application such as package.module:app", "^[A-Za-z0-9_.]+:[A-Za-z0-9_.()]+$", is_application),
        "", "What uvicorn runs."},
       option(&F::app)},
      {{"workers", shapes::integer(1, 256), "1", "Worker processes."}, option(&F::workers)},
  };
  static const Table<Service> command = {
      {{"cmd", shapes::arguments(true), "",
        "The program and its arguments. ${PORT} and ${HOST} are filled in; no shell."},
       option(&C::cmd)},
      {{"cmd_stop", shapes::arguments(true), "none", "Run before it is stopped."}, option(&C::cmd_stop)},
      {{"check", health_shape(), "", "Another word for health.", false, false, "health"}, store_health},
      {{"container", shapes::named("the name of a container", "^[A-Za-z0-9_.-]+$", is_container_name), "none",
        "The container in which the listening process lives."},
       option(&C::container)},
  };
  switch (kind) {
    case EngineKind::vllm: return vllm;
    case EngineKind::llamacpp: return llamacpp;
    case EngineKind::fastapi: return fastapi;
    case EngineKind::command: return command;
  }
  return command;
}

const Table<Mode>& mode_table() {
  static const Table<Mode> table = {
      {{"id", id_shape(), "the file's name without its ending", "What commands call it."}, into(&Mode::id)},
      {{"name", shapes::text(), "the id", "What people read."}, into(&Mode::name)},
      {{"description", shapes::prose(), "none", "What it is for."}, into(&Mode::description)},
      {{"services", shapes::ids(), "", "The ids of the services that run together; `[]` for none.", false, true},
       into(&Mode::services)},
      {{"optional", shapes::ids(), "none",
        "Those of its services that it may do without: `gpumod simulate` proposes leaving them out where there is no "
        "room. A switch starts them like the others."},
       into(&Mode::optional)},
      {{"on_failure", shapes::choice({"rollback", "stay", "blank"}), "rollback",
        "When a switch to it cannot finish: go back to what ran before, stay with what runs, or stop everything."},
       into_choice(&Mode::on_failure, on_failure_from)},
  };
  return table;
}

}  // namespace gpumod
