#include "sim/llama_model.h"

#include <algorithm>
#include <fstream>

#include "base/fd.h"
#include "base/paths.h"
#include "base/text.h"

namespace gpumod::sim {

namespace {

const std::vector<std::string_view> known_keys{"weights",
                                               "kv-per-1k",
                                               "compute",
                                               "cuda",
                                               "layers",
                                               "context",
                                               "load",
                                               "unload",
                                               "tokens-per-second",
                                               "cpu-tokens-per-second",
                                               "answer",
                                               "think",
                                               "loop",
                                               "dims",
                                               "busy-stop",
                                               "wedge-after",
                                               "prompt-tokens-per-second",
                                               "fault"};

const std::vector<std::string> known_faults{
    std::string(llama_faults::bad_model),    std::string(llama_faults::crash_load),
    std::string(llama_faults::hang_load),    std::string(llama_faults::health_lies),
    std::string(llama_faults::wedged_child), std::string(llama_faults::ignore_sigterm),
    std::string(llama_faults::slow_unload),  std::string(llama_faults::wrong_model)};

std::filesystem::path options_file(const std::filesystem::path& file) {
  auto beside = file;
  return beside.replace_extension(".sim");
}

Result<std::set<std::string, std::less<>>> faults_in(std::string_view text) {
  std::set<std::string, std::less<>> faults;
  while (!text.empty()) {
    const auto name = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), name.size() + 1));
    const std::string fault(trim(name));
    if (fault.empty()) continue;
    if (std::find(known_faults.begin(), known_faults.end(), fault) == known_faults.end())
      return fail(ErrorCode::usage, fmt::format("llama-server has no fault '{}'", fault),
                  did_you_mean(fault, known_faults));
    faults.insert(fault);
  }
  return faults;
}

Result<bool> yes_or_no(const Options& options, std::string_view key, std::string_view yes, std::string_view no,
                       bool fallback) {
  const auto value = options.text(key, std::string(fallback ? yes : no));
  if (value != yes && value != no)
    return fail(ErrorCode::usage, fmt::format("{}: '{}' is neither {} nor {}", key, value, yes, no));
  return value == yes;
}

Result<Options> options_for(const std::filesystem::path& file) {
  auto options = TRY(Options::parse(environment_variable("GPUMOD_SIM_OPTIONS")));
  const auto text = read_file(options_file(file), 64 * 1024);
  if (text)
    options.merge(TRY(Options::parse(*text)));
  else if (text.error().code != ErrorCode::not_found)
    return fail(text.error());
  const auto strange = options.unknown(known_keys);
  if (strange.empty()) return options;
  const std::vector<std::string> candidates(known_keys.begin(), known_keys.end());
  return fail(ErrorCode::usage, fmt::format("llama-server has no option '{}'", strange.front()),
              did_you_mean(strange.front(), candidates));
}

}  // namespace

Result<LlamaModel> read_llama_model(const std::filesystem::path& file) {
  std::error_code problem;
  const auto size = std::filesystem::file_size(file, problem);
  if (problem) return fail(ErrorCode::not_found, problem.message());
  char magic[4] = {};
  std::ifstream(file, std::ios::binary).read(magic, sizeof magic);
  const bool is_gguf = std::string_view(magic, sizeof magic) == "GGUF";
  if (!is_gguf && !std::filesystem::exists(options_file(file), problem))
    return fail(ErrorCode::failed, printable(std::string_view(magic, sizeof magic)));

  const auto options = TRY(options_for(file));
  LlamaModel model;
  model.file = file;
  model.weights = TRY(options.amount("weights", Bytes(static_cast<std::int64_t>(size))));
  model.kv_per_1k = TRY(options.amount("kv-per-1k", Bytes()));
  model.compute = TRY(options.amount("compute", Bytes()));
  model.cuda = TRY(options.amount("cuda", Bytes()));
  model.layers = std::max(1, static_cast<int>(TRY(options.number("layers", 32))));
  model.context = std::max(256, static_cast<int>(TRY(options.number("context", 4096))));
  model.faults = TRY(faults_in(options.text("fault")));
  model.load = TRY(options.duration("load", 300ms));
  model.unload = TRY(options.duration("unload", model.has(llama_faults::slow_unload) ? Duration(30s) : 20ms));
  model.tokens_per_second = std::max(0.01, TRY(options.number("tokens-per-second", 2000)));
  model.prompt_tokens_per_second = std::max(0.01, TRY(options.number("prompt-tokens-per-second", 20000)));
  model.cpu_tokens_per_second = std::max(0.01, TRY(options.number("cpu-tokens-per-second", 2)));
  model.dimensions = static_cast<unsigned>(std::max(0.0, TRY(options.number("dims", 0))));
  model.answer = options.text("answer", fmt::format("Hello from {}.", file.stem().string()));
  model.think = options.text("think");
  model.loops = TRY(yes_or_no(options, "loop", "yes", "no", false));
  model.wedges_when_busy = TRY(yes_or_no(options, "busy-stop", "wedge", "end", true));
  model.wedge_after = static_cast<int>(TRY(options.number("wedge-after", 0)));
  return model;
}

int trained_context(const std::filesystem::path& file) {
  const auto model = read_llama_model(file);
  return model ? model->context : 0;
}

}  // namespace gpumod::sim
