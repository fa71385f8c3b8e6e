// What a simulated vLLM is told beyond its command line: how big its model is, how long things take, how it answers,
// and which faults it has. Keys (amounts "16GiB", durations of simulated time "1.5s"):
//
//   weights 1GiB        activations 256MiB   context 500MiB      memory, over all GPUs but for context (one each)
//   kv-per-token 144KiB max-len 40960        dims (an embedding model of so many dimensions)
//   boot 2s  load 6s  shards 4  profile 2s  graphs 2s            the way up
//   residual 1100MiB (residual1, residual2: by level)            what a sleeper keeps on each GPU, its context included
//   sleep1 1s  wake1 1s  sleep2 300ms  wake2 2s                  wake2 is the reload of the weights
//   answer "I am {model}."  ("{prompt}" too)  think ""  tokens-per-second 100
//   orphan 0s           how long the engine outlives a killed API server; 0: until somebody ends it
//   crash-after D       the engine dies so long after it was ready
//   compile 30s         how long slow-compile compiles
//   serves NAME         what wrong-model serves
//   fault A,B           the list in vllm_options.cpp
//
// They stand in MODEL.sim beside the model and in $GPUMOD_SIM_OPTIONS, which wins.
#pragma once

#include <set>
#include <string>

#include "sim/options.h"

namespace gpumod::sim {

struct VllmBehaviour {
  Bytes weights = Bytes::gib(1);
  Bytes activations = Bytes::mib(256);
  Bytes context = Bytes::mib(500);
  Bytes kv_per_token = Bytes(144 * 1024);
  std::int64_t max_len = 40960;  ///< what the model was made for
  int dimensions = 0;            ///< 0: a generating model
  Duration boot = 2s;
  Duration load = 6s;
  int shards = 4;
  Duration profile = 2s;
  Duration graphs = 2s;
  Bytes residual1 = Bytes::mib(1100);
  Bytes residual2 = Bytes::mib(1100);
  Duration sleep1 = 1s;
  Duration wake1 = 1s;
  Duration sleep2 = 300ms;
  Duration wake2 = 2s;
  std::string answer = "I am {model}.";
  std::string think;
  double tokens_per_second = 100;
  Duration orphan = Duration::zero();
  std::optional<Duration> crash_after;
  Duration compile = 30s;
  std::string serves = "another/model";
  std::set<std::string, std::less<>> faults;

  bool has(std::string_view fault) const { return faults.contains(fault); }
};

/// Errors: usage, naming an unknown key or fault, or a value that is none.
Result<VllmBehaviour> vllm_behaviour(const Options& options);
/// From the file beside the model and from the environment.
Result<VllmBehaviour> vllm_behaviour_for(const std::string& model);

}  // namespace gpumod::sim
