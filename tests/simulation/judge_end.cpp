// What must hold when a switch has ended: the world is the goal, or what it was before, or neither could be had and the
// report says why. And when a step has: what was asked for is proven.
#include "fit/rising.h"
#include "judge.h"

namespace gpumod::simulation {

/// Of what happens to a unit the switch hears only now.
constexpr Duration news_travels = 5ms;

/// What happened to it after it was last shown to be well is not the switch's fault.
bool Judge::excused(int service, TimePoint since) const {
  const int unit = catalogue_.unit_of[static_cast<std::size_t>(service)];
  const auto seen = evidence_.find(service);
  const auto at = std::max(since, seen == evidence_.end() ? TimePoint{} : seen->second);
  if (host_.unit_at(unit).troubled + news_travels >= at) return true;
  // A server that is slow to answer is not taken for one that died: its own restart loop may be at work.
  if (host_.unit_at(unit).troubled >= began_ && !host_.unit_at(unit).ready) return true;
  // A request to sleep or wake that was given up as late may still be heard.
  if (weather_.has(Fault::clock_jump) && file(service).sleep != SleepAbility::none) return true;
  const auto port = file(service).port;
  return port != 0 && host_.port_stranger(port) != nullptr;
}

void Judge::check_wanted(const char* what, int service, Residency wanted, TimePoint since) {
  const auto truth = host_.truth(service);
  bool good = false;
  switch (wanted) {
    case Residency::running: good = truth == Residency::running; break;
    case Residency::sleeping1:
    case Residency::sleeping2: good = is_asleep(truth); break;
    default: good = !up(service); break;
  }
  if (good || excused(service, since)) return;
  complain(fmt::format("{}, but {} should be {} and is {}", what, id(service), to_string(wanted), to_string(truth)));
}

/// `since`: as long as something was at work, nobody was out of sight: what died before then was to be seen.
void Judge::check_goal_reached(TimePoint since) {
  for (const auto& [service_id, wanted] : request_.goal.wanted)
    if (const int service = catalogue_.service_named(service_id); service >= 0)
      check_wanted("committed", service, wanted, since);
  if (!request_.goal.exclusive) return;
  for (int unit = 0; unit < static_cast<int>(catalogue_.units.size()); ++unit) {
    const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
    if (spec.broken || host_.unit_at(unit).troubled >= began_) continue;
    bool wanted_here = false;
    for (const int member : spec.members) {
      const auto wanted = request_.goal.wanted.find(id(member));
      const bool wants = wanted != request_.goal.wanted.end() && wanted->second != Residency::stopped;
      wanted_here = wanted_here || wants;
      if (!wants && up(member) && !excused(member)) complain(fmt::format("committed, but {} still runs", id(member)));
    }
    const bool runs_here = std::any_of(spec.members.begin(), spec.members.end(), [&](int member) {
      const auto wanted = request_.goal.wanted.find(id(member));
      return wanted != request_.goal.wanted.end() && wanted->second == Residency::running;
    });
    if (runs_here && !spec.adopted && host_.unit_at(unit).outdated)
      complain(fmt::format("committed, but {} runs with older settings than its file's", spec.name));
    if (!wanted_here && !host_.gone(unit)) complain(fmt::format("committed, but {} is left over", spec.name));
  }
}

/// What ran before runs again: of what was touched, or of all that the given goal names.
void Judge::check_restored(const Switch& machine) {
  for (int service = 0; service < static_cast<int>(catalogue_.services.size()); ++service) {
    const int unit = catalogue_.unit_of[static_cast<std::size_t>(service)];
    Residency before = was(service);
    if (request_.previous) {
      const auto wanted = request_.previous->wanted.find(id(service));
      if (wanted == request_.previous->wanted.end()) continue;
      before = wanted->second;
    } else if (!touched_.contains(unit)) {
      continue;
    }
    if (before == Residency::stopping || before == Residency::suspended) continue;
    if (before == Residency::failed && first_) {
      const auto status = first_->units.find(catalogue_.units[static_cast<std::size_t>(unit)].name);
      if (status != first_->units.end() && !status->second.gone()) continue;  // alive, and nothing to go back to
      before = Residency::stopped;
    }
    if (before == Residency::starting) before = Residency::running;
    if (is_asleep(before)) {
      const auto truth = host_.truth(service);
      if (!is_asleep(truth) && truth != Residency::running && up(service) && !excused(service))
        complain(fmt::format("rolled back, but {} slept before and is {}", id(service), to_string(truth)));
      continue;
    }
    check_wanted("rolled back", service, before);
  }
  (void)machine;
}

/// Could this one service be started now, all by itself?
bool Judge::fits_alone(int service) const {
  if (!catalogue_.uses_gpu(service)) return true;
  if (catalogue_.gpus.empty() || catalogue_.unified || !host_.gpus_readable()) return false;
  int fitting = 0;
  for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu) {
    const auto claim = catalogue_.claim(service, gpu);
    if (!claim) return false;
    if (catalogue_.may_use(service, gpu) && *claim + request_.knowledge.settings.vram_margin <= host_.free(gpu))
      ++fitting;
  }
  return fitting >= catalogue_.spread(service);
}

