// What can go wrong in the modelled world. A run draws a few of them and how often each strikes: runs with many faults
// at once end early and reach little, runs with few go deep.
#pragma once

#include <array>
#include <string_view>

#include "random.h"

namespace gpumod::simulation {

enum class Fault {
  release_late,         // memory comes back up to two minutes after the process ended
  release_partial,      // a part of it late, or never
  zombie_listed,        // NVML goes on listing a process that has ended
  survivor,             // a process does not end on SIGTERM
  unkillable,           // nor on SIGKILL, for a while or for ever
  lying_health,         // it says that it is ready, and cannot answer
  wrong_model,          // it serves something else
  port_taken,           // a stranger answers on its port
  start_job_fails,      // the unit manager cannot start it
  dies_in_start,        // it ends before it is ready
  dies_transient,       // the same, for a cause that goes away
  never_ready,          // it hangs
  dies_later,           // it ends although it was ready
  journal_silent,       // the log does not say why it ended
  dbus_late,            // the unit manager answers seconds late
  dbus_never,           // or not at all
  crash,                // gpumod ends between two commands
  power_cut,            // everything ends, and the write under way is lost
  journal_write_fails,  // one transaction of the journal fails
  disk_full,            // and from then on every one, for a while or for ever
  second_writer,        // somebody else wants to switch meanwhile
  clock_jump,           // the machine was stopped for a while: every deadline passes, no process got further
  foreign_moves,        // other people's memory moves all the time
  foreign_grabs,        // other people's memory takes the room right after it was seen to be free
  stale_event,          // an answer to an earlier attempt arrives late
  stray_event,          // an event that nobody waits for
  gpu_unreadable,       // NVML fails for a while
  unload_ignored,       // the router says yes and keeps the model
  keeps_memory,         // it says that it sleeps, and holds what it held
  request_fails,        // the server does not take the request
  load_fails,           // the router's child ends while it loads
  cancel,               // a person takes the switch back
  restart_loop,         // an adopted unit's own Restart= brings it back
  hand,                 // a person starts or stops a unit in the middle of it
  observe_fails,        // the machine cannot be looked at
  preflight_fails,      // a model file is missing
  count
};
inline constexpr int fault_count = static_cast<int>(Fault::count);
std::string_view to_string(Fault fault);

/// Which faults a run has, and how often they strike.
class Weather {
 public:
  explicit Weather(Random& random);

  bool has(Fault fault) const { return permille_[static_cast<std::size_t>(fault)] > 0; }
  /// True when the fault strikes now.
  bool strikes(Fault fault, Random& random) {
    const int chance = permille_[static_cast<std::size_t>(fault)];
    if (calm_ || chance == 0 || !random.permille(chance)) return false;
    ++struck_;
    return true;
  }
  bool fine() const { return fine_; }          ///< no fault at all was drawn
  bool only(Fault fault) const;                ///< no other was drawn
  unsigned struck() const { return struck_; }  ///< how many have struck so far
  void note() { ++struck_; }
  /// From here on nothing new strikes: what has, stays.
  void calm() { calm_ = true; }
  void silence(Fault fault) { permille_[static_cast<std::size_t>(fault)] = 0; }

 private:
  void draw(Fault fault, Random& random);

  std::array<int, fault_count> permille_{};
  bool fine_ = true;
  bool calm_ = false;
  unsigned struck_ = 0;
};

}  // namespace gpumod::simulation
