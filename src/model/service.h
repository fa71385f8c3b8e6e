// model/ — the nouns of gpumod as plain values: services, modes, GPUs, what was seen, what is planned, what happened.
// It knows base/; it must never know files, processes, sockets or clocks. No value here does I/O.
//
// A service is one managed inference server; a router service is one model inside a llama.cpp router that several
// services share (`router:`), so unit and service are two things: a unit runs, a service answers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/time.h"
#include "base/units.h"
#include "model/secret.h"

namespace gpumod {

using ServiceId = std::string;
using ModeId = std::string;

enum class EngineKind { vllm, llamacpp, fastapi, command };
std::string_view to_string(EngineKind kind);
std::optional<EngineKind> engine_kind_from(std::string_view name);

/// What a service is to the GPU and to its users, as observed.
/// `unloaded`: its router runs without the model. `suspended`: CUDA state is checkpointed to host memory.
enum class Residency { stopped, starting, running, sleeping1, sleeping2, unloaded, suspended, stopping, failed };
std::string_view to_string(Residency residency);
std::optional<Residency> residency_from(std::string_view name);
/// On either level.
constexpr bool is_asleep(Residency residency) {
  return residency == Residency::sleeping1 || residency == Residency::sleeping2;
}

/// The deepest cheap residency the engine offers for this service.
enum class SleepAbility { none, level1, level2, router };
std::string_view to_string(SleepAbility ability);

/// Where in people's files something was said; line and column count from 1, 0 means unknown.
struct SourceLocation {
  std::string file;
  int line = 0;
  int column = 0;
};
std::string to_string(const SourceLocation& location);  ///< "services/chat.yaml:3:7"

/// Which GPUs a service may use: any (empty), or the listed ones, each an index ("0") or a UUID ("GPU-…", "MIG-…").
struct GpuSelector {
  std::vector<std::string> devices;
  bool any() const { return devices.empty(); }
};

/// What the service serves.
struct ModelSource {
  std::string id;              ///< Hugging Face id, or a name; may be empty
  std::filesystem::path path;  ///< a local file or directory; empty: from the hub's cache
  std::string served_name;     ///< the name clients use; empty: the engine's default (see engines/)
};

/// A real request whose answer proves the service.
enum class ProbeKind { automatic, none, chat, completion, embedding, rerank, http };
struct Probe {
  ProbeKind kind = ProbeKind::automatic;  ///< automatic: by engine and by what the service declares
  std::string prompt;                     ///< empty: the kind's default
  std::string expect;                     ///< text the answer must contain; empty: any answer
  std::optional<unsigned> dimensions;     ///< of an embedding; unset: any
  std::string path;                       ///< for http: the path of a GET that must answer 2xx
  Duration timeout = 30s;
};
std::string_view to_string(ProbeKind kind);
std::optional<ProbeKind> probe_kind_from(std::string_view name);

struct VllmOptions {
  std::optional<double> gpu_memory_utilization;  ///< fraction of the GPU's total, 0 < x <= 1; vLLM's default is 0.9
  std::optional<std::int64_t> max_model_len;
  std::optional<std::int64_t> max_num_seqs;
  std::optional<int> tensor_parallel_size;
  std::string dtype;
  std::string runner;        ///< "pooling" makes it an embedding service
  std::string hf_overrides;  ///< JSON text, passed on as it is
  bool enforce_eager = false;
  bool enable_sleep_mode = false;
  bool trust_remote_code = false;
  // No keys of a file, but found among its further arguments (fit/vllm_flags.h).
  std::optional<Bytes> kv_cache_memory = {};  ///< --kv-cache-memory-bytes: replaces the utilization
  std::optional<int> pipeline_parallel_size = {};
  std::optional<int> prefill_context_parallel_size = {};
  std::optional<int> data_parallel_size = {};   ///< copies of the model, each on GPUs of its own
  std::optional<int> data_parallel_local = {};  ///< how many of them this server runs; unset: all
};

struct LlamaOptions {
  std::filesystem::path models_dir;  ///< set: router mode
  std::filesystem::path models_preset;
  std::optional<int> models_max;
  bool no_models_autoload = true;
  std::optional<std::int64_t> context_size;
  std::optional<int> gpu_layers;
  std::optional<int> threads;
  std::optional<int> n_cpu_moe;
  std::string flash_attention;  ///< "on", "off", "auto" or ""
  std::string pooling;
  bool jinja = false;
  bool embeddings = false;
  bool router_mode() const { return !models_dir.empty() || !models_preset.empty(); }
};

struct FastapiOptions {
  std::string app;  ///< "package.module:app"
  std::optional<int> workers;
};

struct CommandOptions {
  std::vector<std::string> cmd;       ///< "${PORT}" and "${HOST}" are replaced; no shell
  std::vector<std::string> cmd_stop;  ///< run before the unit is stopped; may be empty
  std::string container;              ///< the container in which the listening process lives; may be empty
};

using EngineOptions = std::variant<VllmOptions, LlamaOptions, FastapiOptions, CommandOptions>;

struct Service {
  ServiceId id;
  std::string name;  ///< for people; defaults to the id
  EngineKind engine = EngineKind::command;
  std::string unit;    ///< people's own unit, adopted untouched ("glm-code.service"); empty: one of ours
  std::string router;  ///< services with the same router share one llama-server; empty: none
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;     ///< 0: it listens nowhere (a command without a port)
  std::optional<Bytes> vram;  ///< declared claim on each GPU it uses; unset: unknown. 0: it uses no GPU
  GpuSelector gpu;
  std::string health_path;  ///< empty: no health check; "/health" by default where the engine has one
  Duration startup_timeout = 60s;
  Duration stop_timeout = 20s;  ///< between SIGTERM and SIGKILL
  SleepAbility sleep = SleepAbility::none;
  ModelSource model;
  EngineOptions options;
  std::vector<std::string> extra_args;
  std::filesystem::path working_directory;
  std::map<std::string, Secret> environment;  ///< `env:` over `env_file:`, expanded
  /// What its server gets beside its own, and before it: of its engine's settings, and of the others of its unit. Filled in
  /// by the catalogue; nothing for people's own unit.
  std::vector<std::string> inherited_args;
  std::map<std::string, Secret> inherited_environment;
  std::filesystem::path binary;  ///< absolute; empty: settings, then PATH
  Probe probe;
  SourceLocation source;