/// Rolling back failed: each service that is not back must have had something in its way.
void Judge::check_unrestored(const Switch& machine) {
  const auto& problem = machine.problem();
  if (!problem || problem->message.find("could not be restored") == std::string::npos)
    complain(fmt::format("what ran before is not back, and the report does not say so: {}",
                         problem ? problem->message : ""));
  if (blind_undo_) return;
  bool stop_failed = false;
  for (const auto& line : machine.reports())
    if (line.undo && frees(line.action) && line.result == "failed") stop_failed = true;
  for (int service = 0; service < static_cast<int>(catalogue_.services.size()); ++service) {
    const int unit = catalogue_.unit_of[static_cast<std::size_t>(service)];
    Residency before = was(service);
    if (request_.previous) {
      const auto wanted = request_.previous->wanted.find(id(service));
      before = wanted == request_.previous->wanted.end() ? Residency::stopped : wanted->second;
    } else if (!touched_.contains(unit)) {
      continue;
    }
    if (before != Residency::running || host_.truth(service) == Residency::running) continue;
    if (obstacles_.contains(unit) || excused(service) || stop_failed) continue;
    // What others of ours, started by people meanwhile, are about to take is no room either.
    bool others_rise = false;
    for (int u = 0; u < static_cast<int>(catalogue_.units.size()); ++u) {
      const auto& other = host_.unit_at(u);
      others_rise = others_rise || (u != unit && other.active == ActiveState::active && !other.ready);
    }
    if (others_rise) continue;
    bool port_held = false;
    for (int other = 0; other < static_cast<int>(catalogue_.services.size()); ++other) {
      const int other_unit = catalogue_.unit_of[static_cast<std::size_t>(other)];
      port_held = port_held || (other_unit != unit && file(service).port != 0 &&
                                file(other).port == file(service).port && !host_.gone(other_unit));
    }
    if (port_held) continue;
    if (!could_be_back_.contains(service) || !fits_alone(service) || !host_.gone(unit)) continue;
    complain(fmt::format("{} ran before, nothing was in its way, and it is not back", id(service)));
  }
}

void Judge::check_blank() {
  if (!obstacles_.empty() || blind_undo_ || refused_undo_) return;
  for (int unit = 0; unit < static_cast<int>(catalogue_.units.size()); ++unit) {
    const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
    if (!spec.broken && !host_.gone(unit) && host_.unit_at(unit).troubled < began_)
      complain(fmt::format("all was to stop, and {} has not", spec.name));
  }
}

void Judge::check_refusal(const Switch& machine) {
  if (mutations_ > 0) complain("refused, and yet something was touched");
  if (!weather_.fine() || weather_.struck() > 0 || !first_) return;
  for (const auto& process : host_.processes())  // a model that was told to go may still be at it
    if (process.alive && process.model >= 0 && host_.model(process.model).state == Model::State::unloaded) return;
  // Nothing goes wrong in this world: a refusal needs a reason, and too little room is one only where it could be.
  if (catalogue_.gpus.empty() || catalogue_.unified || !catalogue_.figures || !request_.goal.exclusive) return;
  Bytes sum;
  for (const auto& [service_id, wanted] : request_.goal.wanted) {
    const int service = catalogue_.service_named(service_id);
    Bytes most;
    for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu) {
      const auto claim = catalogue_.claim(service, gpu);
      if (!claim) return;
      most = std::max(most, *claim);
    }
    if (catalogue_.spread(service) > static_cast<int>(catalogue_.gpus.size())) return;
    if (is_asleep(wanted)) return;
    for (const auto& [other_id, other_wanted] : request_.goal.wanted) {
      const auto& other = file(catalogue_.service_named(other_id));
      if (other_id != service_id && other.port == file(service).port && other.unit_name() != file(service).unit_name())
        return;  // they cannot run together
    }
    sum += most;
  }
  for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu) {
    Bytes room = host_.free(gpu);
    for (int unit = 0; unit < static_cast<int>(catalogue_.units.size()); ++unit)
      if (!catalogue_.units[static_cast<std::size_t>(unit)].broken) room += host_.held(unit, gpu);
    if (sum + request_.knowledge.settings.vram_margin > room) return;
  }
  complain(fmt::format("refused although everything fits: {}", machine.problem() ? machine.problem()->message : ""));
}

