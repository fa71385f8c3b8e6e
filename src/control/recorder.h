// What one switch shows of its services: how long the phases of each step take, and what each holds on the GPUs while it
// comes up and afterwards. It is fed by whoever runs the switch, and gives at the end what may be learned from it, and a
// recording of all of it for people (control/tape.h).
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

#include "control/tape.h"
#include "model/footprint.h"
#include "model/recording.h"
#include "switching/switch.h"

namespace gpumod {

class Recorder {
 public:
  /// `keys`: by subject, see footprints.h; what has none is not recorded.
  Recorder(std::map<std::string, std::string> keys, Knowledge knowledge, TimePoint began)
      : keys_(std::move(keys)), knowledge_(std::move(knowledge)), tape_(began) {}

  /// What the switch is told, before it is.
  void note_event(const Event& event, TimePoint at) { tape_.note_event(event, at); }
  /// After everything that the switch was told.
  void note_steps(const Switch& about, TimePoint at);
  /// `owners`: the units of processes.
  void note_gpus(const std::vector<GpuSample>& gpus, const std::map<pid_t, std::string>& owners, TimePoint at);
  /// A step has just begun to verify: a sample now shows the service whole.
  bool wants_a_sample() { return std::exchange(wants_a_sample_, false); }

  /// Once it is finished, and after a last sample.
  std::vector<Measurement> learned(const Switch& about, WallTime at) const;
  /// `head`: what the switch does not know of itself (id, kind, modes, result, began, took). Once it is finished.
  Recording recording(const Switch& about, Recording head) const;

 private:
  struct Watched {
    std::string unit, subject;
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
  void note_first(const Snapshot& first, TimePoint at);
  std::map<pid_t, std::string> holders(const std::map<pid_t, std::string>& owners) const;
  void add_memory(const Step& step, const Watched& watched, Measurement& measured) const;

  std::map<std::string, std::string> keys_;
  Knowledge knowledge_;
  std::vector<Watched> watched_;  // by step
  std::vector<GpuSample> gpus_;   // of the last sample
  std::map<pid_t, std::string> owners_;
  std::optional<Snapshot> first_look_;              // before that nobody knows what a router has loaded
  std::map<std::string, std::string> unit_names_;   // what people call them
  std::map<std::string, ServiceId> loaded_before_;  // by router's unit: the only model in it when the switch began
  Tape tape_;
  bool wants_a_sample_ = false;
};

}  // namespace gpumod
