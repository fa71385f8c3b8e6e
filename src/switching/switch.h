// The switch as a state machine: events and a time stamp in, commands out.
//
// A switch runs in rounds. A round is a plan made from a fresh observation, whose steps are issued as soon as what they
// wait for is done. Before the first step of the first round, a preflight asks whether everything that is to be started
// can be started at all (binary, model file, port): if not, the switch is refused and nothing was touched. Three things
// end a round:
//
//   every step is done            forward → a last look, where one service was verified before another was done: what is
//                                 not as the goal wants it, or is another process than the one that was verified, gets
//                                 another round; then committed (unchanged, if the plan only verified);
//                                 undoing → rolled back
//   a step distrusts its unit     (a service that "ran" did not answer, an unload did nothing): the steps under way
//   end,
//                                 then a new round is planned forward in which that unit is restarted; once per unit
//   a step failed, or a cancel    the steps under way end (waits are abandoned), the failure is journaled, and the
//                                 policy decides: rollback and blank plan a last round, stay ends here
//
// What each step goes through:
//
//   stop            stop_unit → prove_release → done;  survivors → kill_unit → prove_release → done | failed
//                   A stop job that failed may still have stopped everything, or left a restart loop behind a process
//                   that is gone: once the release is proven, the unit is told once more, and that must be confirmed.
//   unload, sleep   the request → await_residency → prove_fall → done | failed (an unload that fails distrusts the
//                   router). A server that says it sleeps and keeps its memory has not done what was asked; one that
//                   ended instead is distrusted.
//   start           check_memory → start_unit → await_ready → verify → done
//   load, wake      check_memory → the request → await_residency / await_ready → verify → done
//   verify          await_ready → verify → done | distrust
//
//   A command that could not be journaled was never issued. Its step ends there and then: there is nothing to wait for,
//   nothing to clear away and nothing to undo. It is a failure like others for what was done before it; when nothing was,
//   the switch is refused.
//
//   While undoing, one service that does not come up keeps no other down: what waits for a failed stop is skipped, what
//   only queued behind a failed start goes on. Only what this switch touched is restored.
//
//   A load that fails is unloaded, and that must be seen. A start that fails is stopped and its release proven before anything else happens:
//   nothing half-started stays, and people's own restart loops cannot allocate in the middle of a switch. Then it is
//   tried again if the cause was transient and attempts are left.
//
// Interruptions: an event counts only if its step is in the stage that asked for it, with the same attempt; anything
// else is late and ignored. A cancel before the first mutating command ends at once; after it, it is a failure whose
// result reads `cancelled`. A cancel while undoing is ignored: undoing is what it asks for.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "model/switching.h"
#include "switching/plan.h"

namespace gpumod {

struct SwitchRequest {
  Goal goal;
  std::optional<Goal> previous;  ///< what a rollback restores; unset: what the first snapshot shows
  OnFailure on_failure = OnFailure::rollback;
  Knowledge knowledge;
};

class Switch {
 public:
  enum class Stage {
    pending,
    memory,        // check_memory is out
    acting,        // the mutating command is out
    proving,       // the first proof of a release
    killing,       // survivors are being killed
    proving_kill,  // the last proof of a release
    waiting,       // await_ready or await_residency is out
    falling,       // the proof that a sleeper's memory fell
    verifying,
    clearing,  // a failed start is being stopped
    clearing_proof,
    clearing_kill,
    clearing_last_proof,
    done,
    failed,
  };

  explicit Switch(SwitchRequest request);

  /// Call once: asks for an observation.
  std::vector<Command> begin(TimePoint now);
  std::vector<Command> on(const Event& event, TimePoint now);

  bool finished() const { return result_.has_value(); }
  /// Valid once finished.
  SwitchResult result() const { return *result_; }
  /// Why it was refused, failed or rolled back; unset when it went well.
  const std::optional<Error>& problem() const { return problem_; }
  const std::vector<StepReport>& reports() const { return reports_; }
  /// The first plan, for showing; unset while there is none, or while it may still be refused.
  const std::optional<Plan>& first_plan() const {
    static const std::optional<Plan> none;
    return preflighting_ || result_ == SwitchResult::refused ? none : first_plan_;
  }
  const std::optional<Snapshot>& first_snapshot() const { return first_snapshot_; }
  const Goal& previous() const { return *request_.previous; }
  /// For whoever counts what has been exercised. Unset: there is no such step.
  std::optional<Stage> stage_of(int step) const;
  /// Null: there is no such step.
  const Step* step_at(int step) const;

