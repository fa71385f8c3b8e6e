#include "judge.h"

namespace gpumod::simulation {

namespace {

using Kind = Command::Kind;

bool takes(Kind kind) {
  return kind == Kind::start_unit || kind == Kind::load_model || kind == Kind::wake_service;
}
bool gives(Kind kind) {
  return kind == Kind::stop_unit || kind == Kind::unload_model || kind == Kind::sleep_service;
}

}  // namespace

Judge::Judge(const Catalogue& catalogue, const Weather& weather, const Agenda& agenda, const Host& host,
             const Hands& hands, const Journal& journal, Trace& trace)
    : catalogue_(catalogue),
      weather_(weather),
      agenda_(agenda),
      host_(host),
      hands_(hands),
      journal_(journal),
      trace_(trace) {}

void Judge::complain(std::string what) {
  trace_.say("!! {}", what);
  violations_.push_back(std::move(what));
}

Judge::StepTrack& Judge::track(int step) {
  if (steps_.size() <= static_cast<std::size_t>(step)) steps_.resize(static_cast<std::size_t>(step) + 1);
  return steps_[static_cast<std::size_t>(step)];
}

void Judge::begin(const SwitchRequest& request, std::int64_t id) {
  request_ = request;
  id_ = id;
  began_ = agenda_.now;
  undoing_ = cancelled_ = failed_ = refused_undo_ = blind_undo_ = fits_beside_ = gives_up_ = false;
  round_ = mutations_ = 0;
  struck_before_ = weather_.struck();
  ungiven_since_.reset();
  touched_.clear();
  started_.clear();
  obstacles_.clear();
  preflighted_.clear();
  first_.reset();
  last_.reset();
  last_end_ = {};
  verified_.clear();
  told_gpus_.clear();
  amiss_.clear();
  round_base_ = 0;
  evidence_.clear();
  steps_.clear();
  allocating_.clear();
  freeing_.clear();
}

/// Whether anything of a service is there.
bool Judge::up(int service) const {
  const int unit = catalogue_.unit_of[static_cast<std::size_t>(service)];
  if (host_.gone(unit)) return false;
  if (!file(service).in_router()) return true;
  const auto& model = host_.model(service);
  return model.child != 0 && host_.alive(model.child) && model.state != Model::State::unloaded;
}

Residency Judge::was(int service) const {
  if (!first_) return Residency::stopped;
  const auto view = first_->services.find(id(service));
  return view == first_->services.end() ? Residency::stopped : view->second.residency;
}

// --- before a command ---------------------------------------------------------------------------------------------

void Judge::command(const Command& command, const Switch& machine) {
  if (command.kind == Kind::observe) {
    ++round_;
    failed_ = false;
    round_base_ = static_cast<int>(machine.reports().size());
    return;
  }
  if (command.kind == Kind::preflight) {
    preflighted_ = {command.services.begin(), command.services.end()};
    return;
  }
  if (command.kind == Kind::record_failure) {
    ++mutations_;
    if (undoing_) complain("the failure is recorded twice");
    if (command.text.empty()) complain("a failure without a reason is recorded");
    undoing_ = request_.on_failure != OnFailure::stay || cancelled_;
    return;
  }
  if (command.kind == Kind::abandon) track(command.step).waits = false;
  if (command.kind == Kind::finish || command.kind == Kind::abandon) return;

  const int unit = catalogue_.unit_named(command.unit);
  const int service = command.service.empty() ? -1 : catalogue_.service_named(command.service);
  if (unit < 0 || catalogue_.units[static_cast<std::size_t>(unit)].broken)
    return complain(fmt::format("{} touches {}, which is not ours to touch", to_string(command.kind), command.unit));
  if (service >= 0 && catalogue_.unit_of[static_cast<std::size_t>(service)] != unit)
    complain(fmt::format("{} of {} is sent to {}", to_string(command.kind), command.service, command.unit));
  auto& own = track(command.step);
  if (own.ungiven) complain(fmt::format("step {} goes on although its command was never given", command.step));
  if (!own.begun) {
    own.begun = true;
    if (!undoing_ && failed_) complain(fmt::format("step {} begins although another has failed", command.step));
    if (!undoing_ && cancelled_) complain(fmt::format("step {} begins although it was cancelled", command.step));
    for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu)
      own.held_before += host_.held(unit, gpu);
  }
  if (command.attempt > own.attempt) {
    own.attempt = command.attempt;
    own.clearing = false;
    if (!own.passing_cause) complain(fmt::format("{} is tried again for a lasting cause", command.unit));
  }
  if (clears(command, machine) && (gives(command.kind) || command.kind == Kind::kill_unit)) own.clearing = true;
  own.deadline = command.deadline;
  const auto& stage = machine.reports()[static_cast<std::size_t>(command.step)].stage;
  const auto action = machine.reports()[static_cast<std::size_t>(command.step)].action;
  if (command.kind == Kind::await_residency && !own.clearing && frees(action) &&
      stage != (action == Action::unload ? "unloading" : "falling asleep"))
    complain(fmt::format("step {} is told to be {}", command.step, stage));
  // What a working vLLM keeps in its sleep must not be held against it.
  for (const auto& [gpu, most] : command.ceiling)
    if (action == Action::sleep && most < Bytes::mib(1536))
      complain(fmt::format("{} may hold only {} on GPU {} in its sleep", command.unit, to_string(most), gpu));
  check_deadline(command, service);
  own.waits =
      command.kind == Kind::check_memory || command.kind == Kind::await_ready || command.kind == Kind::await_residency;
  if (command.kind == Kind::check_memory) {
    own.memory_ok = false;
    own.waits_for_memory = agenda_.now;
    told_gpus_[command.step] = command.gpus;
    std::erase_if(allocating_, [&](const Window& window) { return window.step == command.step; });
    return;
  }
  if (!command.mutates()) return;