void Judge::check_reports(const Switch& machine) {
  for (const auto& line : machine.reports()) {
    if (has_ended(line) || line.result == "skipped") continue;
    if (machine.result() == SwitchResult::refused || mutations_ == 0) continue;
    complain(fmt::format("the report leaves step {} {}", line.step, line.result));
  }
  for (const auto& line : machine.reports())
    if (has_ended(line)) check_told(line);
  if (machine.result() != SwitchResult::refused) check_prediction(machine);
}

/// People read what a step went through: each failed attempt, each kill, and the cause of the last one.
void Judge::check_told(const StepReport& line) {
  const auto& own = track(line.step);
  const auto about = [&](const char* what) { complain(fmt::format("the report of step {} {}", line.step, what)); };
  if (!line.stage.empty()) about("says that it is still at it");
  if (!line.began || !line.ended || *line.ended < *line.began) about("does not say from when to when");
  if (line.attempts != own.attempt) about("does not count its attempts");
  if (static_cast<int>(line.earlier.size()) < own.attempt - 1) about("leaves out an attempt");
  const auto kills = std::count_if(line.earlier.begin(), line.earlier.end(),
                                   [](const std::string& text) { return text.find("SIGKILL") != std::string::npos; });
  if (kills < own.killed_ever) about("leaves out a kill");
  if (kills > own.killed_ever) about("tells of a kill that was not");
  if (line.result == "done" && !(line.remedy.empty() && line.log_line.empty()))
    about("has a remedy for what went well");
  if (line.result == "cancelled" && !(cancelled_ && line.note == "given up: the switch was taken back"))
    about("says that it was cancelled, and was not, or not why");
  if (line.result != "failed") return;
  if (line.note.empty()) about("does not say why it failed");
  if (line.note.find(own.clearing_failed) == std::string::npos) about("does not say what is left of it");
  if (!own.cause.empty() && line.note.find(own.cause) == std::string::npos) about("does not say what it was told");
  if (!own.cause.empty() && line.remedy != own.remedy) about("does not say what to do");
}

/// What those who are on their way up, and are not to go, will still take.
Bytes Judge::still_rising(const Plan& plan, const GpuSample& gpu) const {
  const auto& knowledge = request_.knowledge;
  std::map<std::string, std::vector<const Service*>> members;
  for (const auto& [id, service] : knowledge.services)
    members[service.unit_name()].push_back(&service);
  for (const auto& step : plan.steps)
    if (step.action == Action::stop) members.erase(step.unit);
  Bytes rising;
  for (const auto& [unit, services] : members) {
    const auto seen = first_->units.find(unit);
    if (seen != first_->units.end() && !seen->second.gone())
      rising += still_to_take(*first_, unit, services, knowledge.footprints, gpu).value_or(Bytes());
  }
  return rising;
}

/// What the plan promised of memory, worked out anew.
void Judge::check_prediction(const Switch& machine) {
  const auto& plan = machine.first_plan();
  if (!plan || !first_) return;
  for (const auto& gpu : first_->gpus) {
    const auto before = plan->free_before.find(gpu.index), after = plan->free_after.find(gpu.index);
    if (!gpu.free) continue;
    if (before == plan->free_before.end() || before->second != *gpu.free || after == plan->free_after.end())
      return complain("the plan does not tell what is free");
    Bytes expected = *gpu.free - still_rising(*plan, gpu);
    for (const auto& step : plan->steps) {
      if (step.action == Action::stop) expected += held_by_unit(*first_, step.unit, gpu).value_or(Bytes());
      if (const auto back = step.gives.find(gpu.index); back != step.gives.end() && step.action != Action::stop)
        expected += back->second;
      if (const auto claim = step.claim.find(gpu.index); claim != step.claim.end()) expected -= claim->second;
    }
    if (after->second != expected) complain(fmt::format("the plan predicts {} free", to_string(after->second)));
    check_fits(*plan, gpu);
  }
  const auto unknown = [](const Step& step) {
    return allocates(step.action) && !step.service.empty() && step.claim.empty() && !step.gpus.empty();
  };
  for (const auto& step : plan->steps) {
    if (first_->gpus.empty() || !allocates(step.action) || step.service.empty()) continue;
    const bool due = std::any_of(plan->steps.begin(), plan->steps.end(),
                                 [&](const Step& other) { return other.service == step.service && unknown(other); });
    const bool noted = std::any_of(plan->notes.begin(), plan->notes.end(), [&](const std::string& note) {
      return note.find("VRAM '" + step.service + "'") != std::string::npos;
    });
    if (due != noted)
      complain(fmt::format("the plan does not tell rightly whether it knows what {} takes", step.service));
  }
  for (const auto& step : plan->steps)
    if (step.why.empty()) complain(fmt::format("step {} of the plan does not say why", step.index));
}

