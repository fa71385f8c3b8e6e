// FastAPI applications under uvicorn: `uvicorn APP`. What the application offers is its own affair, so only what people
// declare is asked of it: a health path, a probe.
#include "engines/failures.h"
#include "engines/launching.h"
#include "engines/probes.h"

namespace gpumod {

namespace {

class Fastapi final : public PlainEngine {
 public:
  std::string binary_name(const Service&) const override { return "uvicorn"; }

  Result<UnitSpec> launch(const Service& service, const LaunchContext& context) const override {
    const auto* options = service.fastapi();
    if (!options) return fail(ErrorCode::configuration, fmt::format("service '{}' has no fastapi options", service.id));
    TRY(require_binary(service, context));
    TRY(require_port(service));
    if (options->app.empty() || options->app.starts_with("-"))
      return fail(ErrorCode::configuration, fmt::format("service '{}' names no application", service.id),
                  "Add 'app:', as in \"package.module:app\".");

    auto unit = unit_of(service, context, offline_by_default(), {});
    enter_virtual_environment(unit, context);
    Arguments arguments(context.binary);
    arguments.add(options->app)
        .option("--port", std::optional(service.port))
        .option("--host", bind_host(service))
        .option("--workers", options->workers);
    if (context.settings) arguments.append(context.settings->extra_args);
    unit.argv = arguments.append(service.extra_args).take();
    return unit;
  }

  ProbeKind probe_kind(const Service& service) const override { return declared_probe_kind(service.probe); }
  std::optional<HttpRequest> probe_request(const Service& service) const override {
    return make_probe(service, probe_kind(service));
  }
  ProbeVerdict judge_probe(const Service& service, const HttpReply& reply) const override {
    return judge_answer(service, probe_kind(service), reply, service.model.served_name);
  }
  FailureCause classify(const std::vector<LogLine>& log) const override {
    return first_cause(EngineKind::fastapi, log);
  }
  std::optional<FailureCause> conclusive(const Service&, const LogLine& line) const override {
    return conclusive_cause(EngineKind::fastapi, line.text);
  }
};

}  // namespace

const Engine& fastapi_engine() {
  static const Fastapi engine;
  return engine;
}

}  // namespace gpumod
