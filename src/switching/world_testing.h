// For tests: a machine in a few values, over virtual time. It answers the commands of a Switch as the real one would,
// and can be told to misbehave. Everything it is asked to do is written down in `history`.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <queue>
#include <string>
#include <vector>

#include "switching/switch.h"

namespace gpumod::testing_world {

inline Service make_service(const std::string& id, std::uint16_t port, Bytes vram) {
  Service service;
  service.id = id;
  service.name = id;
  service.engine = EngineKind::command;
  service.options = CommandOptions{{"/bin/" + id}, {}, {}};
  service.port = port;
  service.vram = vram;
  return service;
}

inline Service make_router_service(const std::string& id, const std::string& router, std::uint16_t port, Bytes vram) {
  Service service = make_service(id, port, vram);
  service.engine = EngineKind::llamacpp;
  LlamaOptions llama;
  llama.models_dir = "/models";
  service.options = llama;
  service.router = router;
  service.sleep = SleepAbility::router;
  return service;
}

class World {
 public:
  explicit World(Bytes gpu_total = Bytes::mib(24564)) : gpu_total_(gpu_total) {}

  void add(Service service) { knowledge.services[service.id] = std::move(service); }

  // What can go wrong, by service or unit id.
  std::set<std::string> start_fails;              ///< ends right after its start
  std::map<std::string, int> transient_failures;  ///< so many starts fail with a cause that goes away
  std::set<std::string> never_ready;
  std::set<std::string> wrong_model;       ///< verification fails
  std::set<std::string> survives_sigterm;  ///< needs the kill
  std::set<std::string> survives_everything;
  std::map<std::string, int> lost_stops;  ///< so many stop jobs of the unit never arrive
  std::set<std::string> unload_does_nothing;
  std::set<std::string> keeps_memory_asleep;     ///< says that it sleeps, and holds what it held
  std::set<std::string> ends_asleep;             ///< it ends while it falls asleep
  std::map<std::string, Duration> answers_late;  ///< when it is verified
  std::map<std::string, Duration> release_lag;   ///< memory comes back this late
  Bytes foreign;                                 ///< held by others
  std::optional<std::string> preflight_problem;
  std::string unjournaled;      ///< why nothing can be written down, once the disk is full
  int written_before_full = 0;  ///< so many commands can
  int full_for = 1000;          ///< so many cannot; then others can again

  Knowledge knowledge;
  std::vector<std::string> history;  ///< "start_unit gpumod-a.service", in order
  TimePoint clock{};
  std::vector<std::string> violations;

  void run_unit(const std::string& unit, std::vector<ServiceId> loaded = {}) {
    auto& state = units_[unit];
    state.pid = next_pid_++;
    state.loaded = {loaded.begin(), loaded.end()};
    if (loaded.empty())
      for (const auto& [id, service] : knowledge.services)
        if (service.unit_name() == unit && !service.in_router()) state.loaded.insert(id);
  }
  void sleep(const ServiceId& id) { units_[knowledge.services.at(id).unit_name()].asleep = true; }
  bool runs(const ServiceId& id) const {
    const auto found = units_.find(knowledge.services.at(id).unit_name());
    return found != units_.end() && found->second.pid != 0 && found->second.loaded.contains(id) &&
           !found->second.asleep;
  }
  bool unit_runs(const std::string& unit) const {
    const auto found = units_.find(unit);
    return found != units_.end() && found->second.pid != 0;
  }
  bool did(const std::string& what) const { return std::find(history.begin(), history.end(), what) != history.end(); }
  long position(const std::string& what) const {
    return std::find(history.begin(), history.end(), what) - history.begin();
  }

