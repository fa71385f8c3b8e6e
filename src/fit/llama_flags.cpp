#include "fit/llama_flags.h"

#include <algorithm>
#include <array>
#include <charconv>

#include <fmt/format.h>

#include "base/text.h"
#include "fit/word_reader.h"

namespace gpumod {

namespace {

/// Flags with which more is loaded, or elsewhere, than the arithmetic knows of, by how they begin.
constexpr std::array not_covered{"--mmproj",       "--lora",        "--control-vector", "--model-draft", "--draft",
                                 "--spec",         "--rpc",         "--device",         "--hf-repo",     "--hf-file",
                                 "--model-url",    "--docker-repo", "--lazy-mode",      "--override-kv", "--n-cpu-ffn",
                                 "--moe-cache-mib"};
/// The same where a letter more means something else.
constexpr std::array not_covered_words{"-mm", "-mmu", "-md",  "-cd",   "-dev", "-m",  "--model", "-mu",
                                       "-hf", "-hfr", "-hfd", "-hfrd", "-hff", "-dr", "-lzm",    "-ncffn"};

bool is_not_covered(std::string_view flag) {
  return std::find(not_covered_words.begin(), not_covered_words.end(), flag) != not_covered_words.end() ||
         std::any_of(not_covered.begin(), not_covered.end(),
                     [&](std::string_view beginning) { return flag.starts_with(beginning); });
}

class Reader {
 public:
  explicit Reader(const std::vector<std::string>& words) : words_(words) {}

  Result<void> read(LlamaFlags& flags) {
    while (words_.next()) {
      words_.dashes_for_underscores();
      TRY(read_one(flags));
    }
    return {};
  }

 private:
  bool is(std::initializer_list<std::string_view> names) const { return words_.is(names); }
  std::string value() { return words_.value(); }
  Result<std::int64_t> number() { return words_.number(); }
  Result<int> small_number() { return static_cast<int>(std::clamp<std::int64_t>(TRY(number()), -1, 1 << 30)); }

  /// -fa stood alone in older builds.
  bool on_or_off() {
    const auto state = words_.value_among({"on", "off", "auto", "1", "0", "enabled", "disabled"}).value_or("on");
    return state != "off" && state != "0" && state != "disabled";
  }

  Result<void> read_one(LlamaFlags& flags) {
    const auto& flag = words_.flag();
    if (is_not_covered(flag)) return fail(ErrorCode::refused, fmt::format("{} is not covered", printable(flag)));
    if (is({"-c", "--ctx-size"})) {
      flags.context = TRY(number());
    } else if (is({"-ngl", "--gpu-layers", "--n-gpu-layers"})) {
      const auto layers = value();
      flags.gpu_layers = -1;  // "all", "auto"
      if (!layers.empty() && layers != "all" && layers != "auto") {
        int read = 0;
        if (std::from_chars(layers.data(), layers.data() + layers.size(), read).ec != std::errc())
          return fail(ErrorCode::refused, fmt::format("{} is '{}'", flag, printable(layers)));
        flags.gpu_layers = read;
      }
    } else if (is({"-ctk", "--cache-type-k"})) {
      flags.cache_k = value();
    } else if (is({"-ctv", "--cache-type-v"})) {
      flags.cache_v = value();
    } else if (is({"-np", "--parallel"})) {
      const auto slots = TRY(small_number());
      flags.parallel = slots > 0 ? std::optional(slots) : std::nullopt;
    } else if (is({"-ub", "--ubatch-size"})) {
      flags.batch = TRY(small_number());
    } else if (is({"-ncmoe", "--n-cpu-moe"})) {
      flags.n_cpu_moe = TRY(small_number());
    } else if (is({"-cmoe", "--cpu-moe"})) {
      flags.cpu_moe = true;
    } else if (is({"-ot", "--override-tensor"})) {
      for (auto& each : TRY(parse_overrides(value())))
        flags.overrides.push_back(std::move(each));
    } else if (is({"--swa-full"})) {
      flags.swa_full = true;
    } else if (is({"-kvu", "--kv-unified"})) {
      flags.unified = true;
    } else if (is({"-no-kvu", "--no-kv-unified"})) {
      flags.unified = false;
    } else if (is({"-nkvo", "--no-kv-offload"})) {
      flags.kv_offload = false;
    } else if (is({"-fa", "--flash-attn"})) {
      flags.flash_attention = on_or_off();
    }
    return {};
  }

  WordReader words_;
};

/// llama-server reads its flags from the environment, too: whoever uses that says more than is looked at here.
std::optional<std::string> flag_in_environment(const Service& service) {
  static constexpr std::array harmless{"LLAMA_ARG_HOST",    "LLAMA_ARG_PORT",       "LLAMA_ARG_API_KEY",
                                       "LLAMA_ARG_THREADS", "LLAMA_ARG_ALIAS",      "LLAMA_ARG_ENDPOINT_METRICS",
                                       "LLAMA_ARG_FIT",     "LLAMA_ARG_FIT_TARGET", "LLAMA_ARG_FIT_CTX"};
  for (const auto* environment : {&service.environment, &service.inherited_environment})
    for (const auto& [name, value] : *environment)
      if (name.starts_with("LLAMA_ARG_") && std::find(harmless.begin(), harmless.end(), name) == harmless.end())
        return name;
  return std::nullopt;
}

}  // namespace

Result<LlamaFlags> llama_flags_of(const Service& service, const std::vector<std::string>& words) {
  const auto* llama = service.llama();
  if (!llama) return fail(ErrorCode::refused, "it is no llama-server");
  if (!service.unit.empty()) return fail(ErrorCode::refused, "its unit is people's own, and so is its command line");
  if (!llama->models_preset.empty()) return fail(ErrorCode::refused, "a models preset of people's own is not read");
  if (service.gpu.devices.size() > 1)
    return fail(ErrorCode::refused, "how it spreads over several GPUs is decided at its start");
  if (const auto name = flag_in_environment(service))
    return fail(ErrorCode::refused, fmt::format("{} is not covered", printable(*name)));
  LlamaFlags flags;
  flags.context = llama->context_size;
  flags.gpu_layers = llama->gpu_layers;
  flags.n_cpu_moe = std::max(0, llama->n_cpu_moe.value_or(0));
  flags.flash_attention = llama->flash_attention != "off";
  TRY(Reader(words).read(flags));
  return flags;
}

}  // namespace gpumod
