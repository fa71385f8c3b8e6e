// vLLM: `vllm serve MODEL`. One process group per model; sleep is offered by development endpoints, which need both a
// flag and VLLM_SERVER_DEV_MODE=1, and whose bare 200 proves nothing: a probe follows every wake.
//
// It compares its utilization with the memory that is free when it starts, and profiles afterwards: nothing else may
// allocate or free on its GPU meanwhile. Its listener opens only when the model is ready.
#include <boost/json/array.hpp>

#include "base/text.h"
#include "engines/failures.h"
#include "engines/launching.h"
#include "engines/probes.h"
#include "engines/reply.h"

namespace gpumod {

namespace json = boost::json;

namespace {

/// What stands behind `vllm serve`: a local path, else an id of the hub. vLLM serves under this very text by default.
std::string model_argument(const Service& service) {
  return service.model.path.empty() ? service.model.id : service.model.path.string();
}

bool can_sleep(const Service& service) {
  return service.sleep == SleepAbility::level1 || service.sleep == SleepAbility::level2;
}

/// Level 1 copies gigabytes to host memory; waking from level 2 reads them from disk again.
Duration sleep_timeout(const Service& service) {
  return std::max<Duration>(service.startup_timeout, 120s);
}

/// The server knows its own name, and so do we unless people's own unit decides it.
std::string truthful_model(const Service& service) {
  if (!service.model.served_name.empty()) return service.model.served_name;
  return service.unit.empty() ? model_argument(service) : "";
}

bool same_model(const Service& service, const std::string& reported) {
  if (reported.empty()) return false;
  const auto wanted = service.model.served_name.empty() ? model_argument(service) : service.model.served_name;
  if (reported == wanted || reported == service.model.id) return true;
  // People's own unit may name the same folder another way: with a slash at its end, or from where it runs.
  if (service.unit.empty() || service.model.path.empty()) return false;
  const auto folder = [](std::filesystem::path path) {
    return path.has_filename() ? path.filename() : path.parent_path().filename();
  };
  return folder(reported) == folder(service.model.path);
}

/// The server is there, but not for this kind of question: a reranker, a speech model, a base model without a template.
bool lacks_the_api(const HttpReply& reply) {
  if (is_success(reply) || reply.status >= 502) return false;
  const auto body = json_body(reply);
  if (!body) return false;
  const auto detail = string_at(*body, {"detail"});
  if (detail == "Not Found" || detail == "Method Not Allowed") return true;
  const auto message = server_message(reply);
  for (const char* text : {"does not support", "is not supported for this model", "chat template"})
    if (message.find(text) != std::string::npos) return true;
  return false;
}

class Vllm final : public PlainEngine {
 public:
  std::string binary_name(const Service&) const override { return "vllm"; }

  Result<UnitSpec> launch(const Service& service, const LaunchContext& context) const override {
    const auto* options = service.vllm();
    if (!options) return fail(ErrorCode::configuration, fmt::format("service '{}' has no vllm options", service.id));
    TRY(require_binary(service, context));
    TRY(require_port(service));
    if (model_argument(service).empty())
      return fail(ErrorCode::configuration, fmt::format("service '{}' names no model", service.id),
                  "Add 'model:' with a Hugging Face id or a local folder.");
    if (model_argument(service).starts_with("-"))
      return fail(ErrorCode::configuration,
                  fmt::format("service '{}': a model's name cannot begin with '-'", service.id));

    Environment required;
    if (can_sleep(service)) required.emplace("VLLM_SERVER_DEV_MODE", Secret("1"));
    auto unit = unit_of(service, context, offline_by_default(), required);
    enter_virtual_environment(unit, context);

    Arguments arguments(context.binary);
    arguments.add("serve").add(model_argument(service));
    arguments.option("--port", std::optional(service.port)).option("--host", bind_host(service));
    arguments.option("--served-model-name", service.model.served_name)
        .option("--gpu-memory-utilization", options->gpu_memory_utilization)
        .option("--max-model-len", options->max_model_len)
        .option("--max-num-seqs", options->max_num_seqs)
        .option("--tensor-parallel-size", options->tensor_parallel_size)
        .option("--dtype", options->dtype)
        .option("--runner", options->runner)
        .option("--hf-overrides", options->hf_overrides)
        .flag("--enforce-eager", options->enforce_eager)
        .flag("--trust-remote-code", options->trust_remote_code)
        .flag("--enable-sleep-mode", options->enable_sleep_mode || can_sleep(service));
    if (context.settings) arguments.append(context.settings->extra_args);
    unit.argv = arguments.append(service.extra_args).take();
    return unit;
  }

  std::optional<HttpRequest> readiness_request(const Service& service) const override {
    return get_request(service, service.health_path.empty() ? "/health" : service.health_path, question_timeout);
  }

  ReadinessVerdict judge_readiness(const Service& service, const HttpReply& reply) const override {
    if (reply.status == 200) return {ReadinessVerdict::State::ready, {}};
    // The listener opens after the engine is up, so a 503 is no "still loading": the engine behind it died.
    if (reply.status == 503)
      return {ReadinessVerdict::State::failed, "/health answers 503: vLLM's engine process is dead"};
    return PlainEngine::judge_readiness(service, reply);
  }

