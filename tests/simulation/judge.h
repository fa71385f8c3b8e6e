// What must hold, whatever happens. Everything here is worked out from the catalogue, from what was shown to the switch
// and from what is true in the modelled world; nothing is asked of the code under test but its reports and its answer.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "hands.h"
#include "journal.h"
#include "switching/recovery.h"
#include "switching/switch.h"

namespace gpumod::simulation {

/// Of its own, however: it is not one that never began.
inline bool has_ended(const StepReport& line) {
  return line.result == "done" || line.result == "failed" || line.result == "cancelled";
}

class Judge {
 public:
  Judge(const Catalogue& catalogue, const Weather& weather, const Agenda& agenda, const Host& host, const Hands& hands,
        const Journal& journal, Trace& trace);

  void begin(const SwitchRequest& request, std::int64_t id);
  void command(const Command& command, const Switch& machine);
  void unwritten(const Command& command, const Switch& machine);
  void event(const Event& event, const Switch& machine);
  void after(const Switch& machine);
  void dispatched(const Switch& machine);
  void end(const Switch& machine);
  void recovery(const JournalRow& left, bool rebooted, const Recovery& found);
  void complain(std::string what);

  bool undoing() const { return undoing_; }
  const std::vector<std::string>& violations() const { return violations_; }

 private:
  struct Window {
    int step;
    int unit;
    std::set<int> gpus;
  };
  struct StepTrack {
    std::optional<Event> last;
    Bytes held_before;
    bool begun = false;
    bool memory_ok = false;
    int attempt = 1;
    int killed_in = 0;           ///< the attempt
    bool passing_cause = false;  ///< what it last failed of goes away by itself
    bool clearing = false;
    int memory_attempt = 0;
    std::optional<TimePoint> waits_for_memory;
    TimePoint deadline{};
    bool waits = false;           ///< a wait that may be given up is out
    int killed_ever = 0;          ///< how often it needed a SIGKILL
    bool ungiven = false;         ///< its last command could not be journaled, and was not given
    std::string clearing_failed;  ///< why what a failed attempt left could not be shown to be gone
    std::string cause, remedy;    ///< of the failure that counts, as the event told it
    std::string result;
  };

  void check_allocation(const Command& command, int unit, int service);
  void check_windows(const Command& command, int unit, int service, const Switch& machine);
  void check_port(int unit);
  void check_needless_stop(int unit);
  void check_unreleased(const Command& command, const Switch& machine);
  void check_deadline(const Command& command, int service);
  void check_step_done(const StepReport& line);
  void check_wanted(const char* what, int service, Residency wanted, TimePoint since = {});
  void check_goal_reached(TimePoint since);
  void check_restored(const Switch& machine);
  void check_unrestored(const Switch& machine);
  void check_blank();
  bool clears(const Command& command, const Switch& machine) const;
  void check_refusal(const Switch& machine);
  void check_reports(const Switch& machine);
  void check_told(const StepReport& line);
  void check_prediction(const Switch& machine);
  Bytes still_rising(const Plan& plan, const GpuSample& gpu) const;
  void check_fits(const Plan& plan, const GpuSample& gpu);
  Bytes nobodys(int gpu) const;
  void check_same_processes();
  void check_waits_given_up(const Switch& machine);
  bool up(int service) const;
  bool excused(int service, TimePoint since = {}) const;
  bool fits_alone(int service) const;
  Residency was(int service) const;
  const Service& file(int service) const { return *catalogue_.services[static_cast<std::size_t>(service)]; }
  const std::string& id(int service) const { return file(service).id; }
  StepTrack& track(int step);

  const Catalogue& catalogue_;
  const Weather& weather_;
  const Agenda& agenda_;
  const Host& host_;
  const Hands& hands_;
  const Journal& journal_;
  Trace& trace_;
  std::vector<std::string> violations_;

  // of the switch under way
  SwitchRequest request_;
  std::int64_t id_ = 0;
  TimePoint began_{};
  bool undoing_ = false;
  bool cancelled_ = false;
  bool gives_up_ = false;  // it was cancelled just now
  bool failed_ = false;    // a step of this round has failed
  int round_ = 0;
  int mutations_ = 0;
  unsigned struck_before_ = 0;
  std::optional<TimePoint> ungiven_since_;  // the first command that could not be journaled
  bool refused_undo_ = false;
  bool blind_undo_ = false;
  bool blind_ = false;  // the last look failed
  std::set<int> touched_, started_;
  std::set<int> obstacles_;      // units on which something went wrong while undoing
  std::set<int> could_be_back_;  // services that had room when the undoing began
  std::set<ServiceId> preflighted_;
  std::optional<Snapshot> first_;
  std::optional<Snapshot> last_;
  TimePoint looked_{};
  TimePoint last_end_{};                                 // when the last step ended
  std::array<Bytes, most_gpus> nobodys_at_first_{};      // by GPU: held by no listed process at the first look
  unsigned memory_at_first_ = 0;                         // the host's memory_version() at the first look
  int round_base_ = 0;                                   // the first step of this round
  std::map<int, std::pair<pid_t, TimePoint>> verified_;  // by unit: who answered when it was verified last
  std::map<int, std::vector<GpuIndex>> told_gpus_;       // by step: where its memory was last looked for
  std::set<int> amiss_;                                  // units on which something has failed since they were started
  std::map<int, TimePoint> evidence_;                    // by service: when it was last shown to be as it should
  std::vector<StepTrack> steps_;
  std::vector<Window> allocating_, freeing_;
  bool fits_beside_ = false;
};

}  // namespace gpumod::simulation