/// What the plan takes on a GPU has room there in the best case: all that goes gives everything back. Who was on its way
/// up has not taken all yet.
void Judge::check_fits(const Plan& plan, const GpuSample& gpu) {
  Bytes room = *gpu.free, need;
  bool takes_any = false;
  std::set<std::string> freed, stopped;
  for (const auto& step : plan.steps) {
    if (frees(step.action)) freed.insert(step.unit);
    if (step.action == Action::stop) stopped.insert(step.unit);
    const auto claim = step.claim.find(gpu.index);
    if (claim == step.claim.end()) continue;
    need += claim->second;
    takes_any = true;
  }
  for (const auto& unit : freed) {
    const auto held = held_by_unit(*first_, unit, gpu);
    if (!held) return;
    room += *held;
  }
  for (int service = 0; service < static_cast<int>(catalogue_.services.size()); ++service) {
    const auto& unit =
        catalogue_.units[static_cast<std::size_t>(catalogue_.unit_of[static_cast<std::size_t>(service)])];
    const bool here = file(service).gpu.devices.size() == 1 && catalogue_.may_use(service, gpu.index);
    if (was(service) != Residency::starting || unit.router || !here || stopped.contains(unit.name)) continue;
    const auto claim = catalogue_.claim(service, gpu.index);
    const auto held = held_by_unit(*first_, unit.name, gpu);
    if (claim && held) need += std::max(Bytes(), *claim - *held);
  }
  if (takes_any && need + request_.knowledge.settings.vram_margin > room)
    complain(
        fmt::format("the plan takes {} on GPU {}, where there can be {}", to_string(need), gpu.index, to_string(room)));
}

/// Who was seen after its verification must be who was verified.
void Judge::check_same_processes() {
  if (!last_) return;
  for (const auto& [unit, verified] : verified_) {
    const auto seen = last_->units.find(catalogue_.units[static_cast<std::size_t>(unit)].name);
    if (seen == last_->units.end() || seen->second.main_pid == 0 || looked_ < verified.second) continue;
    const auto& members = catalogue_.units[static_cast<std::size_t>(unit)].members;
    const bool matters = std::any_of(members.begin(), members.end(), [&](int member) {
      const auto wanted = request_.goal.wanted.find(id(member));
      return wanted != request_.goal.wanted.end() &&
             (wanted->second == Residency::running || is_asleep(wanted->second));
    });
    if (matters && seen->second.main_pid != verified.first)
      complain(fmt::format("committed, and {} is not who was verified",
                           catalogue_.units[static_cast<std::size_t>(unit)].name));
  }
}

/// What an interrupted switch means, as DESIGN has it.
void Judge::recovery(const JournalRow& left, bool rebooted, const Recovery& found) {
  const auto policy = catalogue_.knowledge.settings.boot;
  auto expected = left.failure.empty() ? RecoveryDirection::forward : RecoveryDirection::back;
  if (rebooted && policy == BootPolicy::blank) expected = RecoveryDirection::blank;
  if (!left.mutated || (rebooted && policy == BootPolicy::nothing)) expected = RecoveryDirection::discard;
  if (found.direction != expected) complain("the interrupted switch is recovered in the wrong direction");
  const auto same = [](const Goal& a, const Goal& b) { return a.wanted == b.wanted && a.exclusive == b.exclusive; };
  const Goal nothing{"", {}, true};
  const auto& goal = expected == RecoveryDirection::forward ? left.goal
                     : expected == RecoveryDirection::blank ? nothing
                                                            : left.previous;
  if (!same(found.goal, goal)) complain("the interrupted switch is recovered to something else");
  if (found.sentence.empty()) complain("the recovery says nothing");
}