  Snapshot observe() const {
    Snapshot snapshot;
    GpuSample gpu{0, "GPU-0", "Simulated", gpu_total_, free(), {}};
    for (const auto& [name, unit] : units_) {
      UnitStatus status;
      status.name = name;
      if (const auto tag = tags.find(name); tag != tags.end()) status.tag = tag->second;
      status.exists = true;
      status.active = unit.pid ? ActiveState::active : unit.failed ? ActiveState::failed : ActiveState::inactive;
      if (unit.pid) {
        status.pids = {unit.pid};
        status.main_pid = unit.pid;
        gpu.processes.push_back({unit.pid, held(name, unit)});
        snapshot.unit_of_pid[unit.pid] = name;
        if (outdated.contains(name)) snapshot.outdated.insert(name);
      }
      snapshot.units[name] = status;
    }
    for (const auto& [id, service] : knowledge.services) {
      ServiceView view{id, service.unit_name(), Residency::stopped, ""};
      const auto found = units_.find(view.unit);
      if (found != units_.end() && found->second.pid) {
        const auto& unit = found->second;
        view.residency = unit.broken                ? Residency::failed
                         : unit.loaded.contains(id) ? (unit.asleep ? Residency::sleeping1 : Residency::running)
                         : service.in_router()      ? Residency::unloaded
                                                    : Residency::starting;
        if (service.port) snapshot.ports.push_back({service.port, view.unit, unit.pid, "server", "me"});
      } else if (found != units_.end() && found->second.failed) {
        view.residency = Residency::failed;
      }
      snapshot.services[id] = view;
    }
    if (gpu_total_ > Bytes(0)) snapshot.gpus.push_back(gpu);
    for (const auto& holder : strangers)
      snapshot.ports.push_back(holder);
    return snapshot;
  }

  std::set<std::string> outdated;  ///< units that run with older settings than their files'
  std::vector<PortHolder> strangers;
  std::map<std::string, std::string> tags;  ///< GPUMOD_SERVICE of units outside the catalogue
  void break_unit(const std::string& unit) { units_[unit].broken = true; }
  /// Its own restart loop: the same services, another process.
  void replace_process(const std::string& unit) {
    if (units_[unit].pid) units_[unit].pid = next_pid_++;
  }

  /// Runs a switch to its end. `at` is called before each event with the number of events so far.
  void run(Switch& machine, const std::function<void(Switch&, int)>& at = nullptr) {
    issue(machine.begin(clock));
    for (int count = 0; !machine.finished() && count < 10000; ++count) {
      if (at) at(machine, count);
      if (machine.finished()) break;
      if (queue_.empty()) {
        violations.push_back("the switch waits for nothing");
        break;
      }
      auto next = queue_.begin();
      for (auto it = queue_.begin(); it != queue_.end(); ++it)
        if (it->at < next->at) next = it;
      Pending pending = std::move(*next);
      queue_.erase(next);
      clock = std::max(clock, pending.at);
      issue(machine.on(pending.make(), clock));
    }
    if (!machine.finished()) violations.push_back("the switch never ended");
  }

  void issue(const std::vector<Command>& commands) {
    for (const auto& command : commands)
      carry_out(command);
  }

 private:
  struct Unit {
    pid_t pid = 0;
    bool failed = false;
    bool asleep = false;
    bool broken = false;
    std::set<ServiceId> loaded;
    Bytes lagging;  // freed by the process, not yet by the driver
    TimePoint lag_until{};
  };
  struct Pending {
    TimePoint at;
    int step;
    Command::Kind kind;
    std::function<Event()> make;
  };

  Bytes held(const std::string& name, const Unit& unit) const {
    Bytes sum;
    if (!unit.pid) return sum;
    for (const auto& id : unit.loaded)
      if (knowledge.services.contains(id)) sum += knowledge.services.at(id).vram.value_or(Bytes());
    const bool keeps = std::any_of(unit.loaded.begin(), unit.loaded.end(),
                                   [&](const ServiceId& id) { return keeps_memory_asleep.contains(id); });
    if (unit.asleep && !keeps) sum = Bytes::mib(600);
    if (!unit.loaded.empty() || !name.empty()) return sum;
    return sum;
  }
  Bytes free() const {
    Bytes amount = gpu_total_ - foreign;
    for (const auto& [name, unit] : units_) {
      amount -= held(name, unit);
      if (clock < unit.lag_until) amount -= unit.lagging;
    }
    return amount;
  }

  void answer(const Command& command, Duration delay, std::function<Event()> make) {
    queue_.push_back({clock + delay, command.step, command.kind, [command, make = std::move(make)] {
                        Event event = make();
                        event.step = command.step;
                        event.attempt = command.attempt;
                        return event;
                      }});
  }
  static Event say(Event::Kind kind, std::string text = {}) {
    Event event;
    event.kind = kind;
    event.text = std::move(text);
    return event;
  }

