// llama.cpp: `llama-server` with one model (-m FILE), or as a router of many (llama_router.h).
//
// A single server reports its model truthfully: /props has the file it loaded, chat answers carry the alias. Builds up
// to mid-2025 echo the request's model name instead, which no judge here takes for a wrong one.
#include <algorithm>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "engines/failures.h"
#include "engines/launching.h"
#include "engines/llama_router.h"
#include "engines/probes.h"
#include "engines/reply.h"

namespace gpumod {

namespace {

constexpr Duration load_order_timeout = 15s;  // an order is accepted at once; the work comes after

/// Its crash handler would run a debugger over a process that holds gigabytes.
Environment llama_defaults() {
  auto defaults = offline_by_default();
  defaults.emplace("GGML_NO_BACKTRACE", Secret("1"));
  return defaults;
}

bool ranks(const Service& service) {
  const auto& words = service.extra_args;
  const bool asked = std::any_of(words.begin(), words.end(),
                                 [](const std::string& word) { return word == "--rerank" || word == "--reranking"; });
  return asked || (service.llama() && service.llama()->embeddings && service.llama()->pooling == "rank");
}

void add_settings(Arguments& arguments, const std::vector<ModelSetting>& settings) {
  for (const auto& [name, value] : settings) {
    arguments.add("--" + name);
    if (value != "true") arguments.add(value);
  }
}

Result<UnitSpec> launch_single(const Service& service, const LaunchContext& context) {
  const auto& model = service.model;
  if (model.path.empty() && model.id.empty())
    return fail(ErrorCode::configuration, fmt::format("service '{}' names no model", service.id),
                "Add 'model_path:' with a GGUF file, or models_dir for a router.");
  auto unit = unit_of(service, context, llama_defaults(), {});
  Arguments arguments(context.binary);
  if (model.path.empty())
    arguments.option("--hf-repo", model.id);
  else
    arguments.option("--model", model.path.string());
  arguments.option("--alias", model.served_name)
      .option("--port", std::optional(service.port))
      .option("--host", bind_host(service))
      .add("--offline");
  add_settings(arguments, model_settings(*service.llama()));
  if (context.settings) arguments.append(context.settings->extra_args);
  unit.argv = arguments.append(service.extra_args).take();
  return unit;
}

Result<UnitSpec> launch_router(const Service& service, const LaunchContext& context) {
  const auto members = context.router_members.empty() ? std::vector<const Service*>{&service} : context.router_members;
  const auto plan = TRY(plan_router(members));
  if (!plan.sections.empty() && context.router_preset.empty())
    return fail(ErrorCode::failed, fmt::format("service '{}': the router's models preset was not written", service.id));

  Service whole = service;
  whole.environment = plan.environment;
  whole.stop_timeout = plan.stop_timeout;
  auto unit = unit_of(whole, context, llama_defaults(), {});
  const auto& preset = plan.sections.empty() ? plan.models_preset : context.router_preset;
  Arguments arguments(context.binary);
  arguments.option("--models-dir", plan.models_dir.string())
      .option("--models-preset", preset.string())
      .option("--models-max", plan.models_max)
      .flag("--no-models-autoload", plan.no_models_autoload)
      .option("--port", std::optional(service.port))
      .option("--host", bind_host(service))
      .add("--offline");
  add_settings(arguments, plan.common);
  if (context.settings) arguments.append(context.settings->extra_args);
  unit.argv = arguments.append(plan.extra_args).take();
  return unit;
}

/// Our own unit was given the very path; people's own may write the same file another way.
bool same_file(const Service& service, const std::filesystem::path& reported) {
  const auto wanted = service.model.path.lexically_normal();
  if (reported.lexically_normal() == wanted) return true;
  return (!service.unit.empty() || reported.is_relative()) && reported.filename() == wanted.filename();
}

Result<void> single_identity(const Service& service, const HttpReply& reply) {
  if (!is_success(reply)) return fail(unanswered(service, "/props", reply));
  const auto body = TRY(json_body(reply));
  if (string_at(body, {"role"}) == "router")
    return fail(ErrorCode::failed,
                fmt::format("port {} answers as a router, not as a single model's server", service.port));
  const auto file = string_at(body, {"model_path"});
  const auto alias = string_at(body, {"model_alias"});
  if (file.empty() && alias.empty())
    return fail(ErrorCode::failed,
                fmt::format("port {} does not say which model it serves: it is no llama-server", service.port));
  const auto& model = service.model;
  if (!model.path.empty() && !file.empty()) {
    if (same_file(service, file)) return {};
    return fail(ErrorCode::failed,
                fmt::format("port {} serves {}, not {}", service.port, shorten(file, 200), model.path.string()));
  }
  const auto wanted = model.served_name.empty() ? model.id : model.served_name;
  const auto cached_as = [](std::string id, std::string_view separator) {
    for (auto at = id.find('/'); at != std::string::npos; at = id.find('/', at + separator.size()))
      id.replace(at, 1, separator);
    return id;
  };
  // From the hub's cache: the file's folder or name carries the repository, without the quantization after ':'.
  const auto repository = model.id.substr(0, model.id.find(':'));
  const bool from_repository = !repository.empty() && (file.find(cached_as(repository, "_")) != std::string::npos ||
                                                       file.find(cached_as(repository, "--")) != std::string::npos);
  if (wanted.empty() || alias == wanted || from_repository) return {};
  return fail(ErrorCode::failed, fmt::format("port {} serves {}, not {}", service.port,
                                             shorten(alias.empty() ? file : alias, 200), wanted));
}

class LlamaCpp final : public PlainEngine {
 public:
  std::string binary_name(const Service&) const override { return "llama-server"; }

