#include "host.h"

namespace gpumod::simulation {

Host::Host(const Catalogue& catalogue, Random& random, Weather& weather, Agenda& agenda, Trace& trace, Witness& witness)
    : catalogue_(catalogue),
      random_(random),
      weather_(weather),
      agenda_(agenda),
      trace_(trace),
      witness_(witness),
      units_(catalogue.units.size()),
      models_(catalogue.services.size()) {
  for (std::size_t i = 0; i < units_.size(); ++i)
    units_[i].exists = catalogue.units[i].adopted;
}

Process* Host::process(pid_t pid) {
  for (auto& candidate : processes_)
    if (candidate.pid == pid) return &candidate;
  return nullptr;
}
const Process* Host::process(pid_t pid) const {
  for (const auto& candidate : processes_)
    if (candidate.pid == pid) return &candidate;
  return nullptr;
}

pid_t Host::make_process(int unit, int model, std::vector<int> gpus) {
  Process made;
  made.pid = next_pid_++;
  made.unit = unit;
  made.model = model;
  made.gpus = std::move(gpus);
  processes_.push_back(made);
  return made.pid;
}

bool Host::can_start(int unit) const {
  return catalogue_.units[static_cast<std::size_t>(unit)].adopted || gone(unit);
}

void Host::start(int unit, std::vector<int> gpus, bool job_fails) {
  auto& target = state(unit);
  const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
  if (!pids(unit).empty() && target.active == ActiveState::active) return;  // people's own unit runs already
  ++target.generation;
  target.exists = true;
  target.auto_restart = false;
  if (job_fails) {
    target.active = ActiveState::failed;
    target.transient = false;
    target.silent = strikes(Fault::journal_silent);
    return changed();
  }
  spawn(unit, spec.adopted ? catalogue_.home(unit) : std::move(gpus));
}

/// A server begins: what becomes of it is drawn now, and happens by itself.
void Host::spawn(int unit, std::vector<int> gpus) {
  auto& target = state(unit);
  const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
  const unsigned generation = ++target.generation;
  const bool was_wrong = target.wrong;
  target.active = ActiveState::active;
  target.exists = true;
  target.auto_restart = target.listens = target.ready = target.lies = target.wrong = target.hangs = false;
  target.keeps_memory = target.transient = target.silent = target.outdated = false;
  target.doom.reset();
  target.asleep = 0;
  target.born = agenda_.now;
  target.gpus = std::move(gpus);
  target.main = make_process(unit, -1, target.gpus);
  for (const int member : spec.members)
    if (spec.router) {
      auto& model = models_[static_cast<std::size_t>(member)];
      const unsigned next = model.generation + 1;
      model = Model();
      model.generation = next;
    }
  trace_.say("  world: {} begins as pid {}", name(unit), target.main);

  Duration load = spec.router ? random_.time(50ms, 500ms) : random_.time(100ms, 18s);
  if (spec.members.empty()) load = 100ms;
  const auto doomed = [&](Fault fault, bool transient) {
    target.transient = transient;
    target.doom = fault;
    target.silent = strikes(Fault::journal_silent);
    agenda_.add(random_.time(1ms, load), Tick::die, unit, static_cast<int>(generation));
  };
  const std::uint16_t port =
      spec.members.empty() ? std::uint16_t(0) : catalogue_.services[static_cast<std::size_t>(spec.members[0])]->port;
  if (port != 0 && strikes(Fault::port_taken))
    stranger_on(port, random_.percent(50) ? random_.time(1s, 90s) : Duration(86400s));
  if (strikes(Fault::dies_in_start)) {
    doomed(Fault::dies_in_start, false);
  } else if (strikes(Fault::dies_transient)) {
    doomed(Fault::dies_transient, true);
  } else if (port != 0 && port_stranger(port) != nullptr && random_.percent(50)) {
    doomed(Fault::port_taken, true);
  } else if (strikes(Fault::never_ready)) {
    target.hangs = true;
  } else {
    target.lies = strikes(Fault::lying_health);
    target.wrong = strikes(Fault::wrong_model) || (was_wrong && random_.percent(50));
    agenda_.add(target.lies ? load / 4 : load, Tick::ready, unit, static_cast<int>(generation));
  }
  const bool opens_early =
      spec.members.empty() || !catalogue_.services[static_cast<std::size_t>(spec.members[0])]->vllm();
  target.listens = opens_early && !target.hangs;
  if (!spec.router && !spec.members.empty()) schedule_memory(target.main, spec.members[0], load);
  changed();
}

void Host::schedule_memory(pid_t pid, int service, Duration load) {
  if (!catalogue_.uses_gpu(service) || catalogue_.gpus.empty()) return;
  agenda_.add(load * 3 / 10, Tick::grow, pid, service, 600);
  agenda_.add(load * 8 / 10, Tick::grow, pid, service, 400);
}

void Host::grow(pid_t pid, int service, int permille) {
  auto* grower = process(pid);
  if (!grower || !grower->alive) return;
  auto& unit = state(grower->unit);
  for (const int gpu : grower->gpus) {
    const auto amount = Bytes(catalogue_.need(service, gpu).count() / 1000 * permille);
    if (!catalogue_.unified && free(gpu) < amount) {
      trace_.say("  world: pid {} finds no memory on GPU {}: {} of {} free", pid, gpu, to_string(free(gpu)),
                 to_string(amount));
      const bool transient = catalogue_.services[static_cast<std::size_t>(service)]->vllm() != nullptr;
      if (grower->model >= 0) {
        models_[static_cast<std::size_t>(service)].transient = transient;
        return end_process(pid);
      }
      unit.transient = transient;
      return end_process(pid);
    }
    grower->held[static_cast<std::size_t>(gpu)] += amount;
  }
  memory_changed();
}

/// A vLLM that measures while memory comes back aborts.
void Host::memory_rose(int gpu) {
  memory_changed();
  for (std::size_t u = 0; u < units_.size(); ++u) {
    auto& unit = units_[u];
    const auto& spec = catalogue_.units[u];
    if (unit.active != ActiveState::active || unit.ready || unit.hangs || spec.members.size() != 1) continue;
    if (!catalogue_.services[static_cast<std::size_t>(spec.members[0])]->vllm()) continue;
    if (held(static_cast<int>(u), gpu) == Bytes() || !random_.percent(40)) continue;
    trace_.say("  world: {} measures while memory comes back on GPU {}", name(static_cast<int>(u)), gpu);
    unit.transient = true;
    unit.silent = false;
    agenda_.add(1ms, Tick::die, static_cast<int>(u), static_cast<int>(unit.generation));
  }
}

/// The process is gone; when its memory comes back is another matter.
void Host::end_process(pid_t pid) {
  auto* ended = process(pid);
  if (!ended || !ended->alive) return;
  ended->alive = false;
  const int unit = ended->unit, model = ended->model;
  trace_.say("  world: pid {} ends", pid);
  const bool holds = std::any_of(ended->held.begin(), ended->held.end(), [](Bytes b) { return b > Bytes(); });
  Duration delay = random_.percent(70) ? Duration(0) : random_.time(1ms, 300ms);
  if (holds && strikes(Fault::release_late)) {
    witness_.saw(Fault::release_late);
    delay = random_.time(0ms, 120s);
  }
  if (holds && strikes(Fault::release_partial)) {
    witness_.saw(Fault::release_partial);
    agenda_.add(delay, Tick::release, pid, 500);
    if (!random_.percent(15)) agenda_.add(delay + random_.time(1s, 120s), Tick::release, pid, 1000);
  } else {
    agenda_.add(delay, Tick::release, pid, 1000);
  }
  if (holds && strikes(Fault::zombie_listed)) {
    witness_.saw(Fault::zombie_listed);
    if (!random_.percent(15)) agenda_.add(delay + random_.time(10ms, 150s), Tick::delist, pid);
  } else {
    agenda_.add(random_.percent(80) ? Duration(0) : delay, Tick::delist, pid);
  }
  if (unit < 0) return memory_changed();
  if (model >= 0 && models_[static_cast<std::size_t>(model)].child == pid) model_ended(model);
  if (state(unit).main == pid) unit_main_ended(unit);
  memory_changed();
}

void Host::unit_main_ended(int unit) {
  auto& target = state(unit);
  const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
  target.main = 0;
  target.listens = target.ready = false;
  target.asleep = 0;
  ++target.generation;
  if (spec.router)
    for (const auto pid : pids(unit)) {
      auto* child = process(pid);
      if (child && child->model >= 0 && !child->unkillable) end_process(pid);
    }
  if (target.active == ActiveState::deactivating) return;  // the stop sees to the rest
  target.troubled = agenda_.now;
  if (spec.restarts) {
    target.auto_restart = true;
    target.active = ActiveState::activating;
    agenda_.add(random_.time(100ms, 5s), Tick::restart, unit, static_cast<int>(target.generation));
  } else {
    target.active = ActiveState::failed;
  }
}

void Host::model_ended(int service) {
  auto& model = models_[static_cast<std::size_t>(service)];
  model.child = 0;
  ++model.generation;
  if (model.state == Model::State::unloaded) return;
  if (model.doom) witness_.saw(*model.doom);
  if (model.state == Model::State::loaded)
    state(catalogue_.unit_of[static_cast<std::size_t>(service)]).troubled = agenda_.now;
  model.state = Model::State::failed;
}

void Host::die(int unit, unsigned generation) {
  auto& target = state(unit);
  if (target.generation != generation || target.main == 0) return;
  if (target.doom && *target.doom != Fault::port_taken) witness_.saw(*target.doom);
  end_process(target.main);
}

void Host::begin_stop(int unit) {
  auto& target = state(unit);
  target.auto_restart = false;
  const auto there = pids(unit);
  if (there.empty()) {
    if (target.active != ActiveState::failed) target.active = ActiveState::inactive;
    ++target.generation;
    return changed();
  }
  target.active = ActiveState::deactivating;
  const Duration takes = random_.time(10ms, 2s);
  Duration longest = takes;
  for (const auto pid : there) {
    if (strikes(Fault::survivor)) {
      witness_.saw(Fault::survivor);
      trace_.say("  world: pid {} does not end on SIGTERM", pid);
      if (strikes(Fault::unkillable)) {
        process(pid)->unkillable = true;
        witness_.saw(Fault::unkillable);
      }
      longest = 20s;
      continue;
    }
    agenda_.add(takes, Tick::exit, pid);
  }
  agenda_.add(longest + 1ms, Tick::stop_over, unit);
  changed();
}

void Host::finish_stop(int unit) {
  auto& target = state(unit);
  if (target.active != ActiveState::deactivating) return;
  target.active = pids(unit).empty() || random_.percent(50) ? ActiveState::inactive : ActiveState::failed;
  target.listens = target.ready = false;
  target.main = 0;
  ++target.generation;
  if (!catalogue_.units[static_cast<std::size_t>(unit)].adopted && pids(unit).empty()) target.exists = false;
  changed();
}

void Host::begin_kill(int unit) {
  for (const auto pid : pids(unit)) {
    auto* victim = process(pid);
    const bool was_unkillable = victim->unkillable;
    if (!was_unkillable && strikes(Fault::unkillable)) victim->unkillable = true;
    if (victim->unkillable) {
      witness_.saw(Fault::unkillable);
      trace_.say("  world: pid {} does not end on SIGKILL", pid);
      if (!was_unkillable && random_.percent(50)) agenda_.add(random_.time(1s, 300s), Tick::exit, pid);
      continue;
    }
    agenda_.add(random_.time(1ms, 20ms), Tick::exit, pid);
  }
  changed();
}

bool Host::answers(int unit) const {
  const auto& target = state(unit);
  return target.main != 0 && target.ready && !target.hangs && target.active == ActiveState::active;
}

void Host::load(int service, const std::vector<int>& gpus) {
  const int unit = catalogue_.unit_of[static_cast<std::size_t>(service)];
  auto& model = models_[static_cast<std::size_t>(service)];
  if (model.state == Model::State::loading || model.state == Model::State::loaded) return;
  const bool was_wrong = model.wrong;
  const unsigned generation = model.generation + 1;
  model = Model();
  model.generation = generation;
  model.state = Model::State::loading;
  // A router that is bound to no GPU puts its models where there is room: where the plan saw it.
  model.child = make_process(unit, service, state(unit).gpus.empty() ? gpus : state(unit).gpus);
  const Duration takes = random_.time(100ms, 15s);
  if (strikes(Fault::never_ready)) {
    model.hangs = true;
  } else if (strikes(Fault::load_fails)) {
    model.doom = Fault::load_fails;
    witness_.saw(Fault::load_fails);
    model.silent = strikes(Fault::journal_silent);
    agenda_.add(takes, Tick::exit, model.child);
  } else if (strikes(Fault::dies_transient)) {
    model.doom = Fault::dies_transient;
    model.transient = true;
    model.silent = strikes(Fault::journal_silent);
    agenda_.add(takes, Tick::exit, model.child);
  } else {
    model.lies = strikes(Fault::lying_health);
    model.wrong = strikes(Fault::wrong_model) || (was_wrong && random_.percent(50));
    agenda_.add(takes, Tick::model_loaded, service, static_cast<int>(generation));
  }
  schedule_memory(model.child, service, takes);
  trace_.say("  world: {} loads {} as pid {}", name(unit), catalogue_.services[static_cast<std::size_t>(service)]->id,
             model.child);
  changed();
}

void Host::unload(int service) {
  auto& model = models_[static_cast<std::size_t>(service)];
  const int unit = catalogue_.unit_of[static_cast<std::size_t>(service)];
  if (strikes(Fault::unload_ignored)) return witness_.saw(Fault::unload_ignored);
  if (model.state == Model::State::unloaded || model.state == Model::State::failed) {
    model.state = Model::State::unloaded;
    return;
  }
  model.state = Model::State::unloaded;  // what the router says at once
  model.doom.reset();
  if (strikes(Fault::keeps_memory)) {
    witness_.saw(Fault::keeps_memory);
    model.child = 0;  // nobody's any more, and it stays
    return changed();
  }
  agenda_.add(random_.time(20ms, 10s), Tick::exit, model.child);
  if (strikes(Fault::dies_later)) {  // and the router with it
    auto& router = state(unit);
    router.doom = Fault::dies_later;
    router.silent = strikes(Fault::journal_silent);
    agenda_.add(random_.percent(50) ? Duration(500'000) : random_.time(0ms, 5s), Tick::die, unit,
                static_cast<int>(router.generation));
  }
  changed();
}

void Host::sleep(int service, int level) {
  const int unit = catalogue_.unit_of[static_cast<std::size_t>(service)];
  auto& target = state(unit);
  target.keeps_memory = strikes(Fault::keeps_memory);
  const Duration takes = random_.time(200ms, 8s);
  agenda_.add(takes, Tick::nap, unit, static_cast<int>(target.generation), level);
  if (strikes(Fault::dies_later)) {
    target.doom = Fault::dies_later;
    target.silent = strikes(Fault::journal_silent);
    agenda_.add(takes + (random_.percent(50) ? random_.time(-1s, 1s) : random_.time(0ms, 3ms)), Tick::die, unit,
                static_cast<int>(target.generation));
  }
}

void Host::wake(int service) {
  const int unit = catalogue_.unit_of[static_cast<std::size_t>(service)];
  auto& target = state(unit);
  if (strikes(Fault::never_ready)) {
    target.hangs = true;
    return changed();
  }
  if (strikes(Fault::wrong_model)) target.wrong = true;  // weights that were never reloaded: gibberish
  if (strikes(Fault::lying_health)) target.lies = true;
  const Duration takes = random_.time(200ms, 6s);
  if (strikes(Fault::dies_later)) {
    target.doom = Fault::dies_later;
    target.silent = strikes(Fault::journal_silent);
    agenda_.add(takes + random_.time(0ms, 3ms), Tick::die, unit, static_cast<int>(target.generation));
  }
  agenda_.add(takes / 2, Tick::grow, target.main, service, -1);
  agenda_.add(takes, Tick::woken, unit, static_cast<int>(target.generation));
}

void Host::on(const Entry& entry) {
  const int unit = entry.a;
  switch (entry.kind) {
    case Tick::exit: return end_process(entry.a);
    case Tick::release: {
      auto* ended = process(entry.a);
      if (!ended) return;
      for (std::size_t gpu = 0; gpu < catalogue_.gpus.size(); ++gpu) {
        if (ended->held[gpu] == Bytes()) continue;
        ended->held[gpu] = Bytes(ended->held[gpu].count() / 1000 * (1000 - entry.b));
        memory_rose(static_cast<int>(gpu));
        ended = process(entry.a);
      }
      if (entry.b == 1000 && !ended->alive && !ended->listed)
        std::erase_if(processes_, [&](const Process& p) { return p.pid == entry.a; });
      return memory_changed();
    }
    case Tick::delist: {
      auto* ended = process(entry.a);
      if (!ended) return;
      ended->listed = false;
      const bool holds = std::any_of(ended->held.begin(), ended->held.end(), [](Bytes b) { return b > Bytes(); });
      if (!holds) std::erase_if(processes_, [&](const Process& p) { return p.pid == entry.a; });
      return memory_changed();
    }
    case Tick::grow: {
      if (entry.c != -1) return grow(entry.a, entry.b, static_cast<int>(entry.c));
      // A sleeper takes back what it gave.
      auto* waking = process(entry.a);
      if (!waking || !waking->alive) return;
      auto& owner = state(waking->unit);
      for (const int gpu : waking->gpus) {
        auto& own = waking->held[static_cast<std::size_t>(gpu)];
        const auto more = catalogue_.need(entry.b, gpu) - own;
        if (more <= Bytes()) continue;
        if (!catalogue_.unified && free(gpu) < more) {
          owner.transient = true;
          return end_process(entry.a);
        }
        own += more;
      }
      return memory_changed();
    }
    case Tick::ready: {
      auto& target = state(unit);
      if (static_cast<int>(target.generation) != entry.b || target.main == 0) return;
      target.ready = target.listens = true;
      if (strikes(Fault::dies_later)) {
        target.doom = Fault::dies_later;
        agenda_.add(random_.time(1ms, 40s), Tick::die, unit, entry.b);
      }
      return changed();
    }
    case Tick::die: return die(unit, static_cast<unsigned>(entry.b));
    case Tick::restart: {
      auto& target = state(unit);
      if (!target.auto_restart || static_cast<int>(target.generation) != entry.b) return;
      ++target.restarts;
      weather_.note();
      witness_.saw(Fault::restart_loop);
      target.troubled = agenda_.now;
      return spawn(unit, catalogue_.home(unit));
    }
    case Tick::model_loaded: {
      auto& model = models_[static_cast<std::size_t>(entry.a)];
      if (static_cast<int>(model.generation) != entry.b || model.state != Model::State::loading) return;
      model.state = Model::State::loaded;
      if (strikes(Fault::dies_later)) {
        model.doom = Fault::dies_later;
        agenda_.add(random_.time(1ms, 40s), Tick::exit, model.child);
      }
      return changed();
    }
    case Tick::nap: {
      auto& target = state(unit);
      if (static_cast<int>(target.generation) != entry.b || target.main == 0) return;
      target.asleep = static_cast<int>(entry.c);
      if (target.keeps_memory) {
        witness_.saw(Fault::keeps_memory);
        return changed();
      }
      for (std::size_t gpu = 0; gpu < catalogue_.gpus.size(); ++gpu) {
        auto& own = process(target.main)->held[gpu];
        if (own <= Bytes::mib(1100)) continue;
        own = Bytes::mib(1100);
        memory_rose(static_cast<int>(gpu));
        if (target.main == 0) return;
      }
      return changed();
    }
    case Tick::woken: {
      auto& target = state(unit);
      if (static_cast<int>(target.generation) != entry.b) return;
      target.asleep = 0;
      return changed();
    }
    case Tick::stop_over: return finish_stop(unit);
    case Tick::foreign_moves: {
      for (auto& other : processes_)
        if (other.unit == -1 && other.alive && random_.percent(60))
          for (std::size_t gpu = 0; gpu < catalogue_.gpus.size(); ++gpu) {
            const auto room = std::min(free(static_cast<int>(gpu)), Bytes::mib(400));
            const auto before = other.held[gpu];
            other.held[gpu] =
                std::max(Bytes(), before + random_.mib(-400, std::max<std::int64_t>(0, room.to_mib() - 1)));
            if (other.held[gpu] < before) memory_rose(static_cast<int>(gpu));
          }
      witness_.saw(Fault::foreign_moves);
      agenda_.add(random_.time(100ms, 3s), Tick::foreign_moves);
      return memory_changed();
    }
    case Tick::port_freed:
      std::erase_if(strangers_, [&](const auto& stranger) { return stranger.first == entry.a; });
      return changed();
    case Tick::gpu_back: return memory_changed();
    default: return;
  }
}

}  // namespace gpumod::simulation
