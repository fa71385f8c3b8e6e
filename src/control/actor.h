// Carries out single commands of a switch and says, as an event, what came of each. Every wait here is on something
// that signals (job results, cgroups, pidfds, unit changes); what does not signal (NVML, HTTP readiness) is asked at a
// bounded interval, until the command's deadline or until it is abandoned.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>

#include "catalog/catalog.h"
#include "control/machine.h"
#include "control/start_log.h"
#include "engines/engine.h"
#include "model/switching.h"

namespace gpumod {

class Actor {
 public:
  Actor(Machine& machine, const Catalog& catalog) : machine_(machine), catalog_(catalog) {}

  /// `finish`, `record_failure` and `abandon` are not carried out here.
  Task<Event> carry_out(Command command);
  /// The wait of this step ends now, with `abandoned`.
  void abandon(int step);
  /// Skips probes, for measuring what they cost.
  void set_probing(bool probing) { probing_ = probing; }

  /// VRAM in use over all GPUs, as sampled while commands ran: last and highest.
  std::optional<Bytes> used_now() const { return used_now_; }
  std::optional<Bytes> used_peak() const { return used_peak_; }
  void note_gpus(const std::vector<GpuSample>& gpus);
  /// Called with every sample, whoever took it.
  void on_gpus(std::function<void(const std::vector<GpuSample>&)> callback) { on_gpus_ = std::move(callback); }

 private:
  Task<Event> look(Command command);
  Task<Event> check_start(Command command);
  Task<Event> check_memory(Command command);
  Task<Event> start_unit(Command command);
  Task<Event> stop_unit(Command command);
  Task<Event> kill_unit(Command command);
  Task<Event> prove_release(Command command);
  Task<Event> prove_fall(Command command);
  Task<Event> ask_engine(Command command);
  Task<Event> await_ready(Command command);
  Task<Event> await_residency(Command command);
  Task<Event> verify(Command command);

  std::optional<std::string> wrong_listener(const Service& service, const UnitStatus& status) const;
  Task<Event> explain_end(Command command, UnitStatus unit, WallTime since = WallTime::min(),
                          std::shared_ptr<StartLog> watched = nullptr);
  void say_cause(Event& out, FailureCause cause, const Service& service) const;
  Task<Result<std::vector<GpuSample>>> sample(TimePoint deadline);
  Task<void> learn_owners(std::vector<GpuSample> gpus);
  void note_baseline(const Snapshot& snapshot);
  std::string who_holds(const std::vector<GpuSample>& gpus, GpuIndex gpu) const;
  const Service* service_of(const Command& command) const;
  bool abandoned(const Command& command) const { return abandoned_.contains(command.step); }
  Event event(const Command& command, Event::Kind kind, std::string text = {}) const;

  Machine& machine_;
  const Catalog& catalog_;
  bool probing_ = true;
  std::set<int> abandoned_;
  std::map<int, Signal*> waiting_;                           // by step: woken by abandon()
  std::map<std::string, std::vector<pid_t>> stopped_;        // by unit: the processes it had when its stop was ordered
  std::map<std::string, std::set<std::string>> containers_;  // by unit: those it had declared then, by their ids
  std::map<std::string, WallTime> started_;                  // by unit: when its last start was ordered
  std::map<std::string, std::shared_ptr<StartLog>> logs_;    // by unit: followed since its start was ordered
  std::map<pid_t, std::string> unit_of_pid_;                 // of the last observation
  bool looked_ = false;
  std::map<GpuIndex, Bytes> unattributed_before_;  // by GPU: see note_baseline()
  std::optional<Bytes> used_now_;
  std::optional<Bytes> used_peak_;
  std::function<void(const std::vector<GpuSample>&)> on_gpus_;
  std::string gpu_complaint_;  // the last one that was logged
};

}  // namespace gpumod
