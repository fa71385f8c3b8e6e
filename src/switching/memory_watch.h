// The two proofs about memory that no single sample can give, as decisions over samples: is there room and has it
// settled (before a start), and has a sleeper's memory fallen (after a sleep or an unload). NVML signals nothing and has
// no history: what is true is what several samples agree on. Who samples, and how often, is not decided here.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

#include "base/result.h"
#include "base/time.h"
#include "model/gpu.h"
#include "model/snapshot.h"

namespace gpumod {

/// What one sample says of one GPU.
struct MemoryReading {
  GpuIndex gpu = 0;
  std::optional<Bytes> free;
  std::vector<std::pair<pid_t, Bytes>> ours;  ///< what processes of our units hold, in the order of their pids
  Bytes unattributed;  ///< used, and held by no process that NVML lists; the driver's own share included
  bool every_holder_known = true;

  bool operator==(const MemoryReading&) const = default;
};

/// Is `need` free on each GPU, and will it stay so? Settled: our own processes hold the same as a moment ago, and no
/// memory without a holder is coming back (a driver that is still at work for a process that has ended: a vLLM that
/// starts into that aborts while it profiles). Whether some is on its way shows against what nobody held when the switch
/// began; for how long it pauses, only waiting tells. What foreign processes do counts only in what is free.
class RoomWatch {
 public:
  /// `baseline`: by GPU, what nobody held before the switch did anything; empty: not known, or not worth comparing with.
  RoomWatch(std::map<GpuIndex, Bytes> need, std::map<GpuIndex, Bytes> baseline, TimePoint now, TimePoint deadline);

  enum class Verdict { room, wait, none };
  struct Answer {
    Verdict verdict = Verdict::wait;
    std::string missing;               ///< for none: in words
    std::string awaited;               ///< for wait: in words; "" where it is only a second look
    std::optional<GpuIndex> short_of;  ///< for none: the GPU that lacks room, whose holders people want to know
    TimePoint until{};  ///< for wait: if every sample until then is the same as this one, so is the answer
  };
  /// `readings`: one for each GPU of the step; none: the GPUs could not be read.
  Answer on(std::vector<MemoryReading> readings, TimePoint now);

 private:
  std::string coming_back(const std::vector<MemoryReading>& readings) const;

  std::map<GpuIndex, Bytes> need_, baseline_, least_;
  TimePoint deadline_;
  TimePoint fell_at_;
  std::optional<TimePoint> taken_since_;
  std::vector<MemoryReading> before_;
};

/// Does a unit that lives on hold at most `ceiling` on each GPU? NVML's figures say so, whatever its server says.
class FallWatch {
 public:
  FallWatch(std::map<GpuIndex, Bytes> ceiling, TimePoint now, TimePoint deadline);

  enum class Verdict { fallen, wait, stays };
  struct Answer {
    Verdict verdict = Verdict::wait;
    std::string above;  ///< for stays: in words
    TimePoint until{};  ///< for wait, as above
  };
  /// By GPU, what the unit's processes hold; an error: the GPUs could not be read.
  Answer on(const Result<std::map<GpuIndex, Bytes>>& held, TimePoint now);

 private:
  std::map<GpuIndex, Bytes> ceiling_;
  TimePoint deadline_;
  TimePoint fell_at_;
  std::optional<Bytes> least_;
};

}  // namespace gpumod