  std::optional<HttpRequest> residency_request(const Service& service) const override {
    if (!can_sleep(service)) return std::nullopt;
    return get_request(service, "/is_sleeping", question_timeout);
  }

  Result<Residency> judge_residency(const Service& service, const HttpReply& reply) const override {
    // Started without development mode: then nobody can have put it to sleep either.
    if (reply.status == 404) return Residency::running;
    if (!is_success(reply)) return fail(unanswered(service, "/is_sleeping", reply));
    const auto body = TRY(json_body(reply));
    const auto sleeping = bool_at(body, {"is_sleeping"});
    if (!sleeping) return fail(ErrorCode::failed, "/is_sleeping does not say whether it sleeps");
    if (!*sleeping) return Residency::running;
    return service.sleep == SleepAbility::level2 ? Residency::sleeping2 : Residency::sleeping1;
  }

  std::vector<HttpRequest> sleep_requests(const Service& service, Residency target) const override {
    if (!can_sleep(service)) return {};
    if (target == Residency::sleeping1) return {post_request(service, "/sleep?level=1", "", sleep_timeout(service))};
    if (target == Residency::sleeping2 && service.sleep == SleepAbility::level2)
      return {post_request(service, "/sleep?level=2", "", sleep_timeout(service))};
    return {};
  }

  std::vector<HttpRequest> wake_requests(const Service& service, Residency from) const override {
    if (!can_sleep(service)) return {};
    const auto limit = sleep_timeout(service);
    if (from == Residency::sleeping1) return {post_request(service, "/wake_up", "", limit)};
    if (from != Residency::sleeping2) return {};
    // Level 2 dropped the weights: without the reload the model answers gibberish, with status 200.
    return {post_request(service, "/wake_up?tags=weights", "", limit),
            post_request(service, "/collective_rpc", R"({"method":"reload_weights"})", limit),
            post_request(service, "/wake_up?tags=kv_cache", "", limit)};
  }

  std::optional<HttpRequest> identity_request(const Service& service) const override {
    return get_request(service, "/v1/models", question_timeout);
  }

  Result<void> judge_identity(const Service& service, const HttpReply& reply) const override {
    if (!is_success(reply)) return fail(unanswered(service, "/v1/models", reply));
    const auto body = TRY(json_body(reply));
    const auto* list = find(body, {"data"});
    if (!list || !list->is_array())
      return fail(ErrorCode::failed, fmt::format("port {} does not list its models: it is no vLLM", service.port));
    std::vector<std::string> served;
    for (const auto& entry : list->get_array()) {
      const auto id = string_at(entry, {"id"});
      if (same_model(service, id)) return {};
      // Under a name of its own the root still tells the model; only where people declared no name.
      if (service.model.served_name.empty() && !service.unit.empty() && same_model(service, string_at(entry, {"root"})))
        return {};
      served.push_back(shorten(id, 80));
    }
    return fail(ErrorCode::failed, fmt::format("port {} serves {}, not {}", service.port,
                                               served.empty() ? "no model" : join(served, ", "), model_name(service)));
  }

  ProbeKind probe_kind(const Service& service) const override {
    if (service.probe.kind != ProbeKind::automatic) return service.probe.kind;
    const auto declared = declared_probe_kind(service.probe);
    if (declared == ProbeKind::http || declared == ProbeKind::embedding) return declared;
    return service.vllm() && service.vllm()->runner == "pooling" ? ProbeKind::embedding : ProbeKind::chat;
  }
  std::optional<HttpRequest> probe_request(const Service& service) const override {
    return make_probe(service, probe_kind(service));
  }

  ProbeVerdict judge_probe(const Service& service, const HttpReply& reply) const override {
    if (service.probe.kind == ProbeKind::automatic && lacks_the_api(reply)) {
      ProbeVerdict verdict;
      verdict.ok = true;
      verdict.unproven = true;
      verdict.reason = fmt::format("it answers, but takes no {} requests: declare 'probe:' to have it proven ({})",
                                   to_string(probe_kind(service)), status_and_message(reply));
      return verdict;
    }
    return judge_answer(service, probe_kind(service), reply, truthful_model(service));
  }

  FailureCause classify(const std::vector<LogLine>& log) const override { return first_cause(EngineKind::vllm, log); }
  std::optional<FailureCause> conclusive(const Service&, const LogLine& line) const override {
    return conclusive_cause(EngineKind::vllm, line.text);
  }

  std::vector<std::vector<std::string>> help_arguments(const Service&) const override {
    return {{"serve", "--help=all"}, {"serve", "--help"}};
  }

  IdleNames idle_names() const override {
    return {
        {"--port", "--host", "--api-key", "--served-model-name", "--root-path", "--uvicorn-log-level"},
        {},
        {"VLLM_API_KEY", "VLLM_LOGGING_LEVEL", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PATH", "LANG", "VIRTUAL_ENV"}};
  }
};

}  // namespace

const Engine& vllm_engine() {
  static const Vllm engine;
  return engine;
}

}  // namespace gpumod
