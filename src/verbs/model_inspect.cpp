// model inspect: what a model file says, and what it would take of a GPU.

#include "verbs/model_inspect.h"

#include <charconv>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "formats/model_file.h"
#include "host/gpu_monitor.h"
#include "host/run.h"
#include "verbs/handlers.h"
#include "verbs/model_fit_params.h"
#include "verbs/model_json.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

constexpr Duration fit_params_timeout = 30s;

tl::unexpected<Error> not_for(std::string_view option, std::string_view format) {
  return fail(ErrorCode::usage, fmt::format("--{} says nothing about {} models", option, format));
}

constexpr std::int64_t largest_number = 0x7FFFFFFF;  // as the engines take them

/// A number from `least` to what an engine takes; unset when the request does not have it.
Result<std::optional<std::int64_t>> number_from(const Request& request, std::string_view name, std::int64_t least) {
  const auto value = integer_of(request, name);
  if (value && *value < least)
    return fail(ErrorCode::usage, fmt::format("--{} must be {} at least, and is {}", name, least, *value));
  if (value && *value > largest_number)
    return fail(ErrorCode::usage, fmt::format("--{} must be {} at most, and is {}", name, largest_number, *value));
  return value;
}

Result<LlamaFlags> llama_flags(const Request& request) {
  for (const char* other : {"utilization", "tensor-parallel", "gpu-memory"})
    if (request.contains(other)) return not_for(other, "GGUF");
  LlamaFlags flags;
  flags.context = TRY(number_from(request, "context", 0));
  flags.cpu_moe = flag_of(request, "cpu-moe");
  if (const auto layers = TRY(number_from(request, "gpu-layers", -1))) flags.gpu_layers = static_cast<int>(*layers);
  if (const auto slots = TRY(number_from(request, "parallel", 1))) flags.parallel = static_cast<int>(*slots);
  if (const auto moe = TRY(number_from(request, "n-cpu-moe", 0))) flags.n_cpu_moe = static_cast<int>(*moe);
  if (const auto types = list_of(request, "cache-type"); !types.empty()) {
    if (types.size() > 2)
      return fail(ErrorCode::usage, "--cache-type takes one type, or one for keys and one for values");
    flags.cache_k = types.front();
    flags.cache_v = types.back();
  }
  flags.overrides = TRY(parse_overrides(text_of(request, "override-tensor")));
  return flags;
}

Result<VllmFlags> vllm_flags(const Request& request) {
  for (const char* other : {"gpu-layers", "parallel", "cache-type", "n-cpu-moe", "cpu-moe", "override-tensor"})
    if (request.contains(other)) return not_for(other, "safetensors");
  VllmFlags flags;
  flags.context = TRY(number_from(request, "context", 0));
  if (const auto gpus = TRY(number_from(request, "tensor-parallel", 1)))
    flags.tensor_parallel = static_cast<int>(*gpus);
  if (const auto mib = TRY(number_from(request, "gpu-memory", 1))) flags.gpu_total = Bytes::mib(*mib);
  if (const auto text = text_of(request, "utilization"); !text.empty()) {
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), flags.utilization);
    if (problem != std::errc() || end != text.data() + text.size())
      return fail(ErrorCode::usage, fmt::format("--utilization needs a number like 0.9, not '{}'", printable(text)));
  }
  return flags;
}

/// Beside the llama-server that services would be started with, or in PATH.
Result<fs::path> find_fit_params(Context& context) {
  constexpr auto name = "llama-fit-params";
  const auto path = environment_variable("PATH");
  std::vector<fs::path> servers;
  if (const auto catalog = context.catalog()) {
    const auto& engines = (*catalog)->settings.engines;
    const auto settings = engines.find(EngineKind::llamacpp);
    if (settings != engines.end() && settings->second.binary.is_absolute()) servers.push_back(settings->second.binary);
  }
  if (auto server = find_program("llama-server", path)) servers.push_back(std::move(*server));
  for (const auto& server : servers) {
    std::error_code problem;
    for (const auto& each : {server, fs::canonical(server, problem)})
      if (auto beside = find_program((each.parent_path() / name).string(), path); beside && !each.empty())
        return *beside;
  }
  return find_program(name, path);
}

/// {"source": …}: by llama-fit-params where it is there and sees a GPU, else by arithmetic.
Task<Result<json::object>> llama_vram(Context& context, const ModelFacts& facts, LlamaFlags flags, ModelIs where) {
  const auto estimate = estimate_llama(facts, flags);
  if (!estimate) co_return fail(estimate.error());
  const auto binary = find_fit_params(context);
  if (binary && where == ModelIs::here && !facts.files.empty()) {
    auto command = fit_params_command(*binary, fs::absolute(facts.files.front()), facts, flags);
    const auto outcome = co_await run_program(std::move(command), fit_params_timeout);
    if (outcome && outcome->exit_code == 0) {
      const auto lines = parse_fit_params(outcome->output);
      if (const auto counted = with_fit_params(*estimate, lines, facts, flags)) {
        auto vram = vram_json(*counted, "llama-fit-params");
        vram["arithmetic"] = need_json(estimate->sum());
        co_return vram;
      }
    } else {
      context.notice(fmt::format("{} did not answer; the figures are arithmetic", printable(binary->string())));
    }
  }
  co_return vram_json(*estimate, "arithmetic");
}

/// The memory of the first GPU, when there is one to ask.
Task<Bytes> gpu_total() {
  const auto monitor = open_nvml();
  if (!monitor) co_return Bytes();
  const auto sample = co_await (*monitor)->sample();
  co_return sample && !sample->empty() ? sample->front().total.value_or(Bytes()) : Bytes();
}

/// A file may be well-formed and hold nothing to run.
std::string no_tensors(const ModelFacts& facts) {
  if (facts.vocabulary > 0)
    return "This file holds a vocabulary and no weights: there is no model in it that could run.";
  return "This file holds no weights: there is no model in it that could run. Was its download complete?";
}

}  // namespace

Task<Result<json::object>> describe_model(Context& context, ModelFacts facts, Request request, ModelIs where) {
  auto answer = model_json(facts, flag_of(request, "tensors") ? TensorList::listed : TensorList::counted);
  answer["notes"] = json::array();
  if (facts.format == ModelFormat::gguf) {
    const auto flags = llama_flags(request);
    if (!flags) co_return fail(flags.error());
    if (facts.tensors.empty()) {
      answer["vram"] = nullptr;
      answer["notes"] = json::array{json::value(no_tensors(facts))};
      co_return answer;
    }
    auto vram = co_await llama_vram(context, facts, *flags, where);
    if (!vram) co_return fail(vram.error());
    answer["vram"] = std::move(*vram);
  } else {
    auto flags = vllm_flags(request);
    if (!flags) co_return fail(flags.error());
    if (flags->gpu_total == Bytes()) flags->gpu_total = co_await gpu_total();
    const auto estimate = estimate_vllm(facts, *flags);
    if (!estimate) co_return fail(estimate.error());
    answer["vram"] = vram_json(*estimate);
  }
  co_return answer;
}

Answer model_inspect(Context& context, Request request) {
  const fs::path path = text_of(request, "path");
  Result<ModelFacts> facts = fail(ErrorCode::failed, "not read");
  const std::function<void()> read = [&facts, &path] { facts = read_model(path); };
  co_await run_blocking(read);  // a model may lie on a network that takes its time
  if (!facts) co_return fail(facts.error());
  auto answer = co_await describe_model(context, std::move(*facts), std::move(request), ModelIs::here);
  if (!answer) co_return fail(answer.error());
  co_return json::value(std::move(*answer));
}

}  // namespace gpumod
