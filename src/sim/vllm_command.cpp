#include "sim/vllm_command.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/text.h"
#include "sim/vllm_process.h"

namespace gpumod::sim {

namespace {

enum class Takes {
  nothing,  ///< a switch, with a --no- form
  text,
  integer,
  size,  ///< an integer that may end in k, K, m, M, g, G
  real,
  several,  ///< one value or more
};

struct Flag {
  std::string_view name;
  Takes takes = Takes::text;
  std::string_view shorter = {};
  std::string_view choices = {};  ///< separated by ','
};

struct Group {
  std::string_view name;
  std::vector<Flag> flags;
};

constexpr std::string_view data_types = "auto,bfloat16,float,float16,float32,half";

/// The flags of the real program, in its groups. Those without an effect here are accepted all the same.
const std::vector<Group>& groups() {
  static const std::vector<Group> all = {
      {"options", {{"headless", Takes::nothing}, {"api-server-count", Takes::integer, "-asc"}, {"config"}}},
      {"Frontend",
       {{"host"},
        {"port", Takes::integer},
        {"uds"},
        {"uvicorn-log-level", Takes::text, {}, "critical,debug,error,info,trace,warning"},
        {"disable-uvicorn-access-log", Takes::nothing},
        {"disable-access-log-for-endpoints"},
        {"allow-credentials", Takes::nothing},
        {"allowed-origins"},
        {"allowed-methods"},
        {"allowed-headers"},
        {"api-key", Takes::several},
        {"lora-modules", Takes::several},
        {"chat-template"},
        {"chat-template-content-format", Takes::text, {}, "auto,openai,string"},
        {"trust-request-chat-template", Takes::nothing},
        {"default-chat-template-kwargs"},
        {"response-role"},
        {"ssl-keyfile"},
        {"ssl-certfile"},
        {"ssl-ca-certs"},
        {"enable-ssl-refresh", Takes::nothing},
        {"ssl-cert-reqs", Takes::integer},
        {"ssl-ciphers"},
        {"root-path"},
        {"middleware"},
        {"return-tokens-as-token-ids", Takes::nothing},
        {"disable-frontend-multiprocessing", Takes::nothing},
        {"enable-request-id-headers", Takes::nothing},
        {"enable-auto-tool-choice", Takes::nothing},
        {"exclude-tools-when-tool-choice-none", Takes::nothing},
        {"tool-call-parser"},
        {"tool-parser-plugin"},
        {"tool-server"},
        {"log-config-file"},
        {"max-log-len", Takes::integer},
        {"disable-fastapi-docs", Takes::nothing},
        {"enable-prompt-tokens-details", Takes::nothing},
        {"enable-server-load-tracking", Takes::nothing},
        {"enable-force-include-usage", Takes::nothing},
        {"enable-tokenizer-info-endpoint", Takes::nothing},
        {"enable-log-outputs", Takes::nothing},
        {"enable-log-deltas", Takes::nothing},
        {"log-error-stack", Takes::nothing},
        {"tokens-only", Takes::nothing},
        {"enable-offline-docs", Takes::nothing},
        {"h11-max-incomplete-event-size", Takes::integer},
        {"h11-max-header-count", Takes::integer}}},
      {"ModelConfig",
       {{"model"},
        {"runner", Takes::text, {}, "auto,draft,generate,pooling"},
        {"convert", Takes::text, {}, "auto,classify,embed,none,reward"},
        {"tokenizer"},
        {"tokenizer-mode", Takes::text, {}, "auto,custom,deepseek_v32,hf,mistral,slow"},
        {"trust-remote-code", Takes::nothing},
        {"dtype", Takes::text, {}, data_types},
        {"seed", Takes::integer},
        {"hf-config-path"},
        {"allowed-local-media-path"},
        {"allowed-media-domains", Takes::several},
        {"revision"},
        {"code-revision"},
        {"tokenizer-revision"},
        {"max-model-len", Takes::size},
        {"quantization", Takes::text, "-q"},
        {"enforce-eager", Takes::nothing},
        {"max-logprobs", Takes::integer},
        {"logprobs-mode"},
        {"disable-sliding-window", Takes::nothing},
        {"disable-cascade-attn", Takes::nothing},
        {"skip-tokenizer-init", Takes::nothing},
        {"enable-prompt-embeds", Takes::nothing},
        {"served-model-name", Takes::several},
        {"config-format"},
        {"hf-token"},
        {"hf-overrides"},
        {"pooler-config"},
        {"generation-config"},
        {"override-generation-config"},
        {"enable-sleep-mode", Takes::nothing},
        {"model-impl"},
        {"override-attention-dtype"},
        {"logits-processors", Takes::several},
        {"io-processor-plugin"}}},
      {"LoadConfig",
       {{"load-format"},
        {"download-dir"},
        {"safetensors-load-strategy"},
        {"model-loader-extra-config"},
        {"ignore-patterns", Takes::several},
        {"use-tqdm-on-load", Takes::nothing},
        {"pt-load-map-location"}}},
      {"StructuredOutputsConfig", {{"reasoning-parser"}, {"reasoning-parser-plugin"}, {"structured-outputs-config"}}},
      {"AttentionConfig", {{"attention-backend"}, {"attention-config", Takes::text, "-ac"}}},
      {"ParallelConfig",
       {{"distributed-executor-backend"},
        {"pipeline-parallel-size", Takes::integer, "-pp"},
        {"master-addr"},
        {"master-port", Takes::integer},
        {"nnodes", Takes::integer, "-n"},
        {"node-rank", Takes::integer, "-r"},
        {"tensor-parallel-size", Takes::integer, "-tp"},
        {"decode-context-parallel-size", Takes::integer, "-dcp"},
        {"prefill-context-parallel-size", Takes::integer, "-pcp"},
        {"data-parallel-size", Takes::integer, "-dp"},
        {"data-parallel-rank", Takes::integer, "-dpn"},
        {"data-parallel-start-rank", Takes::integer, "-dpr"},
        {"data-parallel-size-local", Takes::integer, "-dpl"},
        {"data-parallel-address", Takes::text, "-dpa"},
        {"data-parallel-rpc-port", Takes::integer, "-dpp"},
        {"data-parallel-backend", Takes::text, "-dpb"},
        {"data-parallel-hybrid-lb", Takes::nothing, "-dph"},
        {"data-parallel-external-lb", Takes::nothing, "-dpe"},
        {"enable-expert-parallel", Takes::nothing, "-ep"},
        {"all2all-backend"},
        {"enable-dbo", Takes::nothing},
        {"enable-eplb", Takes::nothing},
        {"eplb-config"},
        {"expert-placement-strategy"},
        {"max-parallel-loading-workers", Takes::integer},
        {"ray-workers-use-nsight", Takes::nothing},
        {"disable-custom-all-reduce", Takes::nothing},
        {"worker-cls"},
        {"worker-extension-cls"}}},
      {"CacheConfig",
       {{"block-size", Takes::integer},
        {"gpu-memory-utilization", Takes::real},
        {"kv-cache-memory-bytes", Takes::size},
        {"swap-space", Takes::real},
        {"kv-cache-dtype"},
        {"num-gpu-blocks-override", Takes::integer},
        {"enable-prefix-caching", Takes::nothing},
        {"prefix-caching-hash-algo"},
        {"cpu-offload-gb", Takes::real},
        {"calculate-kv-scales", Takes::nothing},
        {"kv-sharing-fast-prefill", Takes::nothing},
        {"mamba-cache-dtype"},
        {"mamba-ssm-cache-dtype"},
        {"mamba-block-size", Takes::integer},
        {"mamba-cache-mode"},
        {"kv-offloading-size", Takes::real},
        {"kv-offloading-backend"}}},
      {"MultiModalConfig",
       {{"language-model-only", Takes::nothing},
        {"limit-mm-per-prompt"},
        {"enable-mm-embeds", Takes::nothing},
        {"media-io-kwargs"},
        {"mm-processor-kwargs"},
        {"mm-processor-cache-gb", Takes::real},
        {"mm-processor-cache-type"},
        {"mm-encoder-only", Takes::nothing},
        {"mm-encoder-tp-mode"},
        {"interleave-mm-strings", Takes::nothing},
        {"skip-mm-profiling", Takes::nothing},
        {"video-pruning-rate", Takes::real}}},
      {"LoRAConfig",
       {{"enable-lora", Takes::nothing},
        {"max-loras", Takes::integer},
        {"max-lora-rank", Takes::integer},
        {"lora-dtype"},
        {"max-cpu-loras", Takes::integer},
        {"fully-sharded-loras", Takes::nothing},
        {"default-mm-loras"}}},
      {"ObservabilityConfig",
       {{"show-hidden-metrics-for-version"},
        {"otlp-traces-endpoint"},
        {"collect-detailed-traces", Takes::several},
        {"kv-cache-metrics", Takes::nothing},
        {"cudagraph-metrics", Takes::nothing}}},
      {"SchedulerConfig",
       {{"max-num-batched-tokens", Takes::size},
        {"max-num-seqs", Takes::size},
        {"max-num-partial-prefills", Takes::integer},
        {"max-long-partial-prefills", Takes::integer},
        {"long-prefill-token-threshold", Takes::integer},
        {"scheduling-policy", Takes::text, {}, "fcfs,priority"},
        {"enable-chunked-prefill", Takes::nothing},
        {"disable-chunked-mm-input", Takes::nothing},
        {"scheduler-cls"},
        {"disable-hybrid-kv-cache-manager", Takes::nothing},
        {"async-scheduling", Takes::nothing},
        {"stream-interval", Takes::integer}}},
      {"CompilationConfig",
       {{"cudagraph-capture-sizes", Takes::several}, {"max-cudagraph-capture-size", Takes::integer}}},
      {"VllmConfig",
       {{"speculative-config"},
        {"kv-transfer-config"},
        {"kv-events-config"},
        {"ec-transfer-config"},
        {"compilation-config", Takes::text, "-O"},
        {"additional-config"},
        {"profiler-config"},
        {"optimization-level", Takes::text}}},
      {"AsyncEngineArgs",
       {{"enable-log-requests", Takes::nothing},
        {"disable-log-requests", Takes::nothing},
        {"disable-log-stats", Takes::nothing},
        {"aggregate-engine-logging", Takes::nothing}}},
  };
  return all;
}

const Flag* flag_named(std::string_view name) {
  for (const auto& group : groups())
    for (const auto& flag : group.flags)
      if (flag.name == name) return &flag;
  return nullptr;
}

const Flag* flag_of_short(std::string_view word) {
  for (const auto& group : groups())
    for (const auto& flag : group.flags)
      if (!flag.shorter.empty() && flag.shorter == word) return &flag;
  return nullptr;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (;;) {
    const auto end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

template <typename Number>
std::optional<Number> number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  Number value{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

/// "32k" is 32000, "32K" is 32768; only decimal suffixes take a fraction.
std::optional<std::int64_t> human_number(std::string_view text) {
  if (text == "auto") return -1;
  if (const auto plain = number<std::int64_t>(text)) return plain;
  if (text.size() < 2) return std::nullopt;
  const char suffix = text.back();
  text.remove_suffix(1);
  double factor = 0;
  switch (suffix) {
    case 'k': factor = 1e3; break;
    case 'm': factor = 1e6; break;
    case 'g': factor = 1e9; break;
    case 'K': factor = 1 << 10; break;
    case 'M': factor = 1 << 20; break;
    case 'G': factor = 1 << 30; break;
    default: return std::nullopt;
  }
  const bool binary = suffix < 'a';
  const auto amount = number<double>(text);
  if (!amount || (binary && *amount != std::floor(*amount))) return std::nullopt;
  return static_cast<std::int64_t>(std::llround(*amount * factor));
}

std::string metavar(const Flag& flag) {
  if (!flag.choices.empty()) return fmt::format("{{{}}}", flag.choices);
  std::string name(flag.name);
  for (auto& c : name)
    c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return flag.takes == Takes::several ? fmt::format("{} [{} ...]", name, name) : name;
}

std::string help_of(const Flag& flag) {
  auto line = flag.takes == Takes::nothing ? fmt::format("  --{0}, --no-{0}", flag.name)
                                           : fmt::format("  --{} {}", flag.name, metavar(flag));
  if (!flag.shorter.empty()) line += fmt::format(", {}", flag.shorter);
  return line + "\n";
}

constexpr std::string_view serve_usage = "usage: vllm serve [model_tag] [options]\n";
constexpr std::string_view program_usage =
    "usage: vllm [-h] [-v] {chat,complete,serve,bench,collect-env,run-batch} ...\n";

std::string serve_help(std::string_view wanted) {
  std::string text(serve_usage);
  text += "\nServes one model over an OpenAI-compatible HTTP API (simulated).\n\n";
  if (wanted.empty()) {
    text += "Groups:\n";
    for (const auto& group : groups())
      text += fmt::format("  {}\n", group.name);
    return text +
           "\nvllm serve --help=all shows every flag, --help=GROUP those of a group, --help=WORD those with it.\n";
  }
  const std::string needle(wanted);
  for (const auto& group : groups()) {
    const bool whole = needle == "all" || needle == group.name;
    std::string lines;
    for (const auto& flag : group.flags)
      if (whole || flag.name.find(needle) != std::string_view::npos) lines += help_of(flag);
    if (!lines.empty()) text += fmt::format("{}:\n{}\n", group.name, lines);
  }
  return text;
}

class Parser {
 public:
  explicit Parser(const std::vector<std::string>& words) : words_(words) {}

  std::variant<VllmCommand, VllmLastWords> parse() {
    while (next_ < words_.size() && !last_words_)
      take(words_[next_++]);
    if (!last_words_ && !unknown_.empty())
      last_words_ = VllmLastWords{
          2, fmt::format("{}vllm: error: unrecognized arguments: {}\n", program_usage, join(unknown_, " "))};
    if (last_words_) return *last_words_;
    return command();
  }

 private:
  void complain(const std::string& text) {
    if (!last_words_) last_words_ = VllmLastWords{2, fmt::format("{}vllm serve: error: {}\n", serve_usage, text)};
  }

  void take(const std::string& word) {
    if (word == "-h" || word == "--help") {
      last_words_ = VllmLastWords{0, serve_help("")};
    } else if (word.starts_with("--help=")) {
      last_words_ = VllmLastWords{0, serve_help(std::string_view(word).substr(7))};
    } else if (word.starts_with("--") && word.size() > 2) {
      take_long(word);
    } else if (word.starts_with("-") && word.size() > 1) {
      const auto* flag = flag_of_short(word);
      if (flag)
        take_values(*flag, std::nullopt);
      else
        unknown_.push_back(word);
    } else if (!model_given_) {
      model_given_ = true;
      values_["model"] = {word};
    } else {
      unknown_.push_back(word);
    }
  }

  void take_long(const std::string& word) {
    const auto equals = word.find('=');
    std::string name = word.substr(2, equals == std::string::npos ? equals : equals - 2);
    std::optional<std::string> inline_value;
    if (equals != std::string::npos) inline_value = word.substr(equals + 1);
    const auto dot = name.find('.');
    const bool dotted = dot != std::string::npos;
    name = name.substr(0, dot);
    std::replace(name.begin(), name.end(), '_', '-');
    if (const auto* flag = flag_named(name)) {
      take_values(*flag, std::move(inline_value), dotted);
      return;
    }
    const auto* refused = name.starts_with("no-") ? flag_named(std::string_view(name).substr(3)) : nullptr;
    if (refused && refused->takes == Takes::nothing && !inline_value)
      values_.erase(std::string(refused->name));
    else
      unknown_.push_back(word);
  }

  static bool looks_like_a_flag(const std::string& word) {
    return word.size() > 1 && word[0] == '-' && !number<double>(word);
  }

  void take_values(const Flag& flag, std::optional<std::string> inline_value, bool dotted = false) {
    std::vector<std::string> taken;
    if (flag.takes == Takes::nothing) {
      if (inline_value)
        complain(fmt::format("argument --{}: ignored explicit argument '{}'", flag.name, *inline_value));
    } else if (inline_value) {
      taken.push_back(std::move(*inline_value));
    } else {
      const std::size_t limit = flag.takes == Takes::several ? words_.size() : 1;
      while (taken.size() < limit && next_ < words_.size() && !looks_like_a_flag(words_[next_]))
        taken.push_back(words_[next_++]);
      if (taken.empty())
        complain(fmt::format("argument --{}: expected {}", flag.name,
                             flag.takes == Takes::several ? "at least one argument" : "one argument"));
    }
    if (!dotted)
      for (const auto& value : taken)
        check(flag, value);
    values_[std::string(flag.name)] = std::move(taken);
  }

  void check(const Flag& flag, const std::string& value) {
    const auto invalid = [&](std::string_view kind) {
      complain(fmt::format("argument --{}: invalid {} value: '{}'", flag.name, kind, value));
    };
    if (flag.takes == Takes::integer && !number<std::int64_t>(value)) invalid("int");
    if (flag.takes == Takes::real && !number<double>(value)) invalid("float");
    if (flag.takes == Takes::size && !human_number(value)) invalid("human_readable_int");
    if (flag.choices.empty()) return;
    const auto choices = split(flag.choices, ',');
    if (std::find(choices.begin(), choices.end(), value) == choices.end())
      complain(
          fmt::format("argument --{}: invalid choice: '{}' (choose from {})", flag.name, value, join(choices, ", ")));
  }

  bool given(const char* name) const { return values_.contains(name); }
  std::string text(const char* name, std::string fallback = {}) const {
    const auto found = values_.find(name);
    return found == values_.end() || found->second.empty() ? std::move(fallback) : found->second.front();
  }

  VllmCommand command() const {
    VllmCommand command;
    command.model = text("model", command.model);
    command.host = text("host");
    command.port = static_cast<std::uint16_t>(number<std::int64_t>(text("port", "8000")).value_or(8000));
    command.gpu_memory_utilization = number<double>(text("gpu-memory-utilization", "0.9")).value_or(0.9);
    if (given("max-model-len")) command.max_model_len = human_number(text("max-model-len"));
    command.tensor_parallel_size = number<std::int64_t>(text("tensor-parallel-size", "1")).value_or(1);
    command.runner = text("runner", command.runner);
    command.enforce_eager = given("enforce-eager");
    command.enable_sleep_mode = given("enable-sleep-mode");
    if (given("served-model-name")) command.served_names = values_.at("served-model-name");
    if (given("kv-cache-memory-bytes"))
      command.kv_cache_memory = Bytes(human_number(text("kv-cache-memory-bytes")).value_or(0));
    if (given("api-key")) command.api_keys = values_.at("api-key");
    command.reasoning_parser = text("reasoning-parser");
    return command;
  }

  const std::vector<std::string>& words_;
  std::size_t next_ = 0;
  bool model_given_ = false;
  std::map<std::string, std::vector<std::string>> values_;
  std::vector<std::string> unknown_;
  std::optional<VllmLastWords> last_words_;
};

}  // namespace

std::variant<VllmCommand, VllmLastWords> parse_vllm(const std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments.front() == "-h" || arguments.front() == "--help")
    return VllmLastWords{0, std::string(program_usage)};
  if (arguments.front() == "-v" || arguments.front() == "--version")
    return VllmLastWords{0, fmt::format("{}\n", vllm_version)};
  if (arguments.front() != "serve")
    return VllmLastWords{2, fmt::format("{}vllm: error: argument subparser: invalid choice: '{}' (choose from chat, "
                                        "complete, serve, bench, collect-env, run-batch)\n",
                                        program_usage, arguments.front())};
  const std::vector<std::string> rest(arguments.begin() + 1, arguments.end());
  return Parser(rest).parse();
}

}  // namespace gpumod::sim