  void carry_out(const Command& command) {
    using Kind = Command::Kind;
    Unit& unit = units_[command.unit];
    if (is_unjournaled(command)) {
      answer(command, 0ms, [this] {
        Event event = say(Event::Kind::not_journaled, unjournaled);
        event.remedy = "Make room.";
        event.error = Error{ErrorCode::environment, unjournaled, event.remedy, {}};
        return event;
      });
      return;
    }
    if (command.mutates() && command.kind != Kind::record_failure)
      history.push_back(std::string(to_string(command.kind)) + " " +
                        (command.service.empty() ? command.unit : command.service));
    switch (command.kind) {
      case Kind::observe:
        units_.erase("");
        answer(command, 1ms, [this] {
          units_.erase("");
          Event event = say(Event::Kind::observed);
          event.snapshot = observe();
          return event;
        });
        return;
      case Kind::preflight:
        answer(command, 1ms, [this] {
          if (!preflight_problem) return say(Event::Kind::preflight_ok);
          Event event = say(Event::Kind::preflight_failed, *preflight_problem);
          event.error = Error{ErrorCode::refused, *preflight_problem, {}, {}};
          return event;
        });
        return;
      case Kind::check_memory: {
        check_until_free(command);
        return;
      }
      case Kind::start_unit: {
        if (allocating_ && takes_gpu(command)) violations.push_back("two allocating starts at once: " + command.unit);
        const auto need = claim_of(command);
        if (need > Bytes(0) && free() - need < knowledge.settings.vram_margin)
          violations.push_back("started without room: " + command.unit);
        if (unit.pid) violations.push_back("started twice: " + command.unit);
        const auto id = command.service;
        bool fails = start_fails.contains(id);
        if (auto it = transient_failures.find(id); it != transient_failures.end() && it->second > 0)
          --it->second, fails = true;
        const bool transient = !start_fails.contains(id);
        unit.pid = next_pid_++;
        outdated.erase(command.unit);
        unit.failed = unit.asleep = unit.broken = false;
        unit.loaded.clear();
        if (!fails && !never_ready.contains(id) && !command.service.empty() && !knowledge.services.at(id).in_router())
          unit.loaded.insert(id);
        answer(command, 5ms, [] { return say(Event::Kind::job_done); });
        if (fails) doomed_[command.unit] = transient;
        return;
      }
      case Kind::stop_unit:
        answer(command, 20ms, [this, command] {
          Unit& target = units_[command.unit];
          if (lost_stops[command.unit] > 0) {
            --lost_stops[command.unit];
            return say(Event::Kind::job_failed, "no answer");
          }
          if (!survives_sigterm.contains(command.unit) && !survives_everything.contains(command.unit))
            end(command.unit, target);
          return say(Event::Kind::job_done);
        });
        return;
      case Kind::kill_unit:
        answer(command, 1ms, [this, command] {
          if (!survives_everything.contains(command.unit)) end(command.unit, units_[command.unit]);
          return say(Event::Kind::job_done);
        });
        return;
      case Kind::prove_release: {
        const bool gone = unit.pid == 0;
        answer(command, gone ? 1ms : command.deadline - clock, [this, command] {
          return units_[command.unit].pid == 0 ? say(Event::Kind::released)
                                               : say(Event::Kind::survived, "it will not end");
        });
        return;
      }
      case Kind::prove_fall: {
        if (ends_asleep.contains(command.service)) {
          end(command.unit, unit);
          answer(command, 1ms, [] { return say(Event::Kind::not_ready, "it has ended instead"); });
          return;
        }
        const bool fell = std::all_of(command.ceiling.begin(), command.ceiling.end(),
                                      [&](const auto& gpu) { return held(command.unit, unit) <= gpu.second; });
        answer(command, fell ? 1ms : 10s, [fell] {
          return fell ? say(Event::Kind::released) : say(Event::Kind::survived, "it still holds what it held");
        });
        return;
      }
      case Kind::load_model:
        answer(command, 2ms, [this, command] {
          if (!start_fails.contains(command.service)) units_[command.unit].loaded.insert(command.service);
          return say(Event::Kind::job_done);
        });
        return;
      case Kind::unload_model:
        answer(command, 2ms, [this, command] {
          if (!unload_does_nothing.contains(command.service)) units_[command.unit].loaded.erase(command.service);
          return say(Event::Kind::job_done);
        });
        return;
      case Kind::sleep_service:
        unit.asleep = true;
        return answer(command, 2ms, [] { return say(Event::Kind::job_done); });
      case Kind::wake_service:
        unit.asleep = false;
        return answer(command, 2ms, [] { return say(Event::Kind::job_done); });
      case Kind::await_residency: {
        const bool there = (command.target == Residency::unloaded) != unit.loaded.contains(command.service);
        const bool arrives = is_asleep(command.target) || there;
        answer(command, arrives ? 50ms : command.deadline - clock, [arrives] {
          return arrives ? say(Event::Kind::ready) : say(Event::Kind::not_ready, "it stays as it is");
        });
        return;
      }
      case Kind::await_ready: {
        if (auto it = doomed_.find(command.unit); it != doomed_.end()) {
          const bool transient = it->second;
          doomed_.erase(it);
          answer(command, 100ms, [this, command, transient] {
            units_[command.unit].pid = 0;
            units_[command.unit].failed = true;
            Event event = say(Event::Kind::not_ready, "it ended");
            event.transient = transient;
            return event;
          });
          return;
        }
        const bool late = never_ready.contains(command.service) || unit.broken;
        answer(command, late ? command.deadline - clock : 500ms,
               [late] { return late ? say(Event::Kind::not_ready, "not ready in time") : say(Event::Kind::ready); });
        return;
      }
      case Kind::verify: {
        const bool wrong = wrong_model.contains(command.service);
        answer(command, 10ms + answers_late[command.service], [wrong, asked = unit.pid] {
          if (wrong) return say(Event::Kind::not_verified, "another model answers");
          Event event = say(Event::Kind::verified, "hello");
          event.main_pid = asked;
          return event;
        });
        return;
      }
      case Kind::abandon:
        for (auto& pending : queue_)
          if (pending.step == command.step &&
              (pending.kind == Kind::await_ready || pending.kind == Kind::await_residency ||
               pending.kind == Kind::check_memory)) {
            pending.at = clock;
            pending.make = [command] {
              Event event = say(Event::Kind::not_ready);
              event.step = command.step;
              event.attempt = command.attempt;
              event.abandoned = true;
              return event;
            };
          }
        return;
      case Kind::record_failure: history.push_back("record_failure"); return;
      case Kind::finish: return;
    }
  }

