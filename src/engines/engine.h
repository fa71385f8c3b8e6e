// engines/ — what gpumod knows about each inference server, one file per engine: its command line and environment, how
// to tell that it is ready, what it offers to sleep, wake, load and unload, and what a failure of it looks like.
// It knows base/ and model/; it must never open a socket, start a process or read a file. It says what to ask and
// judges the answers: requests and replies are values, host/ carries them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/http.h"
#include "model/service.h"
#include "model/unit.h"

namespace gpumod {

/// What starting needs to know beyond the service.
struct LaunchContext {
  std::filesystem::path binary;              ///< resolved, absolute
  std::vector<std::string> cuda_devices;     ///< UUIDs or indexes for CUDA_VISIBLE_DEVICES; empty: leave it unset
  const EngineSettings* settings = nullptr;  ///< may be null
  std::string unit;
  std::vector<const Service*> router_members;  ///< for a router's unit: every service of it, this one included
  std::filesystem::path router_preset;         ///< where the text of router_preset() was written; empty: it gave none
  std::filesystem::path stop_binary;           ///< cmd_stop's program, resolved; empty: as people wrote it
  std::string inherited_path;                  ///< the PATH that units get anyway; empty: the usual system directories
};

/// How far a server has come. `failed` is final for this run.
struct ReadinessVerdict {
  enum class State { not_yet, ready, failed } state = State::not_yet;
  std::string reason;
};

/// What an answer proves.
struct ProbeVerdict {
  bool ok = false;
  std::string reason;  ///< when not ok: what was wrong, in words
  std::string text;    ///< chat: the content, or the reasoning when the content is empty; at most 200 characters
  bool reasoning_only = false;
  std::optional<unsigned> dimensions;
  std::optional<double> prompt_tokens_per_second;
  std::optional<double> tokens_per_second;
  std::optional<std::int64_t> prompt_tokens;
  std::optional<std::int64_t> generated_tokens;
  /// With ok: the server answered, but has no API of the kind that an automatic probe asks for (a reranker, a speech
  /// model). Nothing more than "it answers" is proven; `reason` says what to declare.
  bool unproven = false;
};

/// A cause found in a failed start's log.
struct FailureCause {
  enum class Class { transient, configuration, model, unknown } kind = Class::unknown;
  std::string cause;   ///< plain words
  std::string remedy;  ///< what to do; may be empty
  std::string line;    ///< the log line that matched
  /// What whoever can look at the machine may add to: who holds the port, what the program lacks.
  enum class Subject { none, port, program } subject = Subject::none;
  std::string subject_name = {};  ///< the port's number or the program's path; empty: the service's own
};
std::string_view to_string(FailureCause::Class kind);

/// Of what stands on a server's command line and in its environment, what is known to change neither the memory that it
/// takes nor how long its steps last. Everything else may.
struct IdleNames {
  std::vector<std::string_view> with_value;  ///< flags that take one: "--port 80" or "--port=80"
  std::vector<std::string_view> alone;       ///< flags that take none
  std::vector<std::string_view> variables;
};

class Engine {
 public:
  virtual ~Engine() = default;

  /// The name the binary usually has, for PATH: "vllm", "llama-server", "uvicorn". Empty: the service's own cmd.
  virtual std::string binary_name(const Service& service) const = 0;
  /// Everything the unit needs: argv, environment (CUDA_DEVICE_ORDER, CUDA_VISIBLE_DEVICES, HF_HUB_OFFLINE, the virtual
  /// environment of a `bin/` binary, GPUMOD_SERVICE last). Errors: configuration.
  virtual Result<UnitSpec> launch(const Service& service, const LaunchContext& context) const = 0;

  /// What to ask until the server (for a router: the router itself) is ready. Unset: ready once its port listens, or at
  /// once when it has none.
  virtual std::optional<HttpRequest> readiness_request(const Service& service) const = 0;
  virtual ReadinessVerdict judge_readiness(const Service& service, const HttpReply& reply) const = 0;