  Result<UnitSpec> launch(const Service& service, const LaunchContext& context) const override {
    if (!service.llama())
      return fail(ErrorCode::configuration, fmt::format("service '{}' has no llamacpp options", service.id));
    TRY(require_binary(service, context));
    TRY(require_port(service));
    return service.in_router() ? launch_router(service, context) : launch_single(service, context);
  }

  std::optional<HttpRequest> readiness_request(const Service& service) const override {
    return get_request(service, service.health_path.empty() ? "/health" : service.health_path, question_timeout);
  }
  ReadinessVerdict judge_readiness(const Service& service, const HttpReply& reply) const override {
    if (reply.status == 503) return {ReadinessVerdict::State::not_yet, "the model is loading"};
    return PlainEngine::judge_readiness(service, reply);
  }

  std::optional<HttpRequest> residency_request(const Service& service) const override {
    return get_request(service, service.in_router() ? "/models" : "/props", question_timeout);
  }
  Result<Residency> judge_residency(const Service& service, const HttpReply& reply) const override {
    if (service.in_router()) return router_residency(service, reply);
    if (reply.status == 503) return Residency::starting;
    const auto body = json_body(reply);
    // What does not answer /props (an API key, an older build) still answers: it runs.
    return body && bool_at(*body, {"is_sleeping"}).value_or(false) ? Residency::sleeping1 : Residency::running;
  }
  std::string failure_reason(const Service& service, const HttpReply& reply) const override {
    return service.in_router() ? router_failure_reason(service, reply) : "";
  }

  std::optional<HttpRequest> load_request(const Service& service) const override {
    return order(service, "/models/load");
  }
  std::optional<HttpRequest> unload_request(const Service& service) const override {
    return order(service, "/models/unload");
  }
  Result<void> judge_load(const Service& service, const HttpReply& reply) const override {
    return service.in_router() ? router_load(service, reply) : PlainEngine::judge_load(service, reply);
  }
  Result<void> judge_unload(const Service& service, const HttpReply& reply) const override {
    return service.in_router() ? router_unload(service, reply) : PlainEngine::judge_unload(service, reply);
  }

  std::optional<HttpRequest> identity_request(const Service& service) const override {
    return residency_request(service);
  }
  Result<void> judge_identity(const Service& service, const HttpReply& reply) const override {
    return service.in_router() ? router_identity(service, reply) : single_identity(service, reply);
  }

  ProbeKind probe_kind(const Service& service) const override {
    if (service.probe.kind != ProbeKind::automatic) return service.probe.kind;
    const auto declared = declared_probe_kind(service.probe);
    if (declared == ProbeKind::http || declared == ProbeKind::embedding) return declared;
    if (ranks(service)) return ProbeKind::rerank;
    return service.llama() && service.llama()->embeddings ? ProbeKind::embedding : ProbeKind::chat;
  }
  std::optional<HttpRequest> probe_request(const Service& service) const override {
    return make_probe(service, probe_kind(service));
  }
  ProbeVerdict judge_probe(const Service& service, const HttpReply& reply) const override {
    // A single server's default name is the path it was given, and embeddings echo the request: only a declared name is
    // ever held against it. A router passes the child's name on, which is the one we asked for.
    return judge_answer(service, probe_kind(service), reply,
                        service.in_router() ? model_name(service) : service.model.served_name);
  }

  FailureCause classify(const std::vector<LogLine>& log) const override {
    return first_cause(EngineKind::llamacpp, log);
  }
  std::optional<FailureCause> conclusive(const Service& service, const LogLine& line) const override {
    // A router passes on what its children say, after their port in brackets: a model that fails is no failed router.
    if (service.in_router() && line.text.starts_with("[")) return std::nullopt;
    return conclusive_cause(EngineKind::llamacpp, line.text);
  }

  IdleNames idle_names() const override {
    return {{"--port", "--host", "--alias", "-a", "--api-key", "--api-key-file", "--hf-token", "-hft", "--log-file",
             "--timeout", "-to"},
            {"--metrics", "--offline", "--log-disable", "--no-models-autoload", "--no-webui"},
            {"LLAMA_ARG_HOST", "LLAMA_ARG_PORT", "LLAMA_ARG_ALIAS", "LLAMA_ARG_API_KEY", "LLAMA_API_KEY",
             "LLAMA_ARG_ENDPOINT_METRICS", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PATH", "LANG"}};
  }

 private:
  static std::optional<HttpRequest> order(const Service& service, const char* target) {
    if (!service.in_router()) return std::nullopt;
    boost::json::object body;
    body["model"] = model_name(service);
    return post_request(service, target, boost::json::serialize(body), load_order_timeout);
  }
};

}  // namespace

const Engine& llamacpp_engine() {
  static const LlamaCpp engine;
  return engine;
}

}  // namespace gpumod
