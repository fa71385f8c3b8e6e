#include "engines/launching.h"

#include "engines/reply.h"

namespace gpumod {

namespace {

constexpr const char* system_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

void put_all(Environment& target, const Environment& source) {
  for (const auto& [name, value] : source)
    target.insert_or_assign(name, value);
}

}  // namespace

Environment offline_by_default() {
  Environment environment;
  environment.emplace("HF_HUB_OFFLINE", Secret("1"));
  return environment;
}

std::string bind_host(const Service& service) {
  return service.host.empty() ? "127.0.0.1" : service.host;
}

UnitSpec unit_of(const Service& service, const LaunchContext& context, const Environment& defaults,
                 const Environment& required) {
  UnitSpec unit;
  unit.name = context.unit.empty() ? service.unit_name() : context.unit;
  unit.tag = service.router.empty() ? service.id : service.router;
  unit.description =
      service.router.empty()
          ? fmt::format("gpumod: {} ({})", service.name.empty() ? service.id : service.name, to_string(service.engine))
          : fmt::format("gpumod: router {} ({})", service.router, to_string(service.engine));
  unit.working_directory = service.working_directory;
  unit.stop_timeout = service.stop_timeout;

  put_all(unit.environment, defaults);
  if (context.settings) put_all(unit.environment, context.settings->environment);
  put_all(unit.environment, service.environment);
  put_all(unit.environment, required);
  // Without it CUDA counts by speed, and index 0 is another card than NVML's 0.
  unit.environment.insert_or_assign("CUDA_DEVICE_ORDER", Secret("PCI_BUS_ID"));
  if (!context.cuda_devices.empty())
    unit.environment.insert_or_assign("CUDA_VISIBLE_DEVICES",
                                      Secret(fmt::format("{}", fmt::join(context.cuda_devices, ","))));
  unit.environment.insert_or_assign("GPUMOD_SERVICE", Secret(unit.tag));
  return unit;
}

std::filesystem::path virtual_environment_of(const std::filesystem::path& binary) {
  const auto folder = binary.parent_path();
  if (folder.filename() != "bin") return {};
  const auto root = folder.parent_path();
  // ~/.local/bin holds links into environments that name themselves.
  if (root == "/" || root == "/usr" || root == "/usr/local" || root.filename() == ".local") return {};
  return root;
}

void enter_virtual_environment(UnitSpec& unit, const LaunchContext& context) {
  const auto root = virtual_environment_of(context.binary);
  if (root.empty()) return;
  unit.environment.emplace("VIRTUAL_ENV", Secret(root.string()));
  const auto path = unit.environment.find("PATH");
  const std::string rest = path != unit.environment.end()    ? path->second.reveal()
                           : !context.inherited_path.empty() ? context.inherited_path
                                                             : system_path;
  unit.environment.insert_or_assign("PATH", Secret(fmt::format("{}:{}", (root / "bin").string(), rest)));
}

Result<void> require_port(const Service& service) {
  if (service.port != 0) return {};
  return fail(ErrorCode::configuration, fmt::format("service '{}' has no port", service.id),
              fmt::format("Add 'port:' to {}.", service.source.file.empty() ? service.id : service.source.file));
}

Result<void> require_binary(const Service& service, const LaunchContext& context) {
  if (context.binary.is_absolute()) return {};
  return fail(
      ErrorCode::configuration, fmt::format("the program of service '{}' is not known by an absolute path", service.id),
      fmt::format("Set 'binary:' in the service, or engines.{}.binary in gpumod.yaml.", to_string(service.engine)));
}

std::string connect_host(const Service& service) {
  if (service.host.empty() || service.host == "0.0.0.0" || service.host == "*") return "127.0.0.1";
  if (service.host == "::" || service.host == "[::]") return "::1";
  return service.host;
}

std::string api_key_of(const Service& service) {
  const bool vllm = service.engine == EngineKind::vllm;
  if (!vllm && service.engine != EngineKind::llamacpp) return {};
  constexpr std::string_view flag = "--api-key", joined = "--api-key=";
  std::string key;
  const auto words = service.added_words();
  for (std::size_t i = 0; i < words.size(); ++i)
    if (words[i].starts_with(joined))
      key = words[i].substr(joined.size());
    else if (words[i] == flag && i + 1 < words.size())
      key = words[i + 1];
  const auto variables = vllm ? std::vector{"VLLM_API_KEY"} : std::vector{"LLAMA_API_KEY", "LLAMA_ARG_API_KEY"};
  for (const auto* name : variables)
    if (const auto* value = service.variable(name); value && key.empty()) key = value->reveal();
  // A llama-server takes several, apart by commas.
  return vllm ? key : key.substr(0, key.find(','));
}

Error unanswered(const Service& service, std::string_view path, const HttpReply& reply) {
  auto text = fmt::format("{} answers {}", path, status_and_message(reply));
  if (reply.status != 401 && reply.status != 403) return Error{ErrorCode::failed, std::move(text)};
  return Error{ErrorCode::failed, std::move(text),
               fmt::format("It asks for a key: say it as {} in the service's env_file, and gpumod asks with it.",
                           service.engine == EngineKind::vllm ? "VLLM_API_KEY" : "LLAMA_API_KEY")};
}

HttpRequest get_request(const Service& service, std::string target, Duration timeout) {
  HttpRequest request;
  request.bearer = api_key_of(service);
  request.host = connect_host(service);
  request.port = service.port;
  request.target = std::move(target);
  request.timeout = timeout;
  return request;
}

HttpRequest post_request(const Service& service, std::string target, std::string body, Duration timeout) {
  auto request = get_request(service, std::move(target), timeout);
  request.method = "POST";
  request.body = std::move(body);
  return request;
}

std::optional<HttpRequest> PlainEngine::readiness_request(const Service& service) const {
  if (service.health_path.empty() || service.port == 0) return std::nullopt;
  return get_request(service, service.health_path, question_timeout);
}

ReadinessVerdict PlainEngine::judge_readiness(const Service& service, const HttpReply& reply) const {
  if (is_success(reply)) return {ReadinessVerdict::State::ready, {}};
  return {ReadinessVerdict::State::not_yet,
          fmt::format("{} answers {}", service.health_path, status_and_message(reply))};
}

Result<void> PlainEngine::judge_load(const Service& service, const HttpReply&) const {
  return fail(ErrorCode::failed, fmt::format("service '{}' is no router's model: it cannot be loaded", service.id));
}

Result<void> PlainEngine::judge_unload(const Service& service, const HttpReply&) const {
  return fail(ErrorCode::failed, fmt::format("service '{}' is no router's model: it cannot be unloaded", service.id));
}

const Engine& engine_for(EngineKind kind) {
  switch (kind) {
    case EngineKind::vllm: return vllm_engine();
    case EngineKind::llamacpp: return llamacpp_engine();
    case EngineKind::fastapi: return fastapi_engine();
    case EngineKind::command: break;
  }
  return command_engine();
}

}  // namespace gpumod
