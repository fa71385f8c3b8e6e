// The simulated vLLM's command line: `vllm serve MODEL …` with the real program's flags, read the way its argparse
// reads them ("--a_b" is "--a-b", "--x=1" is "--x 1", "--hf-overrides.key v" belongs to --hf-overrides, unknown ones
// end with status 2). Pure: text in, a command or the program's last words out.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/units.h"

namespace gpumod::sim {

struct VllmCommand {
  std::string model = "Qwen/Qwen3-0.6B";  ///< a folder or a hub id: what it serves under unless a name is given
  std::string host;                       ///< "": every address
  std::uint16_t port = 8000;
  double gpu_memory_utilization = 0.9;
  /// Unset: what the model was made for. -1: whatever fits into the KV cache.
  std::optional<std::int64_t> max_model_len;
  std::int64_t tensor_parallel_size = 1;
  std::string runner = "auto";  ///< auto, draft, generate, pooling
  bool enforce_eager = false;
  bool enable_sleep_mode = false;
  std::vector<std::string> served_names;  ///< empty: `model`; the first one stands in answers
  std::optional<Bytes> kv_cache_memory;   ///< replaces gpu_memory_utilization
  std::vector<std::string> api_keys;
  std::string reasoning_parser;

  const std::string& served_name() const { return served_names.empty() ? model : served_names.front(); }
};

/// The program is to print this and end: help, a version, a complaint.
struct VllmLastWords {
  int exit_code = 0;
  std::string text;
};

std::variant<VllmCommand, VllmLastWords> parse_vllm(const std::vector<std::string>& arguments);

}  // namespace gpumod::sim