  ++mutations_;
  const auto* row = journal_.row(id_);
  const bool written =
      row && row->mutated && std::any_of(row->commands.begin(), row->commands.end(), [&](const JournalRow::Line& line) {
        return line.kind == command.kind && line.step == command.step && line.attempt == command.attempt;
      });
  if (!written) complain(fmt::format("{} is not in the journal", to_string(command.kind)));
  if (undoing_ && row && row->failure.empty()) complain("something is undone before the failure is in the journal");

  const auto& members = catalogue_.units[static_cast<std::size_t>(unit)].members;
  const auto wanted_of = [&](const Goal& goal) {
    return std::any_of(members.begin(), members.end(), [&](int member) { return goal.wanted.contains(id(member)); });
  };
  const bool may_touch = request_.goal.exclusive || wanted_of(request_.goal) ||
                         (undoing_ && ((request_.previous && wanted_of(*request_.previous)) ||
                                       (request_.on_failure == OnFailure::blank && !cancelled_)));
  if (!may_touch) complain(fmt::format("{} touches {}, which nobody mentioned", to_string(command.kind), command.unit));
  if (undoing_ && !request_.previous && (request_.on_failure != OnFailure::blank || cancelled_) &&
      !touched_.contains(unit))
    complain(fmt::format("{} is undone, which was never touched", command.unit));
  touched_.insert(unit);

  if (command.kind == Kind::kill_unit && (!own.last || own.last->kind != Event::Kind::survived))
    complain(fmt::format("{} is killed although nothing survived", command.unit));
  const auto& told = machine.reports()[static_cast<std::size_t>(command.step)];
  if (told.service != command.service || told.unit != command.unit || !told.began || *told.began > agenda_.now)
    complain(fmt::format("the report of step {} does not tell what is done", command.step));
  if (command.kind == Kind::stop_unit) own.killed_in = 0;
  if (command.kind == Kind::kill_unit && own.killed_in == command.attempt) complain("it is killed again and again");
  if (command.kind == Kind::kill_unit) {
    own.killed_in = command.attempt;
    ++own.killed_ever;
  }
  if (command.kind == Kind::start_unit) check_port(unit);
  if (command.kind == Kind::start_unit) amiss_.erase(unit);
  if (command.kind == Kind::stop_unit && !undoing_ && told.action == Action::stop) check_needless_stop(unit);
  if (takes(command.kind)) started_.insert(unit);
  if (takes(command.kind)) check_allocation(command, unit, service);
  const bool router_itself =
      command.kind == Kind::start_unit && catalogue_.units[static_cast<std::size_t>(unit)].router;
  if (takes(command.kind) && !router_itself) check_unreleased(command, machine);
  check_windows(command, unit, service, machine);