  const VllmOptions* vllm() const { return std::get_if<VllmOptions>(&options); }
  const LlamaOptions* llama() const { return std::get_if<LlamaOptions>(&options); }
  const FastapiOptions* fastapi() const { return std::get_if<FastapiOptions>(&options); }
  const CommandOptions* command() const { return std::get_if<CommandOptions>(&options); }
  /// True when the service is a model inside a router process, its own or a shared one.
  bool in_router() const { return llama() && llama()->router_mode(); }
  /// The arguments that people add to its command line, what it inherits first: the last one counts.
  std::vector<std::string> added_words() const;
  /// A variable that people set for it; null when they do not.
  const Secret* variable(const std::string& variable) const;
  /// The unit that runs it: the adopted one, the router's, or "gpumod-<id>.service".
  std::string unit_name() const;
};

/// What a switch does when it cannot finish.
enum class OnFailure { rollback, stay, blank };
std::string_view to_string(OnFailure policy);
std::optional<OnFailure> on_failure_from(std::string_view name);

struct Mode {
  ModeId id;
  std::string name;
  std::string description;
  std::vector<ServiceId> services;
  std::vector<ServiceId> optional;  ///< those of them that it may do without where there is no room
  OnFailure on_failure = OnFailure::rollback;
  SourceLocation source;
};

/// Settings for every service of one engine.
struct EngineSettings {
  std::filesystem::path binary;  ///< absolute, or a bare name that PATH resolves; empty: the engine's usual name
  std::map<std::string, Secret> environment;
  std::vector<std::string> extra_args;
};

enum class UnitManagerKind { automatic, systemd, local };

/// What becomes of a switch that a reboot cut off.
enum class BootPolicy {
  goal,     ///< it is finished, or taken back if it had failed, as after any other crash
  blank,    ///< nothing of ours is to run
  nothing,  ///< it counts for nothing: what runs is left as it is
};
std::string_view to_string(BootPolicy policy);
std::optional<BootPolicy> boot_policy_from(std::string_view name);

/// What assistants may do over MCP, each with what comes before it. A dry run changes nothing, and is always allowed.
enum class AssistantRights {
  read,     ///< look
  switch_,  ///< change what runs
  admin,    ///< change files and records as well
};
std::string_view to_string(AssistantRights rights);
std::optional<AssistantRights> assistant_rights_from(std::string_view name);

struct McpSettings {
  AssistantRights allow = AssistantRights::switch_;
  int changes_per_minute = 10;  ///< of one client
  int calls_per_minute = 300;   ///< of one client, changes included
};

struct Settings {
  Bytes vram_margin = Bytes::mib(512);  ///< per GPU, never given away
  UnitManagerKind unit_manager = UnitManagerKind::automatic;
  BootPolicy boot = BootPolicy::goal;
  Duration release_timeout = 120s;  ///< how long a proof of release may take before the switch fails
  std::map<EngineKind, EngineSettings> engines;
  McpSettings mcp;
};

/// True for an id that is safe in a unit name, a file name and a URL: [a-z0-9][a-z0-9._-]*, at most 64 characters.
bool is_valid_id(std::string_view id);

}  // namespace gpumod