  /// Which residency a server that answers is in; unset: it runs if it answers.
  virtual std::optional<HttpRequest> residency_request(const Service& service) const = 0;
  virtual Result<Residency> judge_residency(const Service& service, const HttpReply& reply) const = 0;
  /// Where judge_residency says `failed`: why, in words, as far as the same reply tells ("its process ended with 1").
  virtual std::string failure_reason(const Service& service, const HttpReply& reply) const = 0;

  /// Routers: load and unload one model. The requests are accepted before the work is done: poll residency afterwards.
  virtual std::optional<HttpRequest> load_request(const Service& service) const = 0;
  virtual std::optional<HttpRequest> unload_request(const Service& service) const = 0;
  /// An accepted load or unload; "already running" and "not loaded" count as accepted.
  virtual Result<void> judge_load(const Service& service, const HttpReply& reply) const = 0;
  virtual Result<void> judge_unload(const Service& service, const HttpReply& reply) const = 0;

  /// The requests that put it to sleep or wake it, in order; every one must answer 2xx. Empty: it cannot.
  virtual std::vector<HttpRequest> sleep_requests(const Service& service, Residency target) const = 0;
  virtual std::vector<HttpRequest> wake_requests(const Service& service, Residency from) const = 0;

  /// Which model does it serve? Unset: the engine cannot say (command).
  virtual std::optional<HttpRequest> identity_request(const Service& service) const = 0;
  virtual Result<void> judge_identity(const Service& service, const HttpReply& reply) const = 0;

  /// What a real request to this service is, `automatic` resolved; `none`: nothing is known that it could be asked.
  virtual ProbeKind probe_kind(const Service& service) const = 0;
  /// A real request. Unset: the service declares none.
  virtual std::optional<HttpRequest> probe_request(const Service& service) const = 0;
  virtual ProbeVerdict judge_probe(const Service& service, const HttpReply& reply) const = 0;

  /// The first cause that the log of a failed start shows. `kind == unknown` when nothing matched.
  virtual FailureCause classify(const std::vector<LogLine>& log) const = 0;
  /// Set when this line alone proves that the start is lost, although its process may still run.
  virtual std::optional<FailureCause> conclusive(const Service& service, const LogLine& line) const = 0;

  /// Arguments that make the binary print its flags, for unknown_flags(): tried in order, the first whose output names
  /// any flag counts (older vLLM knows only the second). Empty: the program cannot be asked.
  virtual std::vector<std::vector<std::string>> help_arguments(const Service& service) const = 0;

  /// Empty for a program of people's own: nobody knows what it makes of its arguments.
  virtual IdleNames idle_names() const = 0;
};

const Engine& engine_for(EngineKind kind);

/// The name that requests to this service carry as "model", and under which a router knows it.
/// A llama.cpp service: served_name, else the model file's stem (below a router's models_dir: the file's stem, or its
/// sub-directory's name), else the model's id, else the service's id. Others: served_name, else path, id, service id.
std::string model_name(const Service& service);

/// The models preset (INI) that a router needs because its services want different things of their models: what is on
/// the router's command line overrides every preset, so only what all members agree on may stand there. To be written
/// to a file that LaunchContext::router_preset then names. Unset when the command line can say it all.
/// Errors: configuration (settings that exclude each other, names that no INI file can carry).
Result<std::optional<std::string>> router_preset(const std::vector<const Service*>& members);

/// Flags of `argv` (--like-this) that `help`, the binary's own --help text, does not mention, each with the nearest
/// flag that it does. Empty when `help` has no flags at all: then nothing can be said. "--a_b" counts as "--a-b", and
/// "--json.key" as "--json": the engines read them so. What follows a lone "--" is not looked at.
struct UnknownFlag {
  std::string flag;
  std::string nearest;  ///< may be empty
};
std::vector<UnknownFlag> unknown_flags(const std::vector<std::string>& argv, std::string_view help);

}  // namespace gpumod