 private:
  enum class Phase { forward, undoing };
  struct Live {
    Step step;
    Stage stage = Stage::pending;
    int attempt = 1;
    bool may_retry = false;      ///< the failure that is being cleared was transient
    bool unconfirmed = false;    ///< the unit manager has not said that its stop went well
    bool stopped_again = false;  ///< and was told once more
    bool lost = false;           ///< it never began: what it waited for failed
    std::string survivors;       ///< what is to be killed
    bool taken_back = false;     ///< it was given up because the switch was cancelled
    bool in_flight() const { return stage != Stage::pending && stage != Stage::done && stage != Stage::failed; }
  };
  using Commands = std::vector<Command>;

  Result<Plan> plan_undo(const Snapshot& seen, const Goal& goal);
  void plan_round(const Snapshot& snapshot, TimePoint now, Commands& out);
  void advance(TimePoint now, Commands& out);
  void issue(Live& live, TimePoint now, Commands& out);
  void act(Live& live, TimePoint now, Commands& out);
  void await(Live& live, TimePoint now, Commands& out);
  void verify(Live& live, TimePoint now, Commands& out);
  void prove(Live& live, Stage stage, TimePoint now, Commands& out);
  void prove_fall(Live& live, TimePoint now, Commands& out);
  void prove_unloaded(Live& live, TimePoint now, Commands& out);
  void distrust(const Live& live, Commands& out);
  void on_step_event(Live& live, const Event& event, TimePoint now, Commands& out);
  void on_acted(Live& live, const Event& event, TimePoint now, Commands& out);
  void not_issued(Live& live, const Event& event, TimePoint now, Commands& out);
  void on_proof(Live& live, const Event& event, TimePoint now, Commands& out);
  void step_done(Live& live, const std::string& note, TimePoint now);
  void step_not_up(Live& live, const Event& event, TimePoint now, Commands& out);
  void step_failed(Live& live, TimePoint now);
  void cleared(Live& live, TimePoint now, Commands& out);
  void abandon_waits(Commands& out);
  void next_round(Commands& out);
  void end_round(TimePoint now, Commands& out);
  bool owes_last_look() const;
  void last_look(const Snapshot& snapshot, TimePoint now, Commands& out);
  std::string not_as_verified(const Snapshot& snapshot, bool& hopeless);
  std::string not_as_wanted(const Snapshot& snapshot) const;
  void give_up_forward(Commands& out);
  void not_restored(const std::string& why, Commands& out);
  void finish(SwitchResult result, Commands& out);
  void observe(Commands& out);
  void preflight(Commands& out);
  void refuse(Error error, Commands& out);
  Goal undo_goal(const Snapshot& snapshot) const;

  Command command(Command::Kind kind, const Live& live, TimePoint deadline = TimePoint::max()) const;
  StepReport& report(const Live& live) { return reports_[static_cast<std::size_t>(live.step.index)]; }
  bool router_process_only(const Step& step) const;
  bool is_model_of_router(const Step& step) const;
  gpumod::Phase phase_of_coming_up(const Step& step) const;
  Duration startup_timeout(const Step& step) const;
  Duration patience_with(const Step& step) const;
  bool passed_over(const Live& first, const Live& next) const;
  bool ready_to_issue(const Live& live) const;
  void give_up_the_lost();
  void note_failure(Live& live, const Event& event);

  SwitchRequest request_;
  Phase phase_ = Phase::forward;
  bool observing_ = false;
  bool preflighting_ = false;
  bool looking_back_ = false;  // the observation under way is the last look
  bool looked_back_ = false;   // and it found the round as it should be
  bool draining_ = false;      // no new steps are issued
  bool abandoned_ = false;     // and the waits of the round were given up
  bool cancelled_ = false;
  bool mutated_ = false;      // a mutating command has been carried out
  bool unjournaled_ = false;  // one could not be written down, and was not given
  bool changed_ = false;      // some round did more than verify
  int rounds_ = 0;
  std::set<std::string> newly_distrusted_;
  std::set<std::string> restarted_units_;  // once each: so every switch ends
  std::map<std::string, pid_t> verified_;  // by unit: the process that answered when it was verified, or fell asleep
  std::set<std::string> touched_units_;    // what this switch has acted on, and may have to restore
  bool previous_given_ = false;
  std::size_t round_base_ = 0;  // index of the round's first step
  std::vector<Live> steps_;     // of all rounds; the index of a step is its place here
  std::vector<StepReport> reports_;
  std::string unrestorable_;                     // what the plan of an undoing round had to leave out, and why
  std::map<std::string, std::string> given_up_;  // services and units that did not come back, and why
  std::optional<Plan> first_plan_;
  std::optional<Snapshot> first_snapshot_;
  std::optional<SwitchResult> result_;
  std::optional<Error> problem_;
};

std::string_view to_string(Switch::Stage stage);

}  // namespace gpumod
