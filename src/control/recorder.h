// What one switch shows of its services: how long the phases of each step take, and what each holds on the GPUs while it
// comes up and afterwards. It is fed by whoever runs the switch, and gives at the end what may be learned from it.
//
// Whose memory it is: a unit's processes hold it. Of a model that is loaded into a router only processes that were not
// there before count, and none that comes once the next one is loaded.
//
// Only a step that was done at its first attempt, in a switch that was committed, teaches anything; memory only where NVML
// tells what each process holds. Nothing here can fail a switch.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "model/footprint.h"
#include "switching/switch.h"

namespace gpumod {

class Recorder {
 public:
  /// `keys`: by subject, see footprints.h; what has none is not recorded.
  Recorder(std::map<std::string, std::string> keys, Knowledge knowledge)
      : keys_(std::move(keys)), knowledge_(std::move(knowledge)) {}

  /// After everything that the switch was told.
  void note_steps(const Switch& about, TimePoint at);
  /// `owners`: the units of processes.
  void note_gpus(const std::vector<GpuSample>& gpus, const std::map<pid_t, std::string>& owners);
  /// A step has just begun to verify: a sample now shows the service whole.
  bool wants_a_sample() { return std::exchange(wants_a_sample_, false); }

  /// Once it is finished, and after a last sample.
  std::vector<Measurement> learned(const Switch& about, WallTime at) const;

 private:
  struct Watched {
    std::string unit;
    bool loads = false;
    std::optional<Switch::Stage> stage;
    TimePoint since{};
    std::map<Phase, Duration> phases;
    bool holds = false;      // it has begun to act: what its processes hold now is its own
    bool blind = false;      // it cannot be told what it holds
    bool closed = false;     // another model is being loaded: no further process is its own
    std::set<pid_t> before;  // of its unit, when it began to act
    std::set<pid_t> own;
    bool done = false;
    std::map<GpuIndex, Bytes> peak, last;
    std::map<GpuIndex, Bytes> least_free;  // while it came up
  };

  void note_step(const StepReport& report, Switch::Stage stage, Watched& watched, TimePoint at);
  void begin_load(const StepReport& report, Watched& watched);
  void note_held(Watched& watched) const;
  std::optional<std::string> name_of(const std::vector<GpuIndex>& gpus) const;
  void add_memory(const Step& step, const Watched& watched, Measurement& measured) const;

  std::map<std::string, std::string> keys_;
  Knowledge knowledge_;
  std::vector<Watched> watched_;  // by step
  std::vector<GpuSample> gpus_;   // of the last sample
  std::map<pid_t, std::string> owners_;
  std::optional<Snapshot> first_look_;  // what the first plan was made from
  bool wants_a_sample_ = false;
};

}  // namespace gpumod
