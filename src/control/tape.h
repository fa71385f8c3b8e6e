// The tape of a recording: stages, troubles and memory as they come, and what becomes of them at the end. Its cost is
// bounded: a point of the memory's curve is kept only when something has changed by a few MiB, and a curve that grows too
// long is thinned to half, evenly, keeping what is highest.
//
// A point for every sample lost: a switch of ten minutes would leave thousands that say the same.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/recording.h"
#include "switching/switch.h"

namespace gpumod {

class Tape {
 public:
  explicit Tape(TimePoint began) : began_(began) {}

  void note_event(const Event& event, TimePoint at);
  /// Also when nothing has changed since the last time.
  void note_stage(const StepReport& report, Switch::Stage stage, TimePoint at);
  /// `holders`: what people call whose processes they are; who is not in it is not ours.
  void note_gpus(const std::vector<GpuSample>& gpus, const std::map<pid_t, std::string>& holders, TimePoint at);

  /// `head` with everything that is on the tape.
  Recording played(const Switch& about, Recording head) const;

 private:
  struct Track {
    TimePoint seen{};  // pending, for the first time
    std::optional<Switch::Stage> stage;
    std::vector<Recording::Phase> phases;  // the last one is open while `open`
    bool open = false;
    std::vector<Recording::Trouble> troubles;
    std::map<int, std::string> awaited;  // by attempt: what it waited for before there was memory
  };
  struct Card {
    std::string name;
    std::optional<Bytes> total, peak;
    std::vector<Recording::Point> points;
    Recording::Point latest;
  };

  void add_waits(const Track& track, const Recording::Step& step, Recording& recording) const;

  TimePoint began_;
  std::map<int, Track> tracks_;  // by step
  std::map<GpuIndex, Card> cards_;
};

}  // namespace gpumod
