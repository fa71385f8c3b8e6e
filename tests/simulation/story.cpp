// The story of a run: how the world is found, what is ordered, what happens in between, and who brings it in order at
// the end.
#include "director.h"

namespace gpumod::simulation {

void Director::play() {
  begin_world();
  const int orders = static_cast<int>(random_.between(1, 5));
  bool clean = true;
  for (int i = 0; i < orders && judge_.violations().empty(); ++i) {
    if (i > 0) between();
    clean = carry_out(random_order()) == Ending::finished;
  }
  // Somebody comes back and has the machine brought in order: nothing new goes wrong by then.
  if (judge_.violations().empty() && (!clean || journal_.unfinished())) {
    settle(random_.time(0ms, 5s));
    weather_.calm();
    full_until_ = {};
    if (journal_.unfinished() || journal_.goal) (void)carry_out(repair_order());
  }
}

void Director::show_world() {
  if (!trace_.on()) return;
  for (std::size_t gpu = 0; gpu < catalogue_.gpus.size(); ++gpu)
    trace_.say("GPU {}: {} of {} free, margin {}{}{}", gpu, to_string(host_.free(static_cast<int>(gpu))),
               to_string(catalogue_.gpus[gpu].total), to_string(catalogue_.knowledge.settings.vram_margin),
               catalogue_.figures ? "" : ", no figures per process", catalogue_.unified ? ", unified memory" : "");
  for (std::size_t s = 0; s < catalogue_.services.size(); ++s) {
    const auto& file = *catalogue_.services[s];
    std::string claim = "unknown";
    if (!catalogue_.gpus.empty())
      if (const auto known = catalogue_.claim(static_cast<int>(s), 0)) claim = to_string(*known);
    trace_.say("service {}: {} in {} port {} claims {} gpu {} timeout {}: {}", file.id, to_string(file.engine),
               file.unit_name(), file.port, claim, file.gpu.any() ? "any" : file.gpu.devices.front(),
               format_seconds(file.startup_timeout), to_string(host_.truth(static_cast<int>(s))));
  }
  for (const auto& unit : catalogue_.units)
    if (unit.members.empty()) trace_.say("unit {}{}", unit.name, unit.broken ? " of a broken file" : ", an orphan");
  std::string faults;
  for (int f = 0; f < fault_count; ++f)
    if (weather_.has(static_cast<Fault>(f))) faults += fmt::format(" {}", to_string(static_cast<Fault>(f)));
  trace_.say("faults:{}", faults.empty() ? " none" : faults);
}

void Director::begin_world() {
  agenda_.now += 3600s;
  host_.boot(false);
  const int kind = random_.below(10);
  const auto run = [&](int unit, bool all) {
    const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
    std::vector<int> loaded;
    for (const int member : spec.members)
      if (spec.router && (all || random_.percent(50))) loaded.push_back(member);
    // What cannot be on this machine is not on it.
    for (const int member : spec.members) {
      if (spec.router && std::find(loaded.begin(), loaded.end(), member) == loaded.end()) continue;
      const auto& file = *catalogue_.services[static_cast<std::size_t>(member)];
      if (file.port != 0 && host_.port_unit(file.port) >= 0) return;
      for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu)
        if (catalogue_.uses_gpu(member) && catalogue_.need(member, gpu) > host_.free(gpu)) return;
      if (catalogue_.uses_gpu(member) && catalogue_.gpus.empty()) return;
      if (spec.router && loaded.size() > 1)
        for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu) {
          Bytes sum;
          for (const int model : loaded)
            sum += catalogue_.need(model, gpu);
          if (sum > host_.free(gpu)) return;
        }
    }
    host_.run_at_once(unit, loaded);
  };
  if (kind < 7) {  // a mode, or much of one
    const auto& mode =
        catalogue_.modes[static_cast<std::size_t>(random_.below(static_cast<int>(catalogue_.modes.size())))];
    for (const int service : mode)
      if (const int unit = catalogue_.unit_of[static_cast<std::size_t>(service)];
          host_.gone(unit) && random_.percent(90))
        run(unit, true);
  } else if (kind < 9) {  // whatever people left
    for (int unit = 0; unit < static_cast<int>(catalogue_.units.size()); ++unit)
      if (!catalogue_.units[static_cast<std::size_t>(unit)].members.empty() && random_.percent(40)) run(unit, false);
  }
  for (int unit = 0; unit < static_cast<int>(catalogue_.units.size()); ++unit)
    if (catalogue_.units[static_cast<std::size_t>(unit)].members.empty() && random_.percent(70)) run(unit, true);
  if (weather_.has(Fault::foreign_moves)) host_.begin_foreign_moves();
  show_world();
}

