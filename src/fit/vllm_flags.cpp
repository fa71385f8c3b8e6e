#include "fit/vllm_flags.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "base/text.h"
#include "fit/claim.h"
#include "fit/word_reader.h"

namespace gpumod {

namespace {

/// With these more is loaded, or less, or elsewhere, than the arithmetic knows of.
constexpr std::array not_covered{"--quantization",
                                 "-q",
                                 "--cpu-offload-gb",
                                 "--enable-lora",
                                 "--speculative-config",
                                 "--spec-method",
                                 "--load-format",
                                 "--config",
                                 "--model",
                                 "--kv-transfer-config",
                                 "--enable-expert-parallel",
                                 "--block-size",
                                 "--num-gpu-blocks-override"};

std::optional<double> positive(const std::string& text) {
  double read = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), read);
  if (problem != std::errc() || end != text.data() + text.size() || !(read > 0)) return std::nullopt;
  return read;
}

/// vLLM takes "16k" for 16000, and "16K" for 16384.
std::optional<std::int64_t> amount(const std::string& text) {
  static constexpr std::string_view small = "kmgt", large = "KMGT";
  const auto unit = text.empty() ? '\0' : text.back();
  double factor = 1;
  if (const auto at = small.find(unit); at != small.npos) factor = std::pow(1000.0, static_cast<double>(at + 1));
  if (const auto at = large.find(unit); at != large.npos) factor = std::pow(1024.0, static_cast<double>(at + 1));
  const auto read = positive(factor > 1 ? text.substr(0, text.size() - 1) : text);
  if (!read || *read * factor > 1e15) return std::nullopt;
  return static_cast<std::int64_t>(*read * factor);
}

template <typename Number, typename Read>
void put(std::optional<Number>& target, const std::optional<Read>& read) {
  if (read) target = static_cast<Number>(*read);
}

std::optional<int> size_from(WordReader& words, int least = 1) {
  const auto read = words.number();
  if (!read || *read < least || *read > 1024) return std::nullopt;
  return static_cast<int>(*read);
}

/// True when the flag was one of those that say over how many GPUs the model goes (vllm/config/parallel.py).
bool read_parallelism(WordReader& words, VllmOptions& options) {
  if (words.is({"--tensor-parallel-size", "-tp"})) {
    put(options.tensor_parallel_size, size_from(words));
  } else if (words.is({"--pipeline-parallel-size", "-pp"})) {
    put(options.pipeline_parallel_size, size_from(words));
  } else if (words.is({"--prefill-context-parallel-size", "-pcp"})) {
    put(options.prefill_context_parallel_size, size_from(words));
  } else if (words.is({"--data-parallel-size", "-dp"})) {
    put(options.data_parallel_size, size_from(words));
  } else if (words.is({"--data-parallel-size-local", "-dpl"})) {
    put(options.data_parallel_local, size_from(words, 0));  // 0: it only answers, and others compute
  } else if (words.is({"--data-parallel-rank", "-dpn"})) {
    (void)words.value();
    options.data_parallel_local = 1;  // each copy is a server of its own
  } else {
    return false;
  }
  return true;
}

/// True when the flag was one of these.
bool read_option(WordReader& words, VllmOptions& options) {
  if (words.is({"--gpu-memory-utilization"})) {
    const auto share = positive(words.value());
    if (share && *share <= 1) options.gpu_memory_utilization = share;
  } else if (words.is({"--max-model-len"})) {
    const auto text = words.value();
    if (text == "-1" || text == "auto") options.max_model_len.reset();
    put(options.max_model_len, amount(text));
  } else if (words.is({"--max-num-seqs"})) {
    put(options.max_num_seqs, amount(words.value()));
  } else if (words.is({"--kv-cache-memory-bytes", "--kv-cache-memory"})) {
    if (const auto bytes = amount(words.value())) options.kv_cache_memory = Bytes(*bytes);
  } else if (words.is({"--enforce-eager", "--no-enforce-eager"})) {
    options.enforce_eager = words.flag() == "--enforce-eager";
  } else {
    return read_parallelism(words, options);
  }
  return true;
}

Result<void> read_rest(WordReader& words, VllmFlags& flags) {
  const bool unknown = std::find(not_covered.begin(), not_covered.end(), words.flag()) != not_covered.end();
  if (unknown) return fail(ErrorCode::refused, fmt::format("{} is not covered", printable(words.flag())));
  if (words.is({"--kv-cache-dtype"})) {
    const auto type = words.value();
    flags.kv_element_bytes = type.starts_with("fp8") ? 1 : 2;
  } else if (words.is({"--max-num-batched-tokens"})) {
    flags.batched_tokens = amount(words.value()).value_or(flags.batched_tokens);
  }
  return {};
}

}  // namespace

Service as_started(Service service, const std::vector<std::string>& words) {
  auto* options = std::get_if<VllmOptions>(&service.options);
  if (!options || !service.unit.empty()) return service;
  WordReader reader(words);
  while (reader.next()) {
    reader.dashes_for_underscores();
    (void)read_option(reader, *options);
  }
  return service;
}

Result<VllmFlags> vllm_flags_of(const Service& service, const std::vector<std::string>& words, Bytes total) {
  if (!service.vllm()) return fail(ErrorCode::refused, "it is no vLLM");
  if (!service.unit.empty()) return fail(ErrorCode::refused, "its unit is people's own, and so is its command line");
  VllmOptions options = *service.vllm();
  VllmFlags flags;
  WordReader reader(words);
  while (reader.next()) {
    reader.dashes_for_underscores();
    if (!read_option(reader, options)) TRY(read_rest(reader, flags));
  }
  if (gpus_wanted(options) != options.tensor_parallel_size.value_or(1))
    return fail(ErrorCode::refused, "parallelism other than of its tensors is not covered");
  flags.gpu_total = total;
  flags.utilization = options.gpu_memory_utilization.value_or(flags.utilization);
  flags.kv_cache_memory = options.kv_cache_memory;
  flags.context = options.max_model_len;
  flags.tensor_parallel = std::max(1, options.tensor_parallel_size.value_or(1));
  flags.sequences = options.max_num_seqs.value_or(flags.sequences);
  flags.enforce_eager = options.enforce_eager;
  return flags;
}

}  // namespace gpumod