  if (gives(command.kind) && round_ == 1 && !undoing_ && fits_beside_)
    for (const auto& line : machine.reports())
      if (!(command.kind == Kind::sleep_service && was(service) != Residency::running) && !clears(command, machine) &&
          allocates(line.action) && line.result != "done" && line.step != command.step)
        complain(fmt::format("{} comes before the start of {}, although both fit beside each other",
                             to_string(command.kind), line.subject));
  const bool outdated = request_.goal.exclusive && first_ && first_->outdated.contains(command.unit) &&
                        !catalogue_.units[static_cast<std::size_t>(unit)].adopted;
  if (weather_.fine() && command.kind == Kind::stop_unit && !undoing_ && !outdated &&
      request_.knowledge.distrusted.empty())
    for (const int member : members) {
      const auto wanted = request_.goal.wanted.find(id(member));
      const bool wants = wanted != request_.goal.wanted.end() && wanted->second == Residency::running;
      if (wants && was(member) == Residency::running)
        complain(fmt::format("{} is stopped, although it runs and is wanted", id(member)));
    }
}

bool Judge::clears(const Command& command, const Switch& machine) const {
  return !frees(machine.reports()[static_cast<std::size_t>(command.step)].action);
}

/// The journal could not take it: it is not carried out, and its step is over.
void Judge::unwritten(const Command& command, const Switch& machine) {
  if (!ungiven_since_) ungiven_since_ = agenda_.now;
  if (command.step < 0) return;
  auto& own = track(command.step);
  own.begun = own.ungiven = true;
  if (command.attempt > own.attempt) {
    own.attempt = command.attempt;
    own.clearing = false;
  }
  if (gives(command.kind) || command.kind == Kind::kill_unit) track(command.step).clearing = true;
  if (command.kind == Kind::stop_unit) track(command.step).killed_in = 0;
  if (undoing_ || clears(command, machine)) obstacles_.insert(catalogue_.unit_named(command.unit));
}

void Judge::check_allocation(const Command& command, int unit, int service) {
  const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
  auto& own = track(command.step);
  const bool router_itself = command.kind == Kind::start_unit && spec.router;
  if (command.kind != Kind::wake_service && round_ == 1 && !undoing_) {
    const bool asked = service >= 0 ? preflighted_.contains(command.service)
                                    : std::any_of(spec.members.begin(), spec.members.end(),
                                                  [&](int member) { return preflighted_.contains(id(member)); });
    if (!asked) complain(fmt::format("{} of {} was not asked about before", to_string(command.kind), command.unit));
  }
  if (command.attempt > 3) complain("a fourth attempt");
  if (command.attempt > 1 && own.result != "running") complain("a step that is over is tried again");

  if (router_itself) {
    if (spec.adopted) return;
    std::set<int> declared;
    for (const int member : spec.members)
      if (!file(member).gpu.any())
        for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu)
          if (catalogue_.may_use(member, gpu)) declared.insert(gpu);
    if (!declared.empty() && std::set<int>(command.gpus.begin(), command.gpus.end()) != declared)
      complain(fmt::format("{} starts without being bound to the GPUs of its models", command.unit));
    return;
  }
  if (service < 0 || !catalogue_.uses_gpu(service) || catalogue_.gpus.empty()) return;
  // What takes nobody knows how much, perhaps nothing, may start where no GPU can be read.
  if (last_ && last_->gpus.empty() && !catalogue_.claim(service, 0)) return;
  if (static_cast<int>(command.gpus.size()) != catalogue_.spread(service) && command.kind == Kind::start_unit)
    complain(fmt::format("{} is started on {} GPUs", command.service, command.gpus.size()));
  for (const int gpu : command.gpus)
    if (!catalogue_.may_use(service, gpu)) complain(fmt::format("{} may not use GPU {}", command.service, gpu));
  if (!own.memory_ok || own.memory_attempt != command.attempt)
    return complain(fmt::format("{} of {} without a look at the memory", to_string(command.kind), command.service));
  const auto* sighting = hands_.sighting(command.step);
  if (!sighting || agenda_.now - sighting->at > 1s) complain("the memory was looked at long ago");
  for (const int gpu : command.gpus) {
    const auto claim = catalogue_.claim(service, gpu);
    if (!sighting || !claim || catalogue_.unified) continue;
    Bytes needed = *claim;
    if (command.kind == Kind::wake_service) {
      if (host_.gone(unit)) continue;  // a sleeper that has ended meanwhile takes nothing by being told to wake
      needed -= std::min(needed, host_.held(unit, gpu));
    }
    if (needed + request_.knowledge.settings.vram_margin > sighting->free[static_cast<std::size_t>(gpu)])
      complain(fmt::format("{} of {} claims {} on GPU {}, where {} were free", to_string(command.kind), command.service,
                           to_string(needed), gpu, to_string(sighting->free[static_cast<std::size_t>(gpu)])));
  }
}

