// Any server by its command line. No shell: each element of `cmd` is one argument, in which ${PORT} and ${HOST} are
// replaced. Ready by its health path if it declares one, else when its port listens; proven only by a declared probe.
#include "engines/failures.h"
#include "engines/launching.h"
#include "engines/probes.h"

namespace gpumod {

namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

Result<std::vector<std::string>> filled_in(const Service& service, std::vector<std::string> words, const char* field) {
  for (auto& word : words) {
    if (service.port == 0 && word.find("${PORT}") != std::string::npos)
      return fail(ErrorCode::configuration,
                  fmt::format("service '{}': {} uses ${{PORT}}, but it has no port", service.id, field),
                  "Add 'port:' to the service.");
    replace_all(word, "${PORT}", fmt::format("{}", service.port));
    replace_all(word, "${HOST}", bind_host(service));
  }
  return words;
}

/// The inference server that the command starts, as far as its words say: by itself, through Python, or in a container.
std::optional<EngineKind> program_of(const Service& service) {
  const auto* options = service.command();
  if (!options) return std::nullopt;
  for (const auto& word : options->cmd) {
    const auto name = std::filesystem::path(word).filename().string();
    if (name.starts_with("llama-server") || name.starts_with("llama.cpp:")) return EngineKind::llamacpp;
    if (name == "vllm" || name.starts_with("vllm.") || name.starts_with("vllm-openai")) return EngineKind::vllm;
    if (name == "uvicorn" || name == "fastapi") return EngineKind::fastapi;
  }
  return std::nullopt;
}

class Command final : public PlainEngine {
 public:
  /// The service's own cmd says it.
  std::string binary_name(const Service&) const override { return {}; }

  Result<UnitSpec> launch(const Service& service, const LaunchContext& context) const override {
    const auto* options = service.command();
    if (!options || options->cmd.empty())
      return fail(ErrorCode::configuration, fmt::format("service '{}' has no cmd", service.id),
                  "Add 'cmd:', a list of the program and its arguments.");
    TRY(require_binary(service, context));

    auto unit = unit_of(service, context, offline_by_default(), {});
    enter_virtual_environment(unit, context);
    auto words = TRY(filled_in(service, options->cmd, "cmd"));
    words.front() = context.binary.string();
    if (context.settings)
      words.insert(words.end(), context.settings->extra_args.begin(), context.settings->extra_args.end());
    words.insert(words.end(), service.extra_args.begin(), service.extra_args.end());
    unit.argv = std::move(words);

    unit.stop_argv = TRY(filled_in(service, options->cmd_stop, "cmd_stop"));
    if (!unit.stop_argv.empty() && !context.stop_binary.empty()) unit.stop_argv.front() = context.stop_binary.string();
    if (!unit.stop_argv.empty() && !std::filesystem::path(unit.stop_argv.front()).is_absolute())
      return fail(ErrorCode::configuration,
                  fmt::format("service '{}': the program of cmd_stop, '{}', is not known by an absolute path",
                              service.id, unit.stop_argv.front()),
                  "Write its whole path.");
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
    return first_cause(EngineKind::command, log);
  }
  /// Only a known program is taken at its word: a proxy in front of others tells of their failures and lives on.
  std::optional<FailureCause> conclusive(const Service& service, const LogLine& line) const override {
    const auto program = program_of(service);
    if (!program) return std::nullopt;
    return conclusive_cause(*program, line.text);
  }
  /// It may not even know --help, and starting a stranger's program to see is no question.
  std::vector<std::vector<std::string>> help_arguments(const Service&) const override { return {}; }
};

}  // namespace

const Engine& command_engine() {
  static const Command engine;
  return engine;
}

}  // namespace gpumod
