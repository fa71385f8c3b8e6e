#include "hands.h"

namespace gpumod::simulation {

namespace {

using Kind = Command::Kind;

// As in control/: how often what does not signal is asked, and how long it may go on.
constexpr Duration gpu_interval = 50ms;
constexpr Duration bus_timeout = 20s;

bool is_wait(Kind kind) {
  return kind == Kind::check_memory || kind == Kind::await_ready || kind == Kind::await_residency;
}

}  // namespace

Hands::Hands(const Catalogue& catalogue, Random& random, Weather& weather, Agenda& agenda, Host& host, Witness& witness,
             Inbox& inbox)
    : catalogue_(catalogue),
      random_(random),
      weather_(weather),
      agenda_(agenda),
      host_(host),
      witness_(witness),
      inbox_(inbox) {}

const Service* Hands::file(const Task& task) const {
  return task.service < 0 ? nullptr : catalogue_.services[static_cast<std::size_t>(task.service)];
}

Hands::Task& Hands::new_task(const Command& command) {
  while (!tasks_.empty() && !tasks_.front().live)
    tasks_.pop_front();
  Task& task = tasks_.emplace_back();
  task.live = true;
  task.id = next_id_++;
  task.command = command;
  task.unit = command.unit.empty() ? -1 : catalogue_.unit_named(command.unit);
  task.service = command.service.empty() ? -1 : catalogue_.service_named(command.service);
  // For a router's own start: any member of the unit, they share binary and port.
  if (task.service < 0 && task.unit >= 0 && !catalogue_.units[static_cast<std::size_t>(task.unit)].members.empty())
    task.service = catalogue_.units[static_cast<std::size_t>(task.unit)].members[0];
  task.began = agenda_.now;
  return task;
}

void Hands::poll_in(Task& task, Duration in) {
  const auto at = agenda_.now + std::max(in, Duration(0));
  if (task.poll_at <= at && task.poll_at >= agenda_.now) return;
  task.poll_at = at;
  agenda_.add(in, Tick::poll, 0, 0, task.id);
}

void Hands::end(Task& task, Event::Kind kind, std::string text, bool transient, pid_t main_pid) {
  task.live = false;
  Event event;
  event.kind = kind;
  event.step = task.command.step;
  event.attempt = task.command.attempt;
  event.text = std::move(text);
  event.transient = transient;
  if (kind == Event::Kind::not_ready && !event.text.empty()) {
    event.remedy = "do what the log says";
    event.log_line = "it cannot go on";
  }
  event.main_pid = main_pid;
  event.abandoned = task.abandoned && is_wait(task.command.kind) && kind == Event::Kind::not_ready;
  inbox_.post(std::move(event), Duration(0));
}

bool Hands::busy() const {
  return std::any_of(tasks_.begin(), tasks_.end(), [](const Task& task) { return task.live; });
}

void Hands::forget() {
  tasks_.clear();
  stopped_.clear();
  ours_.clear();
  sightings_.clear();
  falls_.clear();
  baseline_.clear();
  looked_ = false;
  last_message_ = {};
}

/// How long the unit manager takes to answer one call.
Duration Hands::bus(Task& task, bool& fails) {
  fails = false;
  Duration takes = random_.time(Duration(300'000), 5ms);
  if (strikes(Fault::dbus_never)) {
    credit(Fault::dbus_never, task);
    fails = true;
  } else if (strikes(Fault::dbus_late)) {
    credit(Fault::dbus_late, task);
    takes = random_.time(500ms, 19s);
  }
  takes = std::max(takes, last_message_ - agenda_.now);
  if (takes >= bus_timeout) fails = true;
  return fails ? bus_timeout : takes;
}

/// Sends the unit manager a job: it may arrive although nobody hears of it.
void Hands::send_job(Task& task, Tick kind, Duration takes) {
  poll_in(task, bus_timeout);
  const bool lost = takes >= bus_timeout && random_.percent(50);
  if (lost) return;
  Duration arrives = takes >= bus_timeout ? random_.time(1ms, 40s) : takes;
  arrives = std::max(arrives, last_message_ - agenda_.now);
  last_message_ = agenda_.now + arrives;
  jobs_.push_back(task.command);
  agenda_.add(arrives, kind, task.unit, static_cast<int>(jobs_.size() - 1), task.id);
}

void Hands::carry_out(const Command& command) {
  Task& task = new_task(command);
  bool fails = false;
  switch (command.kind) {
    case Kind::observe: {
      const Duration takes = bus(task, fails);
      task.replies = !fails && !strikes(Fault::observe_fails);
      return poll_in(task, takes);
    }
    case Kind::preflight: return poll_in(task, random_.time(1ms, 20ms));
    case Kind::check_memory:
    case Kind::prove_release: return poll_in(task, Duration(0));
    case Kind::prove_fall:
    case Kind::await_ready: {
      const Duration takes = bus(task, fails);  // the unit's status comes first
      task.replies = !fails;
      task.restarts = task.unit >= 0 ? host_.unit_at(task.unit).restarts : 0;
      return poll_in(task, takes);
    }
    case Kind::await_residency: return poll_in(task, 1ms);
    case Kind::start_unit: return start_unit(task);
    case Kind::stop_unit: return stop_unit(task);
    case Kind::kill_unit: {
      const Duration takes = bus(task, fails);
      task.replies = !fails;
      return poll_in(task, takes);
    }
    case Kind::load_model:
    case Kind::unload_model:
    case Kind::sleep_service:
    case Kind::wake_service: return poll_in(task, random_.time(1ms, 20ms));
    case Kind::verify: {
      const Duration takes = bus(task, fails);
      if (!fails) task.asked = host_.unit_at(task.unit).main;
      const auto* service = file(task);
      if (service && service->port != 0 && strikes(Fault::port_taken))
        host_.stranger_on(service->port, random_.time(1s, 60s));
      return poll_in(task, takes + random_.time(5ms, 500ms));
    }
    case Kind::abandon:
    case Kind::record_failure:
    case Kind::finish: task.live = false; return;
  }
}

void Hands::start_unit(Task& task) {
  const auto& spec = catalogue_.units[static_cast<std::size_t>(task.unit)];
  if (!spec.adopted && !catalogue_.gpus.empty() && !task.command.gpus.empty() && !sample(task))
    return end(task, Event::Kind::job_failed, "the GPUs that it was planned for cannot be read any more");
  bool fails = false;
  const Duration takes = bus(task, fails);
  send_job(task, Tick::job_start, takes);
}

void Hands::stop_unit(Task& task) {
  bool fails = false;
  const Duration takes = bus(task, fails);
  if (!fails) {
    std::erase_if(stopped_, [&](const auto& entry) { return entry.first == task.unit; });
    stopped_.emplace_back(task.unit, host_.pids(task.unit));
  }
  send_job(task, Tick::job_stop, takes);
}

void Hands::on_job(const Entry& entry) {
  const Command& command = jobs_[static_cast<std::size_t>(entry.b)];
  Task* task = nullptr;
  for (auto& candidate : tasks_)
    if (candidate.live && candidate.id == static_cast<unsigned>(entry.c)) task = &candidate;
  if (!task) host_.trouble(entry.a);
  if (entry.kind == Tick::job_stop) {
    host_.begin_stop(entry.a);
    if (task) {
      task->stage = 1;
      poll_in(*task, 1ms);
    }
    return;
  }
  if (!host_.can_start(entry.a)) {
    if (task) end(*task, Event::Kind::job_failed, "the unit is already active");
    return;
  }
  const bool job_fails = strikes(Fault::start_job_fails);
  if (job_fails && task) credit(Fault::start_job_fails, *task);
  host_.start(entry.a, command.gpus, job_fails);
  if (!task) return;
  if (job_fails) return end(*task, Event::Kind::job_failed, "its unit could not be started");
  task->stage = 1;
  poll_in(*task, 1ms);
}

void Hands::abandon(int step) {
  for (auto& task : tasks_)
    if (task.live && task.command.step == step) {
      task.abandoned = true;
      if (is_wait(task.command.kind)) poll_in(task, Duration(0));
    }
}

void Hands::world_changed() {
  for (auto& task : tasks_) {
    if (!task.live) continue;
    switch (task.command.kind) {
      case Kind::check_memory:
      case Kind::prove_fall:
        if (task.room || task.fall) poll_in(task, gpu_interval);
        break;
      case Kind::prove_release:
      case Kind::await_ready:
      case Kind::await_residency: poll_in(task, std::min<Duration>(10ms, 1ms + (agenda_.now - task.began) / 50)); break;
      case Kind::stop_unit:
      case Kind::sleep_service:
      case Kind::wake_service:
        if (task.stage == 1) poll_in(task, 1ms);
        break;
      default: break;
    }
  }
}

void Hands::on_poll(const Entry& entry) {
  for (std::size_t i = 0; i < tasks_.size(); ++i) {
    Task& task = tasks_[i];
    if (!task.live || task.id != static_cast<unsigned>(entry.c)) continue;
    if (task.poll_at != entry.at) return;  // it was called earlier meanwhile
    task.poll_at = TimePoint::max();
    return evaluate(task);
  }
}

void Hands::evaluate(Task& task) {
  switch (task.command.kind) {
    case Kind::observe: {
      task.live = false;
      Event event;
      event.kind = Event::Kind::observed;
      if (task.replies) {
        if (strikes(Fault::gpu_unreadable)) host_.gpus_unreadable(random_.time(100ms, 200s));
        event.snapshot = host_.look();
        ours_.clear();
        for (const auto& [pid, unit] : event.snapshot->unit_of_pid)
          ours_.push_back(pid);
        if (!std::exchange(looked_, true))
          for (const auto& gpu : event.snapshot->gpus)
            baseline_[gpu.index] = read(gpu.index).unattributed;
      } else {
        event.error = Error{ErrorCode::environment, "the unit manager does not answer", {}, {}};
      }
      return inbox_.post(std::move(event), Duration(0));
    }
    case Kind::preflight: {
      const bool ok = !strikes(Fault::preflight_fails);
      task.live = false;
      Event event;
      event.kind = ok ? Event::Kind::preflight_ok : Event::Kind::preflight_failed;
      if (!ok) event.error = Error{ErrorCode::refused, "a model file is not there", {}, {}};
      return inbox_.post(std::move(event), Duration(0));
    }
    case Kind::check_memory: return check_memory(task);
    case Kind::start_unit:
      if (task.stage == 0) return end(task, Event::Kind::job_failed, "the unit manager does not answer");
      return end(task, Event::Kind::job_done);
    case Kind::stop_unit:
      if (task.stage == 0) return end(task, Event::Kind::job_failed, "the unit manager does not answer");
      if (host_.stopping(task.unit) && agenda_.now < task.command.deadline)
        return poll_in(task, task.command.deadline - agenda_.now);
      return end(task, host_.stopping(task.unit) ? Event::Kind::job_failed : Event::Kind::job_done,
                 "the job has ended");
    case Kind::kill_unit:
      if (!task.replies) return end(task, Event::Kind::job_failed, "the unit manager does not answer");
      host_.begin_kill(task.unit);
      return end(task, Event::Kind::job_done);
    case Kind::prove_release: return prove_release(task);
    case Kind::prove_fall: return prove_fall(task);
    case Kind::load_model:
    case Kind::unload_model:
    case Kind::sleep_service:
    case Kind::wake_service: return ask_engine(task);
    case Kind::await_ready: return await_ready(task);
    case Kind::await_residency: return await_residency(task);
    case Kind::verify: return verify(task);
    case Kind::abandon:
    case Kind::record_failure:
    case Kind::finish: return;
  }
}

bool Hands::sample(Task& task) {
  if (!host_.gpus_readable()) {
    credit(Fault::gpu_unreadable, task);
    return false;
  }
  if (!strikes(Fault::gpu_unreadable)) return true;
  host_.gpus_unreadable(random_.time(100ms, 200s));
  credit(Fault::gpu_unreadable, task);
  return false;
}

MemoryReading Hands::read(int gpu) const {
  const auto g = static_cast<std::size_t>(gpu);
  MemoryReading reading;
  reading.gpu = gpu;
  if (!catalogue_.unified) {
    reading.free = host_.free(gpu);
    reading.unattributed = catalogue_.gpus[g].total - *reading.free;
  }
  for (const auto& process : host_.processes()) {
    if (!process.listed || process.held[g] == Bytes()) continue;
    if (std::find(ours_.begin(), ours_.end(), process.pid) != ours_.end())
      reading.ours.emplace_back(process.pid, catalogue_.figures ? process.held[g] : Bytes());
    if (catalogue_.figures)
      reading.unattributed -= process.held[g];
    else
      reading.every_holder_known = false;
  }
  return reading;
}

void Hands::check_memory(Task& task) {
  const auto& command = task.command;
  if (task.abandoned) return end(task, Event::Kind::not_ready);
  if (!task.room)
    task.room.emplace(command.need, command.attempt == 1 ? baseline_ : std::map<GpuIndex, Bytes>(), task.began,
                      command.deadline);
  std::vector<MemoryReading> readings;
  if (sample(task))
    for (const int gpu : command.gpus)
      readings.push_back(read(gpu));
  auto answer = task.room->on(std::move(readings), agenda_.now);
  if (answer.verdict == RoomWatch::Verdict::none)
    return end(task, Event::Kind::memory_short, std::move(answer.missing));
  // Where nothing moves, nothing else will be said before then; what does move calls world_changed().
  if (answer.verdict == RoomWatch::Verdict::wait)
    return poll_in(task, std::max<Duration>(gpu_interval, answer.until - agenda_.now));
  auto& sighting = sightings_[command.step];
  sighting.at = agenda_.now;
  for (std::size_t gpu = 0; gpu < catalogue_.gpus.size(); ++gpu)
    sighting.free[gpu] = host_.free(static_cast<int>(gpu));
  end(task, Event::Kind::memory_ok);
  for (const int gpu : command.gpus)
    if (strikes(Fault::foreign_grabs)) {
      credit(Fault::foreign_grabs, task);
      const auto all = host_.free(gpu);
      host_.foreign_takes(gpu, Bytes(all.count() / 100 * random_.between(20, 100)),
                          random_.percent(60) ? random_.time(1s, 60s) : Duration(0));
    }
}

void Hands::prove_release(Task& task) {
  if (task.pids.empty() && task.stage == 0) {
    for (const auto& [unit, pids] : stopped_)
      if (unit == task.unit) task.pids = pids;
    task.stage = 1;
    bool fails = false;
    const Duration takes = bus(task, fails);  // wait_gone asks for the cgroup; without an answer it knows what was seen
    if (takes > 10ms) return poll_in(task, takes);
  }
  std::size_t left = host_.pids(task.unit).size();
  for (const auto pid : task.pids)
    if (host_.alive(pid)) ++left;
  const bool late = agenda_.now >= task.command.deadline;
  if (left > 0) {
    if (late) return end(task, Event::Kind::survived, "processes of it will not end");
    return poll_in(task, task.command.deadline - agenda_.now);
  }
  if (catalogue_.gpus.empty()) return end(task, Event::Kind::released);
  std::string listed = sample(task) ? "" : "its release cannot be proven";
  if (listed.empty())
    for (const auto pid : task.pids)
      if (host_.listed(pid)) {
        listed = "NVML still lists a process of it";
        credit(Fault::zombie_listed, task);
      }
  if (listed.empty()) return end(task, Event::Kind::released);
  if (late) return end(task, Event::Kind::survived, listed);
  poll_in(task, task.command.deadline - agenda_.now);
}

void Hands::prove_fall(Task& task) {
  if (!task.replies) return end(task, Event::Kind::survived, "the unit manager does not answer");
  if (host_.gone(task.unit) || host_.unit_at(task.unit).auto_restart)
    return end(task, Event::Kind::not_ready, "it has ended instead");
  if (!task.fall) task.fall.emplace(task.command.ceiling, task.began, task.command.deadline);
  Result<std::map<GpuIndex, Bytes>> held;
  if (!sample(task)) held = fail(ErrorCode::environment, "the driver does not answer");
  for (const auto& [gpu, ceiling] : task.command.ceiling)
    for (const auto& process : host_.processes())
      if (held && process.unit == task.unit && process.alive && process.listed && catalogue_.figures)
        (*held)[gpu] += process.held[static_cast<std::size_t>(gpu)];
  if (held) {
    Bytes sum;
    for (const auto& [gpu, bytes] : *held)
      sum += bytes;
    const auto [fall, first] = falls_.try_emplace(task.command.step, sum, TimePoint{});
    if (sum < fall->second.first) fall->second = {sum, agenda_.now};
  }
  auto answer = task.fall->on(held, agenda_.now);
  if (answer.verdict == FallWatch::Verdict::fallen)
    return end(task, Event::Kind::released, {}, false, host_.unit_at(task.unit).main);
  if (answer.verdict == FallWatch::Verdict::stays) return end(task, Event::Kind::survived, std::move(answer.above));
  poll_in(task, std::max<Duration>(gpu_interval, answer.until - agenda_.now));
}

void Hands::explain_end(Task& task) {
  const auto* service = file(task);
  const auto& unit = host_.unit_at(task.unit);
  const bool of_model = service && service->in_router() && host_.answers(task.unit);
  const bool silent = of_model ? host_.model(task.service).silent : unit.silent;
  const bool transient = of_model ? host_.model(task.service).transient : unit.transient;
  if (silent) credit(Fault::journal_silent, task);
  if (!of_model && unit.doom) credit(*unit.doom, task);
  end(task, Event::Kind::not_ready, "it ended", transient && !silent);
}

void Hands::await_ready(Task& task) {
  if (task.abandoned) return end(task, Event::Kind::not_ready);
  if (!task.replies) return end(task, Event::Kind::not_ready, "the unit manager does not answer");
  const auto& unit = host_.unit_at(task.unit);
  const bool ended = unit.active == ActiveState::failed || unit.active == ActiveState::inactive;
  if (ended || unit.auto_restart || unit.restarts > task.restarts) return explain_end(task);
  const auto* service = file(task);
  const auto* stranger = service && service->port != 0 ? host_.port_stranger(service->port) : nullptr;
  const bool ready = stranger ? *stranger == "uvicorn" : host_.answers(task.unit);
  if (ready) {
    if (unit.lies) credit(Fault::lying_health, task);
    return end(task, Event::Kind::ready);
  }
  if (agenda_.now >= task.command.deadline) {
    if (unit.hangs) credit(Fault::never_ready, task);
    return end(task, Event::Kind::not_ready, "it did not get ready in time");
  }
  poll_in(task, task.command.deadline - agenda_.now);
}

void Hands::await_residency(Task& task) {
  if (task.abandoned) return end(task, Event::Kind::not_ready);
  const auto& service = *file(task);
  const auto target = task.command.target;
  if (!service.in_router() && service.sleep != SleepAbility::level1 && service.sleep != SleepAbility::level2)
    return end(task, Event::Kind::ready);
  const auto& unit = host_.unit_at(task.unit);
  const bool loading = target == Residency::running;
  if (!host_.answers(task.unit)) {
    const bool ended = unit.active == ActiveState::failed || unit.active == ActiveState::inactive || unit.auto_restart;
    if (ended && target == Residency::unloaded) return end(task, Event::Kind::ready);
    if (ended) return explain_end(task);
  } else {
    std::string ignored;
    const auto residency = host_.seen(task.service, ignored);
    const bool gone =
        target == Residency::unloaded && (residency == Residency::failed || residency == Residency::stopped);
    if (residency == target || (is_asleep(target) && is_asleep(residency)) || gone)
      return end(task, Event::Kind::ready);
    if (residency == Residency::starting) task.seen_on_its_way = true;
    if (loading && residency == Residency::failed) {
      if (task.seen_on_its_way || agenda_.now - task.began > 1s) {
        if (host_.model(task.service).doom) credit(*host_.model(task.service).doom, task);
        return explain_end(task);
      }
      return poll_in(task, 1s + 1ms);
    }
  }
  if (agenda_.now >= task.command.deadline) {
    if (loading && (service.in_router() ? host_.model(task.service).hangs : unit.hangs))
      credit(Fault::never_ready, task);
    return end(task, Event::Kind::not_ready, "it stays as it is");
  }
  poll_in(task, task.command.deadline - agenda_.now);
}

void Hands::verify(Task& task) {
  const auto& service = *file(task);
  const auto& unit = host_.unit_at(task.unit);
  if (service.port != 0 && host_.port_stranger(service.port)) {
    credit(Fault::port_taken, task);
    return end(task, Event::Kind::not_verified, "its port is answered by somebody else");
  }
  if (!host_.answers(task.unit)) {
    if (unit.doom) credit(*unit.doom, task);
    if (unit.hangs) credit(Fault::never_ready, task);
    return end(task, Event::Kind::not_verified, "its probe failed");
  }
  bool lies = unit.lies, wrong = unit.wrong, asleep = unit.asleep > 0;
  if (service.in_router()) {
    const auto& model = host_.model(task.service);
    if (model.doom && model.state != Model::State::loaded) credit(*model.doom, task);
    lies = lies || model.lies || model.hangs;
    wrong = wrong || model.wrong;
    asleep = model.state != Model::State::loaded;
  }
  if (lies) credit(Fault::lying_health, task);
  if (wrong) credit(Fault::wrong_model, task);
  if (lies || wrong || asleep) return end(task, Event::Kind::not_verified, "its probe failed");
  end(task, Event::Kind::verified, "hello", false, task.asked);
}

void Hands::ask_engine(Task& task) {
  const auto kind = task.command.kind;
  if (task.stage == 1) {  // sleep and wake answer when they are done
    const auto& unit = host_.unit_at(task.unit);
    const bool done = kind == Kind::sleep_service ? unit.asleep > 0 : unit.asleep == 0;
    if (unit.main == 0) return end(task, Event::Kind::job_failed, "the connection was closed");
    if (done && !unit.hangs) return end(task, Event::Kind::job_done);
    if (agenda_.now - task.began >= 120s) {
      if (unit.hangs && kind == Kind::wake_service) credit(Fault::never_ready, task);
      return end(task, Event::Kind::job_failed, "it did not answer in time");
    }
    return poll_in(task, task.began + 120s - agenda_.now);
  }
  if (!host_.answers(task.unit)) {
    if (task.stage == 0 && host_.unit_at(task.unit).main != 0) {
      task.stage = 2;
      return poll_in(task, 5s);
    }
    return end(task, Event::Kind::job_failed, "it does not answer");
  }
  if (strikes(Fault::request_fails)) {
    credit(Fault::request_fails, task);
    return end(task, Event::Kind::job_failed, "it refused the request");
  }
  switch (kind) {
    case Kind::load_model: host_.load(task.service, task.command.gpus); break;
    case Kind::unload_model: host_.unload(task.service); break;
    case Kind::sleep_service:
      if (file(task)->sleep == SleepAbility::none) break;  // its engine has no such request
      host_.sleep(task.service, task.command.target == Residency::sleeping2 ? 2 : 1);
      task.stage = 1;
      return poll_in(task, 120s);
    default:
      host_.wake(task.service);
      task.stage = 1;
      return poll_in(task, 120s);
  }
  end(task, Event::Kind::job_done);
}

}  // namespace gpumod::simulation