/// Nobody is started whose port is held: by a stranger that was seen there, or by one of ours that has not gone yet.
void Judge::check_port(int unit) {
  const auto& members = catalogue_.units[static_cast<std::size_t>(unit)].members;
  if (members.empty() || file(members[0]).port == 0 || !last_) return;
  const auto port = file(members[0]).port;
  for (const auto& holder : last_->ports)
    if (holder.port == port && holder.unit.empty())
      complain(fmt::format("{} is started although a stranger holds its port", id(members[0])));
  const int other = host_.port_unit(port);
  if (other >= 0 && other != unit && host_.unit_at(other).troubled < looked_)
    complain(fmt::format("{} is started although {} holds its port", id(members[0]),
                         catalogue_.units[static_cast<std::size_t>(other)].name));
}

/// Who was verified in this switch, and has been well since, stays.
void Judge::check_needless_stop(int unit) {
  const auto verified = verified_.find(unit);
  if (verified == verified_.end() || !last_ || amiss_.contains(unit)) return;
  const auto& spec = catalogue_.units[static_cast<std::size_t>(unit)];
  const auto seen = last_->units.find(spec.name);
  if (looked_ < verified->second.second || seen == last_->units.end() ||
      seen->second.main_pid != verified->second.first || seen->second.active != ActiveState::active)
    return;
  for (const int member : spec.members) {
    const auto wanted = request_.goal.wanted.find(id(member));
    const auto view = last_->services.find(id(member));
    if (wanted == request_.goal.wanted.end() || wanted->second != Residency::running) continue;
    if (view == last_->services.end() || view->second.residency != Residency::running) return;
  }
  const bool wanted_here = std::any_of(spec.members.begin(), spec.members.end(), [&](int member) {
    const auto wanted = request_.goal.wanted.find(id(member));
    return wanted != request_.goal.wanted.end() && wanted->second == Residency::running;
  });
  if (wanted_here) complain(fmt::format("{} is stopped although it was verified and is well", spec.name));
}

/// Nobody takes memory on a GPU where a release of this round was to come first and is not proven.
void Judge::check_unreleased(const Command& command, const Switch& machine) {
  for (std::size_t i = static_cast<std::size_t>(round_base_); i < machine.reports().size(); ++i) {
    const auto& line = machine.reports()[i];
    const bool unproven = line.action == Action::stop || line.action == Action::unload
                              ? line.result == "failed" || line.result == "skipped"
                              : line.action == Action::sleep && line.result == "failed";
    if (!unproven || line.unit == command.unit) continue;
    const int unit = catalogue_.unit_named(line.unit);
    for (const int gpu : command.gpus)
      if (host_.held(unit, gpu) > Bytes() && host_.unit_at(unit).troubled < began_)
        complain(fmt::format("{} of {} although the release of {} is not proven", to_string(command.kind), command.unit,
                             line.subject));
  }
}

/// Held on a GPU by processes that NVML does not list any more.
Bytes Judge::nobodys(int gpu) const {
  Bytes sum;
  for (const auto& process : host_.processes())
    if (!process.listed) sum += process.held[static_cast<std::size_t>(gpu)];
  return sum;
}

