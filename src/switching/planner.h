// The planner's inside: how plan() works its way from what is there to what is wanted. Three files share it, in the
// order in which a plan comes about:
//
//   plan.cpp        which steps there are: what must go, what must come, and whether its port can be had
//   plan_room.cpp   what each takes and gives back, whether it fits, and on which GPUs
//   plan_order.cpp  what waits for what, and what people are told to expect
#pragma once

#include "fit/claim.h"
#include "switching/plan.h"

namespace gpumod {

/// A unit together with what the goal makes of its services.
struct UnitCase {
  const UnitStatus* status = nullptr;  ///< null: the manager knows nothing of it
  std::vector<const Service*> members;
  std::vector<const Service*> kept;  ///< they run, or shall run, in this unit after the switch
  bool restart = false;              ///< it must come down although services are kept
  std::string why;                   ///< of the restart, or of the stop
  std::optional<int> stop_step;
  std::optional<int> start_step;

  bool alive() const { return status && !status->gone(); }
  bool is_router() const { return !members.empty() && members.front()->in_router(); }
};

/// A model that is up, asleep or on its way holds memory of its router, or will.
inline bool holds_memory(Residency residency) {
  return residency == Residency::running || residency == Residency::starting || is_asleep(residency);
}

class Planner {
 public:
  Planner(const Snapshot& snapshot, const Goal& goal, const Knowledge& knowledge)
      : snapshot_(snapshot), goal_(goal), knowledge_(knowledge) {}

  Result<Plan> run();

 private:
  // what must go, what must come
  Result<void> check_goal();
  void gather_units();
  bool is_kept(const Service& member) const;
  void decide_restart(const std::string& name, UnitCase& unit);
  bool outdated_where_wanted(const std::string& name, const UnitCase& unit);
  void add_freeing_steps();
  bool may_be_broken(const std::string& name, const UnitCase& unit) const;
  void leave_or_stop_broken(const std::string& name, UnitCase& unit);
  bool told_to_stop(const UnitCase& unit) const;
  Result<void> add_taking_steps();
  Result<void> bring_up(const std::string& name, UnitCase& unit, const Service& member, Residency target);
  Result<void> check_port(const std::string& name, const UnitCase& unit, const Service& member);
  Result<void> yield_port(const std::string& holder, const Service& member);
  int add(Action action, ServiceId service, std::string unit, std::string why);
  void depend(int later, int earlier);
  bool is_router_start(const Step& step) const;
  const Service& service(const ServiceId& id) const { return knowledge_.services.at(id); }
  const ServiceView& view(const ServiceId& id) const;
  Residency residency_of(const ServiceId& id) const { return view(id).residency; }

  // what it takes, and where
  std::map<GpuIndex, Bytes> given_back_by(const Step& step) const;
  std::vector<GpuIndex> gpus_of_freeing(const std::string& name) const;
  std::map<GpuIndex, Bytes> ceiling_of(const Step& step) const;
  Result<void> place_on_gpus();
  void place_naps();
  Result<void> place_where_there_is_room(const std::vector<Step*>& takers);
  Result<void> check_binding(const Service& bound) const;
  bool can_start_first(const std::vector<Step*>& takers) const;
  Result<void> place_all(const std::vector<Step*>& takers, const std::map<GpuIndex, Bytes>& free);
  Service as_placed(const Step& step) const;
  std::map<GpuIndex, Bytes> missing_to_wake(const Step& step) const;
  std::map<GpuIndex, Bytes> free_now() const;
  Bytes rising_on(const GpuSample& gpu) const;
  std::map<GpuIndex, Bytes> free_after_freeing() const;
  std::optional<Bytes> freed_by(const std::string& name, Bytes held, const GpuSample& gpu) const;
  bool is_unloaded(const Service& member) const;
  Error explain(Error error) const;
  std::vector<GpuIndex> gpus_declared_in(const std::string& unit) const;
  Claim claim_of(const Service& service, const GpuSample& gpu) const;
  ClaimSource source_of_claim(const Step& step) const;
  bool is_known(const Service& service) const;

  // what waits for what
  void order();
  void let_the_starting_come_up();
  static bool share_gpu(const Step& one, const Step& other);
  bool must_wait(const Step& taking, const Step& freeing) const;
  void predict();
  void predict_seconds();
  std::vector<std::size_t> by_dependency() const;
  std::optional<Duration> expected_of(const Step& step) const;

  const Snapshot& snapshot_;
  const Goal& goal_;
  const Knowledge& knowledge_;
  std::map<std::string, UnitCase> units_;
  Plan plan_;
  std::size_t freeing_count_ = 0;
  std::vector<int> port_blockers_;
  bool ports_conflict_ = false;
  bool starts_first_ = false;
};

}  // namespace gpumod
