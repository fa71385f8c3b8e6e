// What the modelled machine shows of itself, as control/observe makes a snapshot of the real one; what is true of it;
// and what people and power companies do to it.
#include "host.h"

namespace gpumod::simulation {

namespace {

ServiceView view_of(const Service& service) {
  ServiceView view;
  view.id = service.id;
  view.unit = service.unit_name();
  return view;
}

}  // namespace

Bytes Host::free(int gpu) const {
  const auto& spec = catalogue_.gpus[static_cast<std::size_t>(gpu)];
  Bytes amount = spec.total - spec.reserved;
  for (const auto& process : processes_)
    amount -= process.held[static_cast<std::size_t>(gpu)];
  return amount;
}

std::vector<pid_t> Host::pids(int unit) const {
  std::vector<pid_t> found;
  for (const auto& process : processes_)
    if (process.unit == unit && process.alive) found.push_back(process.pid);
  return found;
}

bool Host::gone(int unit) const {
  const auto& target = state(unit);
  if (target.active != ActiveState::inactive && target.active != ActiveState::failed) return false;
  return std::none_of(processes_.begin(), processes_.end(),
                      [&](const Process& process) { return process.unit == unit && process.alive; });
}

bool Host::alive(pid_t pid) const {
  const auto* found = process(pid);
  return found && found->alive;
}

bool Host::listed(pid_t pid) const {
  const auto* found = process(pid);
  return found && found->listed &&
         std::any_of(found->held.begin(), found->held.end(), [](Bytes held) { return held > Bytes(); });
}

Bytes Host::held_by_pid(pid_t pid, int gpu) const {
  const auto* found = process(pid);
  return found ? found->held[static_cast<std::size_t>(gpu)] : Bytes();
}

Bytes Host::held(int unit, int gpu) const {
  Bytes sum;
  for (const auto& process : processes_)
    if (process.unit == unit && process.alive) sum += process.held[static_cast<std::size_t>(gpu)];
  return sum;
}

const std::string* Host::port_stranger(std::uint16_t port) const {
  for (const auto& [taken, who] : strangers_)
    if (taken == port) return &who;
  return nullptr;
}

int Host::port_unit(std::uint16_t port) const {
  for (std::size_t u = 0; u < units_.size(); ++u) {
    const auto& members = catalogue_.units[u].members;
    if (units_[u].main != 0 && units_[u].listens && !members.empty() &&
        catalogue_.services[static_cast<std::size_t>(members[0])]->port == port)
      return static_cast<int>(u);
  }
  return -1;
}

Residency Host::seen(int service, std::string& detail) const {
  const auto& file = *catalogue_.services[static_cast<std::size_t>(service)];
  const int index = catalogue_.unit_of[static_cast<std::size_t>(service)];
  const auto& unit = state(index);
  if (gone(index)) {
    if (unit.active == ActiveState::failed) detail = "ended with exit-code (exit code 1)";
    return unit.active == ActiveState::failed ? Residency::failed : Residency::stopped;
  }
  if (unit.auto_restart) {
    detail = "its unit restarts again and again";
    return Residency::failed;
  }
  if (unit.active == ActiveState::deactivating) return Residency::stopping;
  if (unit.active != ActiveState::active) {
    detail = "its unit has ended, but processes survive";
    return Residency::failed;
  }
  const bool old = agenda_.now - unit.born > file.startup_timeout;
  const auto not_answering = [&](const char* why) {
    detail = why;
    return old ? Residency::failed : Residency::starting;
  };
  if (file.port != 0) {
    if (port_stranger(file.port)) {
      detail = "its port is answered by a stranger";
      return Residency::failed;
    }
    const int holder = port_unit(file.port);
    if (holder >= 0 && holder != index) {
      detail = "its port is answered by another unit";
      return Residency::failed;
    }
    if (holder < 0) return not_answering("nothing listens");
  }
  if (unit.hangs || !unit.ready) return not_answering("it does not answer");
  if (file.in_router()) {
    const auto& own = model(service);
    switch (own.state) {
      case Model::State::loaded: return Residency::running;
      case Model::State::loading: return Residency::starting;
      case Model::State::unloaded: return Residency::unloaded;
      case Model::State::failed: detail = "the router's process for it ended"; return Residency::failed;
    }
  }
  if (unit.asleep > 0) return file.sleep == SleepAbility::level2 ? Residency::sleeping2 : Residency::sleeping1;
  return Residency::running;
}

Residency Host::truth(int service) const {
  const auto& file = *catalogue_.services[static_cast<std::size_t>(service)];
  const int index = catalogue_.unit_of[static_cast<std::size_t>(service)];
  const auto& unit = state(index);
  if (gone(index)) return Residency::stopped;
  if (unit.main == 0 || unit.active != ActiveState::active) return Residency::failed;
  if (file.in_router()) {
    const auto& own = model(service);
    if (own.state == Model::State::unloaded) return Residency::unloaded;
    if (own.state == Model::State::failed) return Residency::failed;
    if (own.hangs || own.lies || own.wrong) return Residency::failed;
    if (own.state == Model::State::loading) return Residency::starting;
  }
  if (unit.asleep > 0 && unit.ready && !unit.hangs)
    return unit.asleep == 2 ? Residency::sleeping2 : Residency::sleeping1;
  if (unit.hangs || unit.lies || unit.wrong || (file.port != 0 && port_stranger(file.port))) return Residency::failed;
  if (!unit.ready) return Residency::starting;
  return Residency::running;
}

Snapshot Host::look() {
  Snapshot snapshot;
  for (std::size_t u = 0; u < units_.size(); ++u) {
    const auto& unit = units_[u];
    const auto& spec = catalogue_.units[u];
    if (spec.members.empty() && !unit.exists) continue;
    UnitStatus status;
    status.name = spec.name;
    status.tag = spec.tag;
    status.exists = unit.exists;
    status.active = unit.active;
    if (unit.auto_restart) status.sub_state = "auto-restart";
    status.main_pid = unit.main;
    status.restarts = unit.restarts;
    status.pids = pids(static_cast<int>(u));
    for (const auto pid : status.pids)
      snapshot.unit_of_pid[pid] = spec.name;
    if (unit.outdated && !gone(static_cast<int>(u))) snapshot.outdated.insert(spec.name);
    snapshot.units.emplace(spec.name, std::move(status));
  }
  if (!catalogue_.gpus.empty() && !gpus_readable()) {
    snapshot.gpu_problem = Error{ErrorCode::environment, "the driver does not answer", {}, {}};
  } else {
    for (std::size_t gpu = 0; gpu < catalogue_.gpus.size(); ++gpu) {
      GpuSample sample;
      sample.index = static_cast<int>(gpu);
      sample.uuid = fmt::format("GPU-{}", gpu);
      sample.name = "Modelled";
      if (!catalogue_.unified) {
        sample.total = catalogue_.gpus[gpu].total;
        sample.free = free(static_cast<int>(gpu));
      }
      for (const auto& process : processes_) {
        if (!process.listed || process.held[gpu] == Bytes()) continue;
        GpuProcess line;
        line.pid = process.pid;
        if (catalogue_.figures) line.used = process.held[gpu];
        sample.processes.push_back(line);
      }
      snapshot.gpus.push_back(std::move(sample));
    }
  }
  for (std::size_t s = 0; s < catalogue_.services.size(); ++s) {
    const auto& file = *catalogue_.services[s];
    auto view = view_of(file);
    view.residency = seen(static_cast<int>(s), view.detail);
    snapshot.services.emplace(file.id, std::move(view));
    const bool first =
        catalogue_.units[static_cast<std::size_t>(catalogue_.unit_of[s])].members[0] == static_cast<int>(s);
    if (file.port == 0 || !first) continue;
    if (const auto* who = port_stranger(file.port))
      snapshot.ports.push_back({file.port, "", 9, *who, "www-data"});
    else if (const int holder = port_unit(file.port); holder >= 0)
      snapshot.ports.push_back({file.port, catalogue_.units[static_cast<std::size_t>(holder)].name,
                                units_[static_cast<std::size_t>(holder)].main, "server", "me"});
  }
  return snapshot;
}

void Host::boot(bool with_power_cut) {
  if (with_power_cut) {
    for (auto& unit : units_) {
      const unsigned generation = unit.generation + 1;
      const bool existed = unit.exists;
      unit = Unit();
      unit.generation = generation;
      unit.exists = existed;
      unit.troubled = agenda_.now;
    }
    for (auto& model : models_) {
      const unsigned generation = model.generation + 1;
      model = Model();
      model.generation = generation;
    }
    processes_.clear();
    strangers_.clear();
    for (std::size_t u = 0; u < units_.size(); ++u) {
      if (!catalogue_.units[u].adopted) units_[u].exists = false;
      if (catalogue_.units[u].restarts && random_.percent(40))
        spawn(static_cast<int>(u), catalogue_.home(static_cast<int>(u)));
    }
  }
  for (std::size_t gpu = 0; gpu < catalogue_.gpus.size(); ++gpu)
    if (random_.percent(60)) foreign_takes(static_cast<int>(gpu), random_.mib(10, 900), Duration(0));
}

/// As if it had been running for long.
void Host::run_at_once(int unit, const std::vector<int>& loaded) {
  auto& target = state(unit);
  const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
  const auto settle = [&](pid_t pid, int service) {
    if (!catalogue_.uses_gpu(service)) return;
    for (const int gpu : process(pid)->gpus)
      process(pid)->held[static_cast<std::size_t>(gpu)] = catalogue_.need(service, gpu);
  };
  target.active = ActiveState::active;
  target.exists = target.ready = target.listens = true;
  target.born = agenda_.now - Duration(3600s);
  target.gpus = catalogue_.home(unit);
  const bool anywhere = !spec.adopted && !spec.members.empty() &&
                        catalogue_.services[static_cast<std::size_t>(spec.members[0])]->gpu.any();
  if (anywhere && !target.gpus.empty()) {
    target.gpus = {random_.below(static_cast<int>(catalogue_.gpus.size()))};
    if (catalogue_.spread(spec.members[0]) == 2) target.gpus = {0, 1};
  }
  target.main = make_process(unit, -1, target.gpus);
  if (!spec.router) {
    if (spec.members.empty()) return;
    settle(target.main, spec.members[0]);
    const auto ability = catalogue_.services[static_cast<std::size_t>(spec.members[0])]->sleep;
    if (ability == SleepAbility::none || !random_.percent(40)) return;
    target.asleep = ability == SleepAbility::level2 ? 2 : 1;
    for (auto& held : process(target.main)->held)
      held = std::min(held, Bytes::mib(1100));
    return;
  }
  for (const int service : loaded) {
    auto& own = models_[static_cast<std::size_t>(service)];
    own.state = Model::State::loaded;
    ++own.generation;
    own.child = make_process(unit, service, target.gpus);
    settle(own.child, service);
  }
  if (anywhere) target.gpus.clear();  // bound to nothing
}

void Host::hand_starts(int unit) {
  if (!can_start(unit) || !pids(unit).empty() || state(unit).active == ActiveState::deactivating) return;
  trace_.say("  world: a person starts {}", name(unit));
  state(unit).troubled = agenda_.now;
  const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
  const bool unbound =
      spec.router && !spec.adopted && catalogue_.services[static_cast<std::size_t>(spec.members[0])]->gpu.any();
  std::vector<int> gpus = unbound ? std::vector<int>() : catalogue_.home(unit);
  start(unit, std::move(gpus), false);
}

void Host::hand_stops(int unit) {
  if (gone(unit) || state(unit).active == ActiveState::deactivating) return;
  trace_.say("  world: a person stops {}", name(unit));
  state(unit).troubled = agenda_.now;
  begin_stop(unit);
}

void Host::client_wakes(int unit) {
  const auto& members = catalogue_.units[static_cast<std::size_t>(unit)].members;
  if (members.empty() || state(unit).asleep == 0 || !answers(unit)) return;
  trace_.say("  world: somebody wakes {}", name(unit));
  wake(members[0]);
}

/// Nothing happens to what runs.
void Host::edit_file(int unit) {
  const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
  auto& target = state(unit);
  if (target.main == 0 || spec.members.empty()) return;
  trace_.say("  world: a person edits the file of {}", name(unit));
  target.outdated = true;
}

void Host::crash(int unit, Fault why) {
  auto& target = state(unit);
  if (target.main == 0) return;
  trace_.say("  world: {} crashes", name(unit));
  target.doom = why;
  target.silent = strikes(Fault::journal_silent);
  die(unit, target.generation);
}

void Host::foreign_takes(int gpu, Bytes amount, Duration for_how_long) {
  if (amount <= Bytes() || catalogue_.unified) return;
  amount = std::min(amount, free(gpu));
  if (amount <= Bytes()) return;
  const auto pid = make_process(-1, -1, {gpu});
  process(pid)->held[static_cast<std::size_t>(gpu)] = amount;
  trace_.say("  world: a stranger takes {} on GPU {} as pid {}", to_string(amount), gpu, pid);
  if (for_how_long > Duration(0)) agenda_.add(for_how_long, Tick::exit, pid);
  memory_changed();
}

void Host::stranger_on(std::uint16_t port, Duration for_how_long) {
  if (port_stranger(port)) return;
  trace_.say("  world: a stranger listens on port {}", port);
  strangers_.emplace_back(port, random_.percent(50) ? "nginx" : "uvicorn");
  agenda_.add(for_how_long, Tick::port_freed, port);
  changed();
}

void Host::gpus_unreadable(Duration for_how_long) {
  gpus_back_ = std::max(gpus_back_, agenda_.now + for_how_long);
  agenda_.add(for_how_long, Tick::gpu_back);
  memory_changed();
}

void Host::begin_foreign_moves() {
  if (foreign_moves_) return;
  foreign_moves_ = true;
  agenda_.add(10ms, Tick::foreign_moves);
}

}  // namespace gpumod::simulation
