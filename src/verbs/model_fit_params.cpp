#include "verbs/model_fit_params.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace {

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (line = trim(line); !line.empty(); line = trim(line)) {
    const auto end = std::min(line.find_first_of(" \t"), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
  return words;
}

std::optional<Bytes> mebibytes(std::string_view word) {
  std::int64_t count = 0;
  const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), count);
  constexpr std::int64_t most = std::int64_t{1} << 28;  // 256 TiB
  if (problem != std::errc() || end != word.data() + word.size() || count < 0 || count > most) return std::nullopt;
  return Bytes::mib(count);
}

/// Slots that share one cache and yet need more of it than one slot would.
bool slots_matter(const ModelFacts& facts, const LlamaFlags& flags) {
  const auto cells = llama_cells(facts, flags);
  return cells.streams == 1 && cells.sequences > 1 && (facts.sliding_window > 0 || facts.state);
}

}  // namespace

std::vector<FitLine> parse_fit_params(std::string_view output) {
  std::vector<FitLine> lines;
  for (const auto line : split_lines(output)) {
    const auto words = words_of(line);
    if (words.size() != 4) continue;
    const auto weights = mebibytes(words[1]), kv = mebibytes(words[2]), compute = mebibytes(words[3]);
    if (weights && kv && compute) lines.push_back({printable(words[0]), {*weights, *kv, *compute, {}}});
  }
  return lines;
}

std::vector<std::string> fit_params_command(const std::filesystem::path& binary, const std::filesystem::path& model,
                                            const ModelFacts& facts, const LlamaFlags& flags) {
  const auto cells = llama_cells(facts, flags);
  const auto layers = flags.gpu_layers.value_or(-1);
  std::vector<std::string> command;
  const auto add = [&](std::initializer_list<std::string> words) { command.insert(command.end(), words); };
  add({binary.string(), "--fit-print", "on", "-m", model.string()});
  add({"-c", std::to_string(flags.context.value_or(0))});
  add({"-ngl", std::to_string(layers < 0 ? static_cast<std::int64_t>(facts.layers.size()) + 1 : layers)});
  add({"-ctk", flags.cache_k, "-ctv", flags.cache_v, "-ub", std::to_string(flags.batch)});
  if (cells.streams > 1) add({"-np", std::to_string(cells.sequences)});
  if (flags.cpu_moe) add({"--cpu-moe"});
  if (flags.n_cpu_moe > 0) add({"--n-cpu-moe", std::to_string(flags.n_cpu_moe)});
  std::string overrides;
  for (const auto& each : flags.overrides)
    overrides += fmt::format("{}{}={}", overrides.empty() ? "" : ",", each.pattern, each.buffer);
  if (!overrides.empty()) add({"-ot", overrides});
  return command;
}

std::optional<VramEstimate> with_fit_params(const VramEstimate& estimate, const std::vector<FitLine>& lines,
                                            const ModelFacts& facts, const LlamaFlags& flags) {
  VramEstimate counted = estimate;
  counted.gpus.clear();
  for (const auto& line : lines) {
    if (line.device == "Host" || line.device.starts_with("CPU")) continue;
    auto need = line.need;
    need.context = estimate.gpus.front().context;
    counted.gpus.push_back(need);
  }
  if (counted.gpus.empty()) return std::nullopt;
  counted.assumptions.emplace_back("weights, caches and compute buffers as llama-fit-params gives them, in whole MiB");
  if (slots_matter(facts, flags)) {
    const auto ours = estimate.sum().kv;
    const auto gpus = static_cast<std::int64_t>(counted.gpus.size());
    for (auto& gpu : counted.gpus)
      gpu.kv = Bytes(ours.count() / gpus);
    counted.assumptions.emplace_back("caches by arithmetic: llama-fit-params cannot be asked for slots that share one");
  }
  return counted;
}

}  // namespace gpumod
