// What a verb works with: opened when first asked for, so that a verb which needs no D-Bus never waits for one.
#pragma once

#include <memory>
#include <optional>

#include "catalog/catalog.h"
#include "control/director.h"
#include "control/machine.h"
#include "store/store.h"
#include "switching/recovery.h"
#include "verbs/drift.h"

namespace gpumod {

class Context {
 public:
  Context(Loop& loop, Paths paths, ProgressSink progress);

  Loop& loop() { return loop_; }
  const Paths& paths() const { return paths_; }
  const ProgressSink& progress() const { return progress_; }
  /// {"event": "notice", "text": …}: something the user should know although nobody asked.
  void notice(const std::string& text);

  Result<const Catalog*> catalog();
  /// What was read of it; null when nobody has asked for it.
  const Catalog* catalog_read() const { return catalog_ ? &*catalog_ : nullptr; }
  Result<Machine*> machine();
  /// Writable; only for the holder of the mutation lock.
  Result<Store*> store();
  /// What is stored, without creating anything: no goal when there is no database yet.
  Result<std::optional<Goal>> stored_goal();
  /// Set when the state file is, or was, unreadable: a sentence for people. After stored_goal() or store().
  const std::string& state_problem() const { return state_problem_; }
  /// For the holder of the mutation lock, before anything else: when nothing is stored (a new state file, or one that was
  /// lost or unreadable), what runs becomes the goal. A machine that cannot be looked at is no error here.
  Task<Result<void>> remember_what_runs();
  Result<std::optional<StoredSwitch>> interrupted_switch();
  /// For looking into it; null when there is no state file yet.
  Result<Store*> reading();
  /// None when there is no state file yet.
  Result<std::vector<StoredModel>> registered_models();
  /// The services that were changed by themselves since the last mode switch, as far as the history tells. What was refused
  /// or taken back has changed nothing.
  std::set<ServiceId> changed_by_hand();

  /// What is known of services beyond their files, and the keys under which that is remembered (control/footprints.h).
  struct Known {
    std::map<std::string, std::string> keys;
    Footprints footprints;
  };
  /// `services`: those of which an estimate is wanted. Nothing is known where the machine or the state cannot be read.
  Task<Known> known(std::set<ServiceId> services);

  /// As much of it as it takes to tell who is squeezed: mostly nothing, and then nothing is read.
  Task<SqueezeEvidence> evidence_of_squeeze(const Snapshot& snapshot);

  /// Carries a goal out. With `dry_run` only the plan is made, and answered.
  struct Order {
    std::string kind;
    Goal goal;
    OnFailure on_failure = OnFailure::rollback;
    std::optional<Goal> goal_after;
    bool merges = false;  ///< the goal changes single services: it is merged into what is stored when it is carried out
    std::set<std::string> distrusted;
    bool dry_run = false;
    bool comes_home = false;  ///< one of many of a run that ends where it began (verbs/homecoming.h)
    bool to_the_end = false;  ///< a cancel neither stops it nor keeps it from beginning
  };
  Task<Result<boost::json::value>> carry_out(Order order);

  /// Takes back the switch under way, if there is one.
  void cancel();
  bool cancelled() const { return ending_.is_set(); }
  /// Set when nobody wants any more of it: it is taken back, or nobody looks any more.
  Signal& ending() { return ending_; }
  void set_probing(bool probing) { probing_ = probing; }

 private:
  Task<Result<boost::json::value>> dry_run(Order order);
  Task<Result<SwitchOutcome>> run(Order order, std::optional<Goal> previous);
  Task<Result<std::optional<Goal>>> recover_first(const Order& order);

  Loop& loop_;
  Signal ending_{loop_};
  Paths paths_;
  ProgressSink progress_;
  std::optional<Catalog> catalog_;
  std::optional<Machine> machine_;
  std::optional<Store> store_;
  std::optional<std::optional<Store>> reading_;
  std::string state_problem_;
  Director* running_ = nullptr;
  bool probing_ = true;
};

/// For people, of a switch that was taken back.
std::string_view what_was_restored(bool something_ran);

/// What planning goes by: services as they are really started (fit/vllm_flags.h), and what is known of them.
Knowledge knowledge_of(const Catalog& catalog, std::set<std::string> distrusted, Footprints footprints);

/// What an unfinished switch of the journal means on this machine, now.
Recovery recovery_of(const StoredSwitch& stored, const Settings& settings);

/// The stored goal after a change to single services: running and sleeping ones are in, stopped ones are out.
Goal merged_goal(const std::optional<Goal>& stored, const Goal& change);

}  // namespace gpumod