  bool is_unjournaled(const Command& command) {
    if (unjournaled.empty() || !command.mutates() || command.kind == Command::Kind::record_failure) return false;
    if (written_before_full-- > 0) return false;
    return full_for-- > 0;
  }
  void check_until_free(const Command& command) {
    Bytes need;
    for (const auto& [gpu, bytes] : command.need)
      need = std::max(need, bytes);
    TimePoint when = clock + 50ms;
    for (const auto& [name, unit] : units_)
      when = std::max(when, unit.lag_until);
    const TimePoint at = std::min(when, command.deadline);
    answer(command, at - clock, [this, need] {
      return free() >= need ? say(Event::Kind::memory_ok) : say(Event::Kind::memory_short, "too little is free");
    });
  }
  bool takes_gpu(const Command& command) const { return claim_of(command) > Bytes(0); }
  Bytes claim_of(const Command& command) const {
    const auto found = knowledge.services.find(command.service);
    if (found == knowledge.services.end() || found->second.in_router()) return Bytes();
    return found->second.vram.value_or(Bytes());
  }
  void end(const std::string& name, Unit& unit) {
    if (const auto lag = release_lag.find(name); lag != release_lag.end() && unit.pid) {
      unit.lagging = held(name, unit);
      unit.lag_until = clock + lag->second;
    }
    unit.pid = 0;
    unit.loaded.clear();
    unit.asleep = unit.broken = false;
  }

  Bytes gpu_total_;
  bool allocating_ = false;
  pid_t next_pid_ = 100;
  std::map<std::string, Unit> units_;
  std::map<std::string, bool> doomed_;
  std::vector<Pending> queue_;
};

}  // namespace gpumod::testing_world
