// A recording: what one switch did over its time. Written when it ends, read by whoever asks why it was slow, why it
// failed, or whether it is slower than it was.
//
// Times count from `began`. A recording may be partial: of a switch that is under way, or whose worker was killed, only
// what the journal tells is known, which is what was ordered and when.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "base/units.h"
#include "model/plan.h"
#include "model/switching.h"

namespace gpumod {

struct Recording {
  /// What a step is at. With ready and fall it waits for the engine, with memory and release for the GPU.
  enum class Stage {
    memory,   ///< until there is room for it, and what was there has settled
    act,      ///< the unit manager or the engine does what it was told
    ready,    ///< until it comes up
    verify,   ///< it is asked a real question
    fall,     ///< until a sleeper or an unloaded model has given its memory back
    release,  ///< until its processes have ended and their memory is back
    kill,     ///< what outlived its stop is killed
    clear,    ///< what a failed start left is stopped
  };
  struct Phase {
    Stage name = Stage::act;
    int attempt = 1;
    Duration from{}, until{};
  };
  /// Something that did not go as it should: a failed attempt, a survivor, a probe without an answer.
  struct Trouble {
    int attempt = 1;
    Duration at{};
    std::string cause;             ///< in the failure catalogue's words, where it knows
    std::string remedy;            ///< may be empty
    std::vector<std::string> log;  ///< oldest first, printable: the line that gave the cause, or its last words
  };
  struct Step {
    int step = 0;  ///< its index in the switch
    Action action = Action::verify;
    std::string subject;  ///< the service, or the unit where there is none
    ServiceId service;    ///< empty for a unit of nobody's, and for a router's own start and stop
    std::string unit;
    bool undo = false;   ///< part of a rollback
    std::string result;  ///< as StepReport::result; "unknown" in a partial recording
    int attempts = 0;
    std::optional<Duration> began, ended;  ///< unset: it never did
    std::optional<Duration> predicted;     ///< how long it took before; unset: it was never seen
    std::string note;                      ///< the probe's answer, or why it failed
    std::vector<Phase> phases;             ///< in order
    std::vector<Trouble> troubles;
    std::vector<int> after;  ///< the steps that had to be done first
  };
  /// Time in which a step did nothing but wait for something.
  struct Wait {
    enum class For {
      turn,     ///< other steps
      memory,   ///< room on the GPU, or memory to settle
      release,  ///< its memory to come back
    };
    int step = 0;
    For what = For::memory;
    std::string cause;  ///< "stop of qwen3-coder", "GPU 0 to have 22514 MiB free, of which 9000 MiB were"
    Duration from{}, until{};
  };
  /// One GPU at one moment; it stays so until the next point of that GPU. Only what changed is a point.
  struct Point {
    Duration at{};
    GpuIndex gpu = 0;
    std::optional<Bytes> used;          ///< of everybody; unset where the driver does not tell
    std::map<std::string, Bytes> held;  ///< ours, by service, router or unit: see Timeline::Holding
    /// In use, and held by no process: the driver's own, and what is on its way back. Unset where NVML does not say what
    /// each process holds.
    std::optional<Bytes> unheld = {};
  };
  struct Gpu {
    GpuIndex index = 0;
    std::string name;
    std::optional<Bytes> total;
    std::optional<Bytes> predicted_peak;  ///< in use, by the first plan; unset: something in it was not known
    std::optional<Bytes> peak;            ///< in use, as sampled
  };
  struct Failure {
    std::string cause;  ///< one sentence
    std::string remedy;
    std::optional<int> step;  ///< the first that failed, on the way forward
  };

  std::int64_t id = 0;  ///< of the switch
  std::string kind;     ///< the verb: "mode switch", "service start", "recovery" …
  std::string from;     ///< the mode that was the goal; may be empty
  std::string to;       ///< the mode of the new goal; may be empty
  WallTime began;
  Duration took{};  ///< until it ended; of a partial one until the last thing that is known of it
  SwitchResult result = SwitchResult::running;
  bool partial = false;
  std::optional<Duration> predicted;  ///< by the first plan; unset: of some step it was not known
  std::optional<Failure> failure;
  std::vector<Step> steps;
  std::vector<Wait> waits;  ///< by their beginning
  std::vector<Gpu> gpus;
  std::vector<Point> curve;  ///< by time, and by GPU
};

std::string_view to_string(Recording::Stage stage);
std::string_view to_string(Recording::Wait::For what);

/// The points of one GPU, at most `most`: of neighbours those that hold more stay, so that no peak is lost; the first and
/// the last always do. `most` >= 3.
std::vector<Recording::Point> thinned(std::vector<Recording::Point> points, std::size_t most);

}  // namespace gpumod