/// Time passes, and whatever was under way goes on.
void Director::settle(Duration time) {
  const auto until = agenda_.now + time;
  while (!agenda_.empty() && agenda_.next_at() <= until) {
    const Entry entry = agenda_.take();
    if (entry.kind == Tick::deliver)
      free_events_.push_back(entry.a);
    else
      handle(entry);
  }
  agenda_.now = std::max(agenda_.now, until);
}

void Director::between() {
  settle(random_.percent(60) ? random_.time(0ms, 3s) : random_.time(0ms, 200s));
  if (random_.percent(40)) {
    for (int unit = 0; unit < static_cast<int>(catalogue_.units.size()); ++unit)
      host_.client_wakes(unit);
    settle(10s);
  }
  if (random_.percent(15)) host_.edit_file(random_.below(static_cast<int>(catalogue_.units.size())));
  if (weather_.has(Fault::dies_later) && random_.percent(30))
    host_.crash(random_.below(static_cast<int>(catalogue_.units.size())), Fault::dies_later);
  if (weather_.has(Fault::hand) && random_.percent(40)) {
    const int unit = random_.below(static_cast<int>(catalogue_.units.size()));
    if (random_.percent(50))
      host_.hand_starts(unit);
    else
      host_.hand_stops(unit);
    if (random_.percent(50)) settle(random_.time(0ms, 20s));
  }
  if (weather_.has(Fault::foreign_grabs) && !catalogue_.gpus.empty() && random_.percent(30)) {
    const int gpu = random_.below(static_cast<int>(catalogue_.gpus.size()));
    host_.foreign_takes(gpu, Bytes(host_.free(gpu).count() / 100 * random_.between(10, 80)), random_.time(1s, 200s));
  }
}

Director::Order Director::mode_order(int mode) {
  Order order;
  order.kind = "mode switch";
  order.goal.mode = fmt::format("m{}", mode);
  for (const int service : catalogue_.modes[static_cast<std::size_t>(mode)])
    order.goal.wanted[catalogue_.services[static_cast<std::size_t>(service)]->id] = Residency::running;
  // As it is after single services were put to sleep; oftener where a model may fail to load beside a sleeper.
  if (random_.percent(weather_.has(Fault::load_fails) ? 60 : 25)) {
    order.kind = "repair";
    for (auto& [id, residency] : order.goal.wanted) {
      const auto& file = catalogue_.knowledge.services.at(id);
      if (!random_.percent(50)) continue;
      if (file.in_router())
        residency = Residency::unloaded;
      else if (file.sleep == SleepAbility::level1 || file.sleep == SleepAbility::level2)
        residency = file.sleep == SleepAbility::level1 ? Residency::sleeping1 : Residency::sleeping2;
      else if (random_.percent(4))
        residency = Residency::sleeping1;  // whose file has changed since: it is to be refused
    }
  }
  order.goal_after = order.goal;
  const int policy = random_.below(10);
  order.on_failure = policy < 7 ? OnFailure::rollback : policy < 9 ? OnFailure::stay : OnFailure::blank;
  return order;
}

/// As the verb does it.
Director::Order Director::repair_order() {
  Order order;
  order.kind = "repair";
  if (const auto* left = journal_.unfinished()) {
    const Recovery recovery = recovery_of(*left);
    if (recovery.direction == RecoveryDirection::forward || recovery.direction == RecoveryDirection::blank)
      order.goal_after = recovery.goal.exclusive ? recovery.goal : merged_goal(journal_.goal, recovery.goal);
    else if (!journal_.goal)
      order.goal_after = merged_goal(std::nullopt, recovery.goal);
  }
  order.goal = order.goal_after ? *order.goal_after : journal_.goal.value_or(Goal());
  order.goal.exclusive = true;
  return order;
}

