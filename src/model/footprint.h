// What a service takes of a GPU and how long its steps take: what people declared stands in their service's file; here is
// what the model's file lets expect, and what the service's own runs have shown.
//
// A footprint holds for one configuration on one machine. Whoever hands it in has already left out everything that was
// learned under another key (arguments, environment, model file, engine build, driver).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "base/units.h"
#include "model/service.h"

namespace gpumod {

/// Where a claim comes from: the better known wins. `utilization`: a vLLM takes its share of the GPU, whatever is known.
enum class ClaimSource { unknown, declared, estimated, measured, utilization };
std::string_view to_string(ClaimSource source);

/// From the header of the model's file and the flags it is started with; on one GPU.
struct EstimatedMemory {
  Bytes weights;
  Bytes kv;       ///< keys and values, and recurrent states
  Bytes compute;  ///< an approximation
  Bytes context;  ///< what CUDA itself takes: an approximation
  /// It says of itself that it is too low for this architecture: only weights and caches can be counted on.
  bool rough = false;
  std::vector<std::string> assumptions;  ///< in words

  Bytes exact() const { return weights + kv; }
  Bytes total() const { return weights + kv + compute + context; }
};

/// What takes time: `ready` from a server's start until it has answered, `release` from its end until its memory is proven
/// back; the others whole.
enum class Phase { start, ready, load, stop, release, unload, sleep, wake };
std::string_view to_string(Phase phase);
std::optional<Phase> phase_from(std::string_view name);

struct PhaseSeconds {
  Duration median{};
  Duration spread{};  ///< how far runs lie from the median, on average
  int runs = 0;
};

/// On one kind of GPU; with several GPUs, on the one where it took most.
struct MeasuredFootprint {
  std::optional<Bytes> peak;             ///< the highest of the remembered runs; unset: NVML has never told
  std::map<Residency, Bytes> steady;     ///< medians
  std::map<Phase, PhaseSeconds> phases;  ///< only those that were seen
  int runs = 0;                          ///< of which the peak is known
  WallTime newest;
};

struct Footprint {
  std::optional<EstimatedMemory> estimated;
  std::string not_estimated;                          ///< why there is none, in words; may be empty
  std::map<std::string, MeasuredFootprint> measured;  ///< by the GPU's name; "" for what uses no GPU
};

/// By service; a router's own start and stop under the name of its unit.
using Footprints = std::map<std::string, Footprint>;

/// What one run has shown, as it is stored.
struct Measurement {
  std::string subject;  ///< a service, or a router's unit
  std::string key;      ///< see control/footprints.h
  std::string gpu;      ///< the GPU's name; "" for what uses no GPU
  WallTime at;
  std::optional<Bytes> peak;
  std::map<Residency, Bytes> steady;
  std::map<Phase, Duration> phases;
};

}  // namespace gpumod
