// The modelled director and what stands around it: the lock, the journal before every command, recovery before every
// order, as control/director and verbs/context do it; and the story of a run: orders, faults in between, crashes, power
// cuts, and somebody who brings things in order at the end.
#pragma once

#include "coverage.h"
#include "hands.h"
#include "journal.h"
#include "judge.h"
#include "switching/recovery.h"

namespace gpumod::simulation {

/// As verbs/context merges a change to single services into the stored goal.
Goal merged_goal(const std::optional<Goal>& stored, const Goal& change);

class Director final : public Witness, public Inbox {
 public:
  Director(std::uint64_t seed, Coverage& coverage, bool verbose);

  void play();
  const std::vector<std::string>& violations() const { return judge_.violations(); }

  void saw(Fault fault) override;
  void saw_in(Fault fault, int step) override;
  void world_changed() override { hands_.world_changed(); }
  void post(Event event, Duration in) override;

 private:
  enum class Ending { finished, crashed, power_cut };
  struct Order {
    std::string kind;
    Goal goal;
    OnFailure on_failure = OnFailure::rollback;
    std::optional<Goal> goal_after;
    bool merges = false;
    std::set<std::string> distrusted;
  };
  struct Expected {
    Command::Kind kind;
    int attempt;
  };

  void begin_world();
  void between();
  void settle(Duration time);
  Order random_order();
  Order mode_order(int mode);
  Order repair_order();
  Recovery recovery_of(const JournalRow& left);
  Ending carry_out(Order order);
  Ending drive(Order order, std::optional<Goal> previous);
  bool dispatch(const std::vector<Command>& commands);
  std::optional<Fault> journal_fails();
  bool deliver(Event event);
  void handle(const Entry& entry);
  bool survives(CrashPoint point, Command::Kind kind);
  void arm();
  void stray();
  void power_returns();
  void show_world();
  Phase phase() const;

  Coverage& coverage_;
  Random random_;
  Weather weather_;
  Catalogue catalogue_;
  Agenda agenda_;
  Trace trace_;
  Host host_;
  Hands hands_;
  Journal journal_;
  Judge judge_;

  // of the switch under way
  std::unique_ptr<Switch> switch_;
  JournalRow row_;
  bool locked_ = false;
  TimePoint full_until_{};  // the disk
  int boot_ = 1;
  unsigned epoch_ = 0;
  std::vector<Event> events_;  // on their way, by the entry's a
  std::vector<int> free_events_;
  int on_their_way_ = 0;
  std::vector<std::optional<Expected>> expected_;  // by step
  std::vector<Event> past_;                        // of earlier attempts: they may arrive once more
  bool observing_ = false, preflighting_ = false;
  int looks_ = 0;
  int crash_in_ = 0;  // hooks until gpumod ends; 0: it does not
  std::optional<std::pair<CrashPoint, Command::Kind>> crash_at_;
  bool by_power_cut_ = false;
  std::optional<Ending> ended_;
  SwitchResult last_result_ = SwitchResult::failed;
};

}  // namespace gpumod::simulation
