// What a simulated llama-server knows of a model file: what it needs, how fast it is, what it says, what is wrong with
// it. From NAME.sim beside NAME.gguf, over $GPUMOD_SIM_OPTIONS; a GGUF file without one weighs what its file weighs.
//
//   weights, kv-per-1k, compute   memory: of all layers, of 1024 tokens of context, of the compute buffers
//   cuda                          what the process takes as soon as it has opened the GPU, asleep or not (0)
//   layers, context               how many layers can be on the GPU (32), the context it was trained for (4096)
//   load, unload                  how long a load takes (0.3s), and how long the process takes to end (20ms)
//   tokens-per-second, prompt-tokens-per-second, cpu-tokens-per-second
//                                 generation with all layers on the GPU (2000), of the prompt (20000), on the CPU (2)
//   answer, think                 what it says to everything, and what it thinks before ("Hello from NAME.", nothing)
//   loop=yes                      it begins its answer anew until the tokens run out
//   dims                          an embedding model with so many dimensions; it cannot chat
//   busy-stop=wedge|end           what becomes of a process that is to end while it generates. The real one mostly
//                                 stays for ever (it waits for its own request), and sometimes cuts its streams and ends
//   wedge-after                   with the fault wedged-child: how many questions it answers first (0)
//   fault=NAME[,NAME]             see llama_faults
#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "sim/options.h"

namespace gpumod::sim {

namespace llama_faults {
constexpr std::string_view bad_model = "bad-model";            ///< the file lacks a tensor: the load fails, exit code 1
constexpr std::string_view crash_load = "crash-load";          ///< aborts with half of its weights taken
constexpr std::string_view hang_load = "hang-load";            ///< takes half of its weights and loads for ever
constexpr std::string_view health_lies = "health-lies";        ///< says that it is ready from the first moment
constexpr std::string_view wedged_child = "wedged-child";      ///< loads, then answers no question and heeds no order
constexpr std::string_view ignore_sigterm = "ignore-sigterm";  ///< only SIGKILL ends it, or its router's order
constexpr std::string_view slow_unload = "slow-unload";        ///< `unload` is 30s unless it says otherwise
constexpr std::string_view wrong_model = "wrong-model";        ///< names another model than it was given
}  // namespace llama_faults

struct LlamaModel {
  std::filesystem::path file;
  Bytes weights;
  Bytes kv_per_1k;
  Bytes compute;
  Bytes cuda;
  int layers = 32;
  int context = 4096;
  Duration load{};
  Duration unload{};
  double tokens_per_second = 0;
  double prompt_tokens_per_second = 0;
  double cpu_tokens_per_second = 0;
  std::string answer;
  std::string think;
  bool loops = false;
  unsigned dimensions = 0;
  bool wedges_when_busy = true;
  int wedge_after = 0;
  std::set<std::string, std::less<>> faults;

  bool has(std::string_view fault) const { return faults.contains(fault); }
};

/// Errors: not_found when there is no file; failed when it is neither a GGUF file nor has a .sim beside it; usage when
/// the options are wrong (each naming the key or fault that nobody knows).
Result<LlamaModel> read_llama_model(const std::filesystem::path& file);

/// The context a model was trained for, 0 when that cannot be told.
int trained_context(const std::filesystem::path& file);

}  // namespace gpumod::sim