Director::Order Director::random_order() {
  const int kind = random_.below(100);
  if (kind < 50 || catalogue_.services.empty())
    return mode_order(random_.below(static_cast<int>(catalogue_.modes.size())));
  if (kind < 74 && (journal_.goal || journal_.unfinished())) return repair_order();
  int service = random_.below(static_cast<int>(catalogue_.services.size()));
  for (int tries = 0; tries < 3 && catalogue_.services[static_cast<std::size_t>(service)]->sleep == SleepAbility::none;
       ++tries)
    service = random_.below(static_cast<int>(catalogue_.services.size()));
  const auto& file = *catalogue_.services[static_cast<std::size_t>(service)];
  Order order;
  order.goal.exclusive = false;
  order.merges = true;
  Residency target = Residency::running;
  switch (random_.below(6)) {
    case 0: order.kind = "service stop", target = Residency::stopped; break;
    case 1:
      order.kind = "service restart";
      order.distrusted.insert(file.unit_name());
      break;
    case 2:
    case 3:
      if (file.sleep == SleepAbility::none) {
        order.kind = "service start";
        break;
      }
      order.kind = "service sleep";
      target = file.in_router()                     ? Residency::unloaded
               : file.sleep == SleepAbility::level2 ? Residency::sleeping2
                                                    : Residency::sleeping1;
      break;
    default: order.kind = "service start"; break;
  }
  order.goal.wanted[file.id] = target;
  return order;
}

void Director::handle(const Entry& entry) {
  const bool ours = static_cast<unsigned>(entry.b) == epoch_ && switch_ != nullptr;
  switch (entry.kind) {
    case Tick::job_start:
    case Tick::job_stop: return hands_.on_job(entry);
    case Tick::poll: return hands_.on_poll(entry);
    case Tick::hand: saw(Fault::hand); return entry.b == 0 ? host_.hand_stops(entry.a) : host_.hand_starts(entry.a);
    case Tick::cancel:
      if (!ours) return;
      saw(Fault::cancel);
      {
        Event event;
        event.kind = Event::Kind::cancel_requested;
        event.step = -1;
        return post(std::move(event), Duration(0));
      }
    case Tick::second_writer:
      if (!ours) return;
      saw(Fault::second_writer);
      if (!locked_) judge_.complain("a second writer got in");
      return agenda_.add(random_.time(1s, 60s), Tick::second_writer, 0, static_cast<int>(epoch_));
    case Tick::stray:
      if (!ours) return;
      stray();
      return agenda_.add(random_.percent(70) ? random_.time(0ms, 200ms) : random_.time(0ms, 10s), Tick::stray, 0,
                         static_cast<int>(epoch_));
    case Tick::jump:
      if (!ours) return;
      saw(Fault::clock_jump);
      trace_.say("  world: the machine stands still for a while");
      return agenda_.jump(random_.percent(50) ? random_.time(1s, 100s) : random_.time(100s, 10800s));
    case Tick::deliver: return;
    default: return host_.on(entry);
  }
}