/// At most one allocating step a GPU, and none beside a freeing one.
void Judge::check_windows(const Command& command, int unit, int service, const Switch&) {
  std::set<int> gpus;
  if (takes(command.kind)) {
    if (service < 0 || !catalogue_.uses_gpu(service)) return;
    if (last_ && last_->gpus.empty() && !catalogue_.claim(service, 0)) return;  // perhaps it takes nothing
    if (command.kind == Kind::start_unit && file(service).in_router()) return;
    gpus = {command.gpus.begin(), command.gpus.end()};
    if (catalogue_.units[static_cast<std::size_t>(unit)].adopted)
      for (const int gpu : catalogue_.home(unit))
        gpus.insert(gpu);
  } else {
    for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu) {
      const bool of_model = command.kind == Kind::unload_model && service >= 0;
      const auto held = of_model ? host_.held_by_pid(host_.model(service).child, gpu) : host_.held(unit, gpu);
      if (held > Bytes()) gpus.insert(gpu);
    }
  }
  if (!takes(command.kind) && host_.unit_at(unit).troubled >= began_) return;  // others are at it as well
  const auto meets = [&](const Window& window) {
    return window.step != command.step &&
           std::any_of(gpus.begin(), gpus.end(), [&](int gpu) { return window.gpus.contains(gpu); });
  };
  for (const auto& window : allocating_)
    if (meets(window))
      complain(fmt::format("{} of {} while step {} allocates on its GPU", to_string(command.kind), command.unit,
                           window.step));
  if (takes(command.kind)) {
    for (const auto& window : freeing_)
      if (meets(window))
        complain(fmt::format("{} of {} while step {} frees memory on its GPU", to_string(command.kind), command.unit,
                             window.step));
    // Somebody of ours who is still on the way up counts as much.
    for (std::size_t u = 0; u < catalogue_.units.size(); ++u) {
      const auto& other = host_.unit_at(static_cast<int>(u));
      const auto& spec = catalogue_.units[u];
      if (static_cast<int>(u) == unit || spec.members.size() != 1 || spec.router || other.hangs) continue;
      if (undoing_ || !request_.goal.wanted.contains(id(spec.members[0]))) continue;  // not the switch's business
      if (other.active != ActiveState::active || other.ready || !catalogue_.uses_gpu(spec.members[0])) continue;
      if (!last_ || other.troubled >= looked_) continue;  // it came after the last look
      const auto view = last_->services.find(id(spec.members[0]));
      if (view == last_->services.end() || view->second.residency != Residency::starting) continue;
      for (const int gpu : other.gpus)
        if (gpus.contains(gpu))
          complain(fmt::format("{} of {} while {} is starting on GPU {}", to_string(command.kind), command.unit,
                               id(spec.members[0]), gpu));
    }
    allocating_.push_back({command.step, unit, gpus});
  } else if (gives(command.kind)) {
    const bool clears = std::any_of(allocating_.begin(), allocating_.end(),
                                    [&](const Window& window) { return window.step == command.step; });
    if (!clears) freeing_.push_back({command.step, unit, gpus});
  }
}

void Judge::check_deadline(const Command& command, int service) {
  if (command.kind == Kind::kill_unit) return;
  const auto left = command.deadline - agenda_.now;
  if (command.deadline == TimePoint::max() || left <= Duration(0) || left > 7200s)
    return complain(fmt::format("{} has no sensible deadline", to_string(command.kind)));
  const auto& settings = request_.knowledge.settings;
  if ((command.kind == Kind::check_memory || command.kind == Kind::prove_fall) && left != settings.release_timeout)
    complain(fmt::format("{} waits {}", to_string(command.kind), format_seconds(left)));
  if (command.kind == Kind::prove_release && left != settings.release_timeout &&
      (track(command.step).last && track(command.step).last->kind == Event::Kind::survived))
    complain("the last proof of a release does not wait as long as the settings say");
  const bool first_proof = command.kind == Kind::prove_release &&
                           (!track(command.step).last || track(command.step).last->kind != Event::Kind::job_done ||
                            track(command.step).killed_in != command.attempt);
  if (first_proof && left != 10s && left != settings.release_timeout)
    complain(fmt::format("a release gets {} before it is helped along", format_seconds(left)));
  const bool to_sleep = command.kind == Kind::await_residency && is_asleep(command.target);
  if ((to_sleep || command.kind == Kind::verify) && left != 120s)
    complain(fmt::format("{} gets {} for {}", command.unit, format_seconds(left), to_string(command.kind)));
  if (command.kind == Kind::await_residency && command.target == Residency::unloaded && left != 30s)
    complain(fmt::format("{} gets {} to unload", command.service, format_seconds(left)));
  if (command.kind == Kind::await_ready && service < 0) {
    Duration longest = 60s;
    for (const int member : catalogue_.units[static_cast<std::size_t>(catalogue_.unit_named(command.unit))].members)
      longest = std::max(longest, file(member).startup_timeout);
    if (left != longest) complain(fmt::format("{} gets {} to get ready", command.unit, format_seconds(left)));
  }
  if (command.kind == Kind::await_ready && service >= 0 && left != file(service).startup_timeout)
    complain(fmt::format("{} gets {} to get ready", command.service, format_seconds(left)));
  if (command.kind == Kind::await_residency && command.target == Residency::running && service >= 0 &&
      left != file(service).startup_timeout)
    complain(fmt::format("{} gets {} to load", command.service, format_seconds(left)));
}