void Judge::end(const Switch& machine) {
  using Result = SwitchResult;
  const auto result = machine.result();
  const bool well = result == Result::committed || result == Result::unchanged;
  if (!well && (!machine.problem() || machine.problem()->message.empty())) complain("it does not say why");
  if (well && machine.problem()) complain("it went well, and yet there is a problem: " + machine.problem()->message);
  check_reports(machine);
  if (ungiven_since_ && weather_.only(Fault::disk_full) && agenda_.now - *ungiven_since_ > 30s &&
      result != Result::cancelled && result != Result::rolled_back)
    complain(fmt::format("it goes on for {} although nothing can be written",
                         format_seconds(agenda_.now - *ungiven_since_)));
  switch (result) {
    case Result::committed:
      check_goal_reached(blind_ ? TimePoint{} : last_end_);
      check_same_processes();
      break;
    case Result::unchanged:
      if (mutations_ > 0) complain("unchanged, and yet something was touched");
      check_goal_reached({});
      break;
    case Result::refused: check_refusal(machine); break;
    case Result::rolled_back: check_restored(machine); break;
    case Result::cancelled:
      if (!cancelled_) complain("nobody cancelled it");
      if (mutations_ > 0) check_restored(machine);
      break;
    case Result::failed:
      if (!undoing_) {
        if (request_.on_failure != OnFailure::stay && mutations_ > 0) complain("it failed and undid nothing");
      } else if (request_.on_failure == OnFailure::blank && !cancelled_) {
        check_blank();
      } else {
        check_unrestored(machine);
      }
      break;
    case Result::running: complain("an ended switch says that it runs"); break;
  }
  if (cancelled_ && (well || result == Result::rolled_back) && mutations_ > 0 && result != Result::cancelled)
    complain(fmt::format("it was cancelled and is {}", to_string(result)));
  const bool negative = result == Result::failed || result == Result::rolled_back || result == Result::cancelled;
  bool known = catalogue_.figures && !catalogue_.unified;
  for (const auto* service : catalogue_.services)
    known = known && (service->vram || service->vllm());
  // What one model of a router gives back is an estimate: the check before the next start may find it wrong.
  for (const auto& line : machine.reports())
    known = known && line.action != Action::unload;
  if (weather_.fine() && weather_.struck() == 0 && known && negative)
    complain(fmt::format("nothing went wrong in this world, and it is {}: {}", to_string(result),
                         machine.problem() ? machine.problem()->message : ""));
  // Nothing half-started stays: what neither ran before nor is wanted must not be there.
  for (const int unit : touched_) {
    const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
    if (spec.router || spec.members.size() != 1 || host_.gone(unit) || !started_.contains(unit)) continue;
    const int service = spec.members[0];
    const auto wanted = request_.goal.wanted.find(id(service));
    const bool wants = wanted != request_.goal.wanted.end() && wanted->second != Residency::stopped;
    const bool ran =
        was(service) != Residency::stopped || (request_.previous && request_.previous->wanted.contains(id(service)));
    if (wants || ran || obstacles_.contains(unit) || excused(service)) continue;
    complain(fmt::format("{} is left half-started", id(service)));
  }
}

/// A step is done when what was asked for is proven, and not before.
void Judge::check_step_done(const StepReport& line) {
  const auto& own = track(line.step);
  const int unit = catalogue_.unit_named(line.unit);
  const int service = line.service.empty() ? -1 : catalogue_.service_named(line.service);
  const auto last = own.last ? std::optional(own.last->kind) : std::nullopt;
  const bool router_itself = line.action == Action::start && catalogue_.units[static_cast<std::size_t>(unit)].router;
  if (service >= 0) evidence_[service] = agenda_.now;
  switch (line.action) {
    case Action::start:
    case Action::load:
    case Action::wake:
    case Action::verify:
      if (last != (router_itself ? Event::Kind::ready : Event::Kind::verified))
        complain(fmt::format("{} of {} counts as done without a proof", to_string(line.action), line.subject));
      return;
    case Action::stop:
      if (last != Event::Kind::released) complain(fmt::format("the stop of {} is not proven", line.subject));
      return;
    case Action::sleep:
    case Action::unload: {
      if (last != Event::Kind::released && last != Event::Kind::ready)
        complain(fmt::format("{} of {} is not proven", to_string(line.action), line.subject));
      Bytes held;
      for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu)
        held += host_.held(unit, gpu);
      // What could not be seen before cannot be compared: whoever starts afterwards looks for itself.
      if (line.action == Action::sleep && last_ && !last_->gpus.empty() && catalogue_.figures && !catalogue_.unified &&
          own.held_before > Bytes::mib(6400) && held > Bytes(own.held_before.count() / 2))
        complain(
            fmt::format("{} sleeps and holds {} of {}", line.subject, to_string(held), to_string(own.held_before)));
      return;
    }
  }
}

}  // namespace gpumod::simulation
