// The modelled machine: units and the manager behind them, processes, GPU memory and how it comes back, ports, routers
// with their models. It knows nothing of switches; what happens on it by itself stands in the agenda.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "agenda.h"
#include "catalogue.h"
#include "faults.h"
#include "trace.h"

namespace gpumod::simulation {

/// Who counts which fault met which step.
class Witness {
 public:
  virtual ~Witness() = default;
  /// The fault happened while steps were under way.
  virtual void saw(Fault fault) = 0;
  /// The fault was in what this step asked for.
  virtual void saw_in(Fault fault, int step) = 0;
  virtual void world_changed() = 0;
};

struct Process {
  pid_t pid = 0;
  int unit = -1;   ///< −1: a stranger's
  int model = -1;  ///< of a router's child: its service
  bool alive = true;
  bool listed = true;  ///< by NVML
  bool unkillable = false;
  std::vector<int> gpus;  ///< where it allocates
  std::array<Bytes, most_gpus> held{};
};

struct Unit {
  ActiveState active = ActiveState::inactive;
  bool exists = false;
  bool auto_restart = false;  ///< its own Restart= is about to bring it back
  unsigned restarts = 0;
  unsigned generation = 0;  ///< of its process: what was planned for an earlier one is void
  pid_t main = 0;
  TimePoint born{};
  std::vector<int> gpus;
  bool listens = false;
  bool ready = false;  ///< it says so when asked
  bool lies = false;   ///< and cannot answer
  bool wrong = false;  ///< or serves something else
  bool hangs = false;
  int asleep = 0;  ///< 0, 1, 2
  bool keeps_memory = false;
  bool outdated = false;      ///< its file says something else than what it was started with
  bool transient = false;     ///< of its last end: the log says a cause that goes away
  bool silent = false;        ///< and the log says nothing
  std::optional<Fault> doom;  ///< of what it will end, or has ended
  TimePoint troubled{};       ///< when something last happened to it that gpumod did not order
};

struct Model {
  enum class State { unloaded, loading, loaded, failed };
  State state = State::unloaded;
  unsigned generation = 0;
  pid_t child = 0;
  bool lies = false;
  bool wrong = false;
  bool transient = false;
  bool silent = false;
  bool hangs = false;
  std::optional<Fault> doom;
};

class Host {
 public:
  Host(const Catalogue& catalogue, Random& random, Weather& weather, Agenda& agenda, Trace& trace, Witness& witness);

  void on(const Entry& entry);

  // What the unit manager does when asked; the answers are the hands' matter.
  bool can_start(int unit) const;  ///< one of ours that is alive already cannot
  void start(int unit, std::vector<int> gpus, bool job_fails);
  void begin_stop(int unit);
  void begin_kill(int unit);
  bool stopping(int unit) const { return unit_at(unit).active == ActiveState::deactivating; }

  // What servers do when asked.
  bool answers(int unit) const;
  void load(int service, const std::vector<int>& gpus);
  void unload(int service);
  void sleep(int service, int level);
  void wake(int service);

  // What can be seen.
  Snapshot look();
  Residency seen(int service, std::string& detail) const;
  bool gpus_readable() const { return agenda_.now >= gpus_back_; }
  Bytes free(int gpu) const;
  std::vector<pid_t> pids(int unit) const;
  bool alive(pid_t pid) const;
  bool listed(pid_t pid) const;
  Bytes held_by_pid(pid_t pid, int gpu) const;
  Bytes held(int unit, int gpu) const;
  bool gone(int unit) const;
  const Unit& unit_at(int unit) const { return units_[static_cast<std::size_t>(unit)]; }
  const Model& model(int service) const { return models_[static_cast<std::size_t>(service)]; }
  const std::vector<Process>& processes() const { return processes_; }
  const std::string* port_stranger(std::uint16_t port) const;
  int port_unit(std::uint16_t port) const;  ///< the unit of ours that listens there, −1: none
  unsigned memory_version() const { return memory_version_; }

  // What is true, whatever it looks like.
  Residency truth(int service) const;

  // What people and the world do.
  void boot(bool with_power_cut);
  void run_at_once(int unit, const std::vector<int>& loaded);
  void hand_starts(int unit);
  void hand_stops(int unit);
  void client_wakes(int unit);  ///< somebody's request did
  void edit_file(int unit);
  void crash(int unit, Fault why);
  /// Something happened to it that nobody who still waits had ordered.
  void trouble(int unit) { state(unit).troubled = agenda_.now; }
  void foreign_takes(int gpu, Bytes amount, Duration for_how_long);
  void stranger_on(std::uint16_t port, Duration for_how_long);
  void gpus_unreadable(Duration for_how_long);
  void begin_foreign_moves();

 private:
  Unit& state(int unit) { return units_[static_cast<std::size_t>(unit)]; }
  const Unit& state(int unit) const { return units_[static_cast<std::size_t>(unit)]; }
  Process* process(pid_t pid);
  const Process* process(pid_t pid) const;
  pid_t make_process(int unit, int model, std::vector<int> gpus);
  void spawn(int unit, std::vector<int> gpus);
  void schedule_memory(pid_t pid, int service, Duration load);
  void grow(pid_t pid, int service, int permille);
  void end_process(pid_t pid);
  void unit_main_ended(int unit);
  void die(int unit, unsigned generation);
  void model_ended(int service);
  void finish_stop(int unit);
  void changed() { witness_.world_changed(); }
  void memory_changed() {
    ++memory_version_;
    witness_.world_changed();
  }
  void memory_rose(int gpu);
  bool strikes(Fault fault) { return weather_.strikes(fault, random_); }
  const char* name(int unit) const { return catalogue_.units[static_cast<std::size_t>(unit)].name.c_str(); }

  const Catalogue& catalogue_;
  Random& random_;
  Weather& weather_;
  Agenda& agenda_;
  Trace& trace_;
  Witness& witness_;
  std::vector<Unit> units_;
  std::vector<Model> models_;
  std::vector<Process> processes_;
  std::vector<std::pair<std::uint16_t, std::string>> strangers_;  // ports that others listen on
  TimePoint gpus_back_{};
  pid_t next_pid_ = 100;
  unsigned memory_version_ = 0;
  bool foreign_moves_ = false;
};

}  // namespace gpumod::simulation
