// The director runs one switch: it journals each command before the actor carries it out, feeds the events back into
// the state machine, and writes down how it ended and what it was like.
#pragma once

#include <functional>
#include <memory>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "control/actor.h"
#include "control/recorder.h"
#include "store/store.h"
#include "switching/switch.h"

namespace gpumod {

/// What goes on, for whoever watches: {"event": "plan" | "step" | "vram" | "notice", …}.
using ProgressSink = std::function<void(boost::json::object)>;

struct SwitchOrder {
  std::string kind;  ///< the verb, for the journal
  std::string from;  ///< the mode that was the goal, for people
  SwitchRequest request;
  std::map<std::string, std::string> footprint_keys;  ///< under which what it shows is remembered; see footprints.h
  std::optional<Goal> goal_after;                     ///< stored when it ends committed or unchanged
};

struct SwitchOutcome {
  std::int64_t id = 0;
  std::string from;
  std::string to;
  SwitchResult result = SwitchResult::failed;
  std::optional<Error> problem;
  Duration took{};
  std::vector<StepReport> steps;
  bool mutated = false;                                     ///< something was ordered that changes the world
  bool nothing_before = false;                              ///< of ours ran, so there was nothing to restore
  std::vector<std::string> left_alone;                      ///< see Plan
  std::optional<Bytes> vram_before, vram_after, vram_peak;  ///< in use, over all GPUs
  /// {"switch": {"id", "from", "to", "result", "seconds", "steps", "vram"}}
  boost::json::object to_json() const;
};

class Director {
 public:
  /// Machine and catalogue outlive it by as long as one look at the machine takes: see Sampling.
  Director(Machine& machine, const Catalog& catalog, Store& store, ProgressSink progress);

  /// Errors: only when nothing could be begun (the journal cannot be read). How the switch went is in the outcome.
  Task<Result<SwitchOutcome>> run(SwitchOrder order);
  /// Asks the switch under way to go back. Harmless when there is none.
  void cancel();
  void set_probing(bool probing) { actor_.set_probing(probing); }

 private:
  struct Sampling;
  void dispatch(const std::vector<Command>& commands);
  Task<void> carry_out(Command command);
  Task<void> sample_vram(std::shared_ptr<Sampling> sampling);
  Task<void> sample_last(std::shared_ptr<Sampling> sampling);
  void keep_recording(const SwitchOutcome& outcome);
  void post(Event event);
  void show_progress();
  void show_vram(const std::vector<GpuSample>& gpus);

  Machine& machine_;
  const Catalog& catalog_;
  Store& store_;
  ProgressSink progress_;
  Actor actor_;
  Signal wake_;
  std::vector<Event> inbox_;
  std::unique_ptr<Switch> switch_;
  std::unique_ptr<Recorder> recorder_;
  StoredSwitch journal_;
  std::vector<std::string> shown_;  // the last shown state of each step
  bool plan_shown_ = false;
  boost::json::array vram_shown_;
};

boost::json::object to_json(const StepReport& step);
boost::json::object to_json(const Plan& plan);

}  // namespace gpumod