// --- events -------------------------------------------------------------------------------------------------------

void Judge::event(const Event& event, const Switch& machine) {
  if (event.kind == Event::Kind::cancel_requested) {
    if (!undoing_) cancelled_ = gives_up_ = true;
    return;
  }
  if (event.kind == Event::Kind::observed) {
    if (!event.snapshot) {
      if (undoing_) blind_undo_ = true;
      blind_ = true;
      return;
    }
    could_be_back_.clear();
    for (int s = 0; undoing_ && s < static_cast<int>(catalogue_.services.size()); ++s)
      if (fits_alone(s) && host_.gone(catalogue_.unit_of[static_cast<std::size_t>(s)])) could_be_back_.insert(s);
    std::erase_if(could_be_back_, [&](int s) { return host_.port_stranger(file(s).port) != nullptr; });
    blind_ = false;
    last_ = event.snapshot;
    looked_ = agenda_.now;
    for (int s = 0; s < static_cast<int>(catalogue_.services.size()); ++s)
      evidence_[s] = agenda_.now;
    if (first_) return;
    first_ = event.snapshot;
    memory_at_first_ = host_.memory_version();
    for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu)
      nobodys_at_first_[static_cast<std::size_t>(gpu)] = nobodys(gpu);
    // Does all that is to come fit beside all that is there, on whatever GPU it ends up?
    Bytes sum;
    bool known = !catalogue_.gpus.empty() && !catalogue_.unified && host_.gpus_readable(), any = false;
    for (const auto& [service_id, residency] : request_.goal.wanted) {
      const int service = catalogue_.service_named(service_id);
      const auto seen = was(service);
      if (is_asleep(residency) && !is_asleep(seen)) known = false;
      if (residency != Residency::running || seen == Residency::running) continue;
      any = true;
      const int unit = catalogue_.unit_of[static_cast<std::size_t>(service)];
      if (!host_.gone(unit) || catalogue_.services[static_cast<std::size_t>(service)]->in_router()) known = false;
      Bytes most;
      for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu) {
        const auto claim = catalogue_.claim(service, gpu);
        if (!claim) known = false;
        most = std::max(most, claim.value_or(Bytes()));
      }
      sum += most;
      for (int other = 0; other < static_cast<int>(catalogue_.services.size()); ++other)
        if (other != service && file(other).port == file(service).port) known = false;
    }
    for (const auto& [unit_name, status] : first_->units)
      if (status.active == ActiveState::deactivating || request_.knowledge.distrusted.contains(unit_name) ||
          (request_.goal.exclusive && first_->outdated.contains(unit_name)))
        known = false;
    for (const auto& view : first_->services)
      if (view.second.residency == Residency::starting || view.second.residency == Residency::failed) known = false;
    fits_beside_ = known && any;
    for (int gpu = 0; gpu < static_cast<int>(catalogue_.gpus.size()); ++gpu)
      fits_beside_ = fits_beside_ && sum + request_.knowledge.settings.vram_margin <= host_.free(gpu);
    return;
  }
  if (event.step < 0) return;
  if (event.kind == Event::Kind::not_journaled && !undoing_) gives_up_ = true;
  auto& own = track(event.step);
  own.last = event;
  if (event.kind == Event::Kind::not_ready || event.kind == Event::Kind::not_verified ||
      event.kind == Event::Kind::job_failed)
    if (!own.clearing) own.passing_cause = event.transient && !event.abandoned;
  own.waits = false;
  const bool failing = event.kind == Event::Kind::not_ready || event.kind == Event::Kind::not_verified ||
                       event.kind == Event::Kind::job_failed || event.kind == Event::Kind::memory_short ||
                       event.kind == Event::Kind::not_journaled;
  const auto& told = machine.reports()[static_cast<std::size_t>(event.step)];
  // Whom a cancel made give up has no cause of its own any more, whatever an earlier attempt was told.
  if (event.abandoned && cancelled_) own.cause.clear();
  if (failing && !own.clearing && !event.abandoned && told.action != Action::stop) {
    own.cause = event.text;
    own.remedy = event.remedy;
  }
  own.clearing_failed.clear();
  if (own.clearing && (event.kind == Event::Kind::survived || event.kind == Event::Kind::not_ready ||
                       event.kind == Event::Kind::not_journaled))
    own.clearing_failed = event.text;
  if (event.kind == Event::Kind::survived && told.action != Action::stop && !own.clearing &&
      agenda_.now < own.deadline && agenda_.now - hands_.fell_at(event.step) < 9s)
    complain(fmt::format("step {} gives up on memory that is still falling", event.step));
  if (failing || event.kind == Event::Kind::survived) amiss_.insert(catalogue_.unit_named(told.unit));
  const bool is_proof = event.kind == Event::Kind::verified || event.kind == Event::Kind::released;
  if (is_proof) verified_.erase(catalogue_.unit_named(told.unit));
  if (is_proof && event.main_pid != 0) verified_[catalogue_.unit_named(told.unit)] = {event.main_pid, agenda_.now};
  if (event.kind == Event::Kind::memory_ok) {
    if (own.waits_for_memory && event.attempt == 1 && first_ && !first_->gpus.empty() &&
        host_.memory_version() == memory_at_first_ && !weather_.has(Fault::clock_jump) &&
        agenda_.now - *own.waits_for_memory > 500ms)
      complain(fmt::format("step {} waited for memory that did not move", event.step));
    for (const int gpu : told_gpus_[event.step]) {
      const bool returning = nobodys(gpu) > nobodys_at_first_[static_cast<std::size_t>(gpu)] + Bytes::mib(64);
      if (returning && catalogue_.figures && !catalogue_.unified && own.waits_for_memory &&
          agenda_.now - *own.waits_for_memory < 2s)
        complain(fmt::format("step {} begins while memory is coming back on GPU {}", event.step, gpu));
    }
    own.memory_ok = true;
    own.memory_attempt = event.attempt;
  }
}