/// An event that nobody waits for must change nothing: not a command, not a report.
void Director::stray() {
  const auto& reports = switch_->reports();
  Event event;
  const bool stale = weather_.has(Fault::stale_event) && (!weather_.has(Fault::stray_event) || random_.percent(50));
  if (stale) {
    std::vector<const Event*> candidates;
    for (const auto& old : past_)
      if (static_cast<std::size_t>(old.step) < reports.size() &&
          old.attempt < reports[static_cast<std::size_t>(old.step)].attempts)
        candidates.push_back(&old);
    if (candidates.empty()) return;
    event = *candidates[static_cast<std::size_t>(random_.below(static_cast<int>(candidates.size())))];
  } else {
    event.kind = static_cast<Event::Kind>(random_.below(event_count - 1));  // a cancel is never stray
    const bool of_step = event.kind != Event::Kind::observed && event.kind != Event::Kind::preflight_ok &&
                         event.kind != Event::Kind::preflight_failed;
    if (of_step) {
      if (reports.empty()) return;
      event.step = random_.below(static_cast<int>(reports.size()) + 1);
      if (random_.percent(2)) event.step = -7;
      if (event.step >= 0 && static_cast<std::size_t>(event.step) < reports.size())
        event.attempt = std::max(1, reports[static_cast<std::size_t>(event.step)].attempts);
      const auto step = static_cast<std::size_t>(event.step);
      if (event.step >= 0 && step < expected_.size() && expected_[step]) {
        // What somebody does wait for would not be stray.
        static const std::set<Event::Kind> changed{Event::Kind::job_done, Event::Kind::job_failed,
                                                   Event::Kind::not_journaled};
        static const std::map<Command::Kind, std::set<Event::Kind>> answers{
            {Command::Kind::check_memory, {Event::Kind::memory_ok, Event::Kind::memory_short, Event::Kind::not_ready}},
            {Command::Kind::start_unit, changed},
            {Command::Kind::stop_unit, changed},
            {Command::Kind::kill_unit, changed},
            {Command::Kind::load_model, changed},
            {Command::Kind::unload_model, changed},
            {Command::Kind::sleep_service, changed},
            {Command::Kind::wake_service, changed},
            {Command::Kind::prove_release, {Event::Kind::released, Event::Kind::survived}},
            {Command::Kind::prove_fall, {Event::Kind::released, Event::Kind::survived, Event::Kind::not_ready}},
            {Command::Kind::await_ready, {Event::Kind::ready, Event::Kind::not_ready}},
            {Command::Kind::await_residency, {Event::Kind::ready, Event::Kind::not_ready}},
            {Command::Kind::verify, {Event::Kind::verified, Event::Kind::not_verified}}};
        const auto own = answers.find(expected_[step]->kind);
        if (own != answers.end() && own->second.contains(event.kind)) return;
      }
    } else if ((event.kind == Event::Kind::observed && observing_) ||
               (event.kind != Event::Kind::observed && preflighting_)) {
      return;
    }
  }
  saw(stale ? Fault::stale_event : Fault::stray_event);
  trace_.say("→ stray: {} step {} attempt {}", to_string(event.kind), event.step, event.attempt);
  if (event.step >= 0)
    if (const auto stage = switch_->stage_of(event.step))
      ++coverage_.stages[static_cast<std::size_t>(*stage)]
                        [stale ? static_cast<std::size_t>(event_count) : static_cast<std::size_t>(event.kind)];
  if (event.step < 0 && event.step != -7) {
    PhaseEvent what = PhaseEvent::not_observed;
    if (event.kind == Event::Kind::preflight_ok) what = PhaseEvent::preflight_ok;
    if (event.kind == Event::Kind::preflight_failed) what = PhaseEvent::preflight_failed;
    if (event.kind == Event::Kind::observed && random_.percent(50)) {
      what = PhaseEvent::observed;
      event.snapshot = host_.look();
    }
    ++coverage_.phases[static_cast<std::size_t>(phase())][static_cast<std::size_t>(what)];
  }
  std::vector<std::pair<std::string, std::string>> before;
  for (const auto& line : reports)
    before.emplace_back(line.result, line.stage);
  const auto commands = switch_->on(event, agenda_.now);
  bool same = commands.empty() && !switch_->finished() && before.size() == switch_->reports().size();
  for (std::size_t i = 0; same && i < before.size(); ++i)
    same = before[i] == std::pair(switch_->reports()[i].result, switch_->reports()[i].stage);
  if (!same) judge_.complain(fmt::format("a stray {} was taken for an answer", to_string(event.kind)));
}

/// Everything is gone but the disk; some units start by themselves.
void Director::power_returns() {
  agenda_.drop([](const Entry& entry) { return entry.kind != Tick::foreign_moves && entry.kind != Tick::deliver; });
  agenda_.drop([&](const Entry& entry) {
    if (entry.kind == Tick::deliver) free_events_.push_back(entry.a);
    return entry.kind == Tick::deliver;
  });
  agenda_.now += random_.time(20s, 300s);
  ++boot_;
  host_.boot(true);
  trace_.say("── the power is back");
}

}  // namespace gpumod::simulation
