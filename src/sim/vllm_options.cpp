#include "sim/vllm_options.h"

#include <array>
#include <cmath>

#include "base/fd.h"
#include "base/paths.h"
#include "base/text.h"

namespace gpumod::sim {

namespace {

constexpr std::string_view known_faults[] = {
    "engine-survives",  // the engine ignores SIGTERM in a session of its own; the API server leaves without it
    "hang-load",        // stops in the middle of loading: no progress, no CPU
    "slow-compile",     // a child compiles (`compile`): busy, without a log line or memory; then it goes on
    "model-error",      // the tokenizer does not fit
    "wedged",           // healthy, and no request is ever answered
    "health-lies",      // listens and says 200 from the beginning; requests get 503 until the engine is up
    "wrong-model",      // serves `serves`
    "ignore-sigterm",   // both processes do
    "dies-asleep",      // a request to a sleeping engine kills it, as before vLLM queued them
};

const std::vector<std::string_view> known_keys = {
    "weights", "activations", "context",     "kv-per-token", "max-len",
    "dims",    "boot",        "load",        "shards",       "profile",
    "graphs",  "residual",    "sleep1",      "wake1",        "sleep2",
    "wake2",   "answer",      "think",       "residual1",    "residual2",
    "orphan",  "serves",      "crash-after", "compile",      "tokens-per-second",
    "fault"};

Result<std::int64_t> whole(const Options& options, std::string_view key, std::int64_t fallback, std::int64_t least) {
  const double value = TRY(options.number(key, static_cast<double>(fallback)));
  if (value != std::floor(value) || value < static_cast<double>(least) || value > 1e9)
    return fail(ErrorCode::usage,
                fmt::format("simulated option {}={} is no number from {} on", key, options.text(key), least));
  return static_cast<std::int64_t>(value);
}

Result<void> read_faults(std::string_view list, VllmBehaviour& into) {
  while (!list.empty()) {
    const auto name = trim(list.substr(0, list.find(',')));
    list.remove_prefix(
        std::min(list.size(), list.find(',') == std::string_view::npos ? list.size() : list.find(',') + 1));
    if (name.empty()) continue;
    if (name.starts_with("crash-after=")) {
      into.crash_after = TRY(parse_duration(name.substr(12)));
      continue;
    }
    if (std::find(std::begin(known_faults), std::end(known_faults), name) == std::end(known_faults)) {
      const std::vector<std::string> known(std::begin(known_faults), std::end(known_faults));
      return fail(ErrorCode::usage, fmt::format("vLLM has no simulated fault '{}'", name), did_you_mean(name, known));
    }
    into.faults.emplace(name);
  }
  return {};
}

}  // namespace

Result<VllmBehaviour> vllm_behaviour(const Options& options) {
  if (const auto unknown = options.unknown(known_keys); !unknown.empty()) {
    const std::vector<std::string> known(known_keys.begin(), known_keys.end());
    return fail(ErrorCode::usage, fmt::format("vLLM has no simulated option '{}'", unknown.front()),
                did_you_mean(unknown.front(), known));
  }
  VllmBehaviour read;
  read.weights = TRY(options.amount("weights", read.weights));
  read.activations = TRY(options.amount("activations", read.activations));
  read.context = TRY(options.amount("context", read.context));
  read.kv_per_token = TRY(options.amount("kv-per-token", read.kv_per_token));
  read.max_len = TRY(whole(options, "max-len", read.max_len, 1));
  read.dimensions = static_cast<int>(TRY(whole(options, "dims", 0, 0)));
  read.boot = TRY(options.duration("boot", read.boot));
  read.load = TRY(options.duration("load", read.load));
  read.shards = static_cast<int>(TRY(whole(options, "shards", read.shards, 1)));
  read.profile = TRY(options.duration("profile", read.profile));
  read.graphs = TRY(options.duration("graphs", read.graphs));
  const auto residual = TRY(options.amount("residual", read.residual1));
  read.residual1 = TRY(options.amount("residual1", residual));
  read.residual2 = TRY(options.amount("residual2", residual));
  read.sleep1 = TRY(options.duration("sleep1", read.sleep1));
  read.wake1 = TRY(options.duration("wake1", read.wake1));
  read.sleep2 = TRY(options.duration("sleep2", read.sleep2));
  read.wake2 = TRY(options.duration("wake2", read.wake2));
  read.answer = options.text("answer", read.answer);
  read.think = options.text("think");
  read.tokens_per_second = TRY(options.number("tokens-per-second", read.tokens_per_second));
  read.orphan = TRY(options.duration("orphan", read.orphan));
  if (options.has("crash-after")) read.crash_after = TRY(options.duration("crash-after", 0s));
  read.compile = TRY(options.duration("compile", read.compile));
  read.serves = options.text("serves", read.serves);
  TRY(read_faults(options.text("fault"), read));
  if (!(read.tokens_per_second > 0)) return fail(ErrorCode::usage, "simulated option tokens-per-second is not above 0");
  if (read.kv_per_token <= Bytes(0)) return fail(ErrorCode::usage, "simulated option kv-per-token is not above 0");
  return read;
}

Result<VllmBehaviour> vllm_behaviour_for(const std::string& model) {
  Options options;
  const auto file = read_file(model + ".sim", 64 * 1024);
  if (file)
    options = TRY(Options::parse(*file));
  else if (file.error().code != ErrorCode::not_found)
    return fail(file.error());
  options.merge(TRY(Options::parse(environment_variable("GPUMOD_SIM_OPTIONS"))));
  return vllm_behaviour(options);
}

}  // namespace gpumod::sim
