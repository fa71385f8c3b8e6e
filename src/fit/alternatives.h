// What else would fit: changes that people could make to services where a mode does not fit, and the search among them.
// Pure: whether a change helps is answered by whoever asks, who simulates it. Nothing is proposed that was not.
//
// Changes of one kind to one service form a ladder, from the rung that costs its user least to the one that costs most:
// contexts of three quarters, a half … of what it has; fewer and fewer layers on the GPU. Only the first rung that fits is
// of interest. Where no single change helps, two together are tried.
//
// What its user loses decides the order in which alternatives are shown (`loss`, 0 to 100):
//     0  another GPU                            nothing
//    10  caches as q8_0                         hardly anything
//  15-25 a smaller share for a vLLM             fewer requests at once, fewer cached prefixes
//  20-50 another quantization on disk           some quality, the more the smaller it is
//  25-65 a smaller context                      long conversations and documents
//    35  caches as q4_0                         some quality over long contexts
//    50  asleep                                 the seconds until it is awake, whenever it is asked
//  55-75 experts in host memory                 speed
//  60-90 fewer layers on the GPU                most of its speed
//   100  an optional service left out           all of it
// A context is never made smaller, or larger, without being said: each is a change that names what was and what would be.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fit/llama_estimate.h"
#include "formats/model_facts.h"
#include "model/footprint.h"
#include "model/gpu.h"
#include "model/service.h"

namespace gpumod {

struct Change {
  enum class Kind { gpu, cache_type, share, quantization, context, sleep, experts, layers, drop };
  Kind kind = Kind::context;
  ServiceId service;
  std::string text;   ///< "give 'chat' 16384 tokens of context instead of 32768"
  std::string loses;  ///< what its user loses, in words
  std::string edit;   ///< the lines of its file that say so; "" where no file has to change
  double loss = 0;

  // What it does; exactly one is set, but for drop.
  std::optional<std::string> device;
  std::optional<std::string> cache_type;
  std::optional<double> utilization;
  const ModelFacts* model = nullptr;
  std::optional<std::int64_t> context;
  std::optional<Residency> residency;
  std::optional<int> cpu_experts;
  std::optional<int> gpu_layers;
};
std::string_view to_string(Change::Kind kind);

/// From the least loss to the most.
struct Ladder {
  std::vector<Change> rungs;
  bool falling = false;  ///< each rung takes less than the one before, so the first that fits is found by halving
};

/// A service that is to run, and what is known of it.
struct Subject {
  const Service* service = nullptr;
  const Footprint* known = nullptr;   ///< null: nothing beyond its file
  const ModelFacts* model = nullptr;  ///< null: its file cannot be read
  std::optional<LlamaFlags> flags;    ///< of a llama-server whose command line is ours and covered by the arithmetic
  std::vector<const ModelFacts*> others;  ///< the same model in other quantizations, on this disk
  bool optional = false;                  ///< the mode may do without it
  std::vector<std::string> words = {};    ///< its further arguments: its engine's, then its unit's
};

/// Only rungs that change something: what stands in the service's file has no effect where its arguments say it, too.
std::vector<Ladder> ladders_for(const Subject& subject, const std::vector<GpuSample>& gpus);

struct Alternative {
  std::vector<Change> changes;
  double loss = 0;
};
/// True when the switch with these changes can be planned and keeps the margin all the time.
using Trial = std::function<bool(const std::vector<Change>&)>;
/// The least loss first; at most `most`. Every one was tried.
std::vector<Alternative> find_alternatives(const std::vector<Ladder>& ladders, const Trial& trial, std::size_t most);

}  // namespace gpumod