void Judge::after(const Switch& machine) {
  const auto& reports = machine.reports();
  for (const auto& line : reports) {
    auto& own = track(line.step);
    if (line.result.empty()) complain(fmt::format("the report says nothing of step {}", line.step));
    if (own.result == line.result) continue;
    own.result = line.result;
    if (has_ended(line) && (!line.ended || *line.ended != agenda_.now))
      complain(fmt::format("the report of step {} does not say when it ended", line.step));
    if (line.result == "failed" || line.result == "cancelled") failed_ = true;
    if (line.result == "done") check_step_done(line);
    if (has_ended(line)) last_end_ = agenda_.now;
    if (has_ended(line)) {
      std::erase_if(allocating_, [&](const Window& window) { return window.step == line.step; });
      std::erase_if(freeing_, [&](const Window& window) { return window.step == line.step; });
    }
  }
  if (undoing_)
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      const auto& last = steps_[i].last;
      if (!last || !reports[i].undo) continue;
      const bool bad = last->kind == Event::Kind::not_ready || last->kind == Event::Kind::not_verified ||
                       last->kind == Event::Kind::survived || last->kind == Event::Kind::memory_short ||
                       last->kind == Event::Kind::job_failed || last->kind == Event::Kind::not_journaled;
      if (bad) obstacles_.insert(catalogue_.unit_named(reports[i].unit));
    }
  if (undoing_ && machine.finished() && !blind_undo_ && (reports.empty() || !reports.back().undo)) refused_undo_ = true;
}

void Judge::dispatched(const Switch& machine) {
  if (std::exchange(gives_up_, false) && !machine.finished()) check_waits_given_up(machine);
}

/// It was cancelled, or nothing can be written down: whoever only waits to take something has been told to stop.
void Judge::check_waits_given_up(const Switch& machine) {
  for (std::size_t i = static_cast<std::size_t>(round_base_); i < steps_.size(); ++i)
    if (steps_[i].waits && !frees(machine.reports()[i].action) && !steps_[i].clearing)
      complain(fmt::format("step {} goes on waiting although the way forward is given up", i));
}

}  // namespace gpumod::simulation
