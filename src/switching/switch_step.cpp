// What one step of a switch goes through, from its first command to done or failed: the table in switch.h, line by line.
// Rounds, and what a step's end means for the others, are in switch.cpp.
#include <algorithm>

#include <fmt/format.h>

#include "fit/claim.h"
#include "fit/learning.h"
#include "switching/switch.h"

namespace gpumod {

namespace {

constexpr int max_attempts = 3;
/// A process that outlives its unit's stop gets this long before it is killed.
constexpr Duration survivor_grace = 10s;
constexpr Duration residency_timeout = 120s;
/// A router kills a child that will not end after ten seconds; one that has not by now never will.
constexpr Duration unload_timeout = 30s;
/// Unit managers have deadlines of their own for jobs; ours is only against one that never answers.
constexpr Duration job_grace = 120s;

}  // namespace

void Switch::issue(Live& live, TimePoint now, Commands& out) {
  auto& line = report(live);
  if (!line.began) line.began = now;
  line.result = "running";
  line.attempts = live.attempt;
  live.unconfirmed = live.stopped_again = false;
  if (live.step.action == Action::verify) return await(live, now, out);
  const bool takes_gpu = allocates(live.step.action) && !live.step.gpus.empty() && !router_process_only(live.step);
  if (!takes_gpu) return act(live, now, out);

  live.stage = Stage::memory;
  line.stage = "waiting for memory";
  auto check = command(Command::Kind::check_memory, live, now + request_.knowledge.settings.release_timeout);
  for (const auto& [gpu, claim] : live.step.claim)
    check.need[gpu] = claim + request_.knowledge.settings.vram_margin;
  out.push_back(std::move(check));
}

void Switch::act(Live& live, TimePoint now, Commands& out) {
  live.stage = Stage::acting;
  auto& line = report(live);
  Command::Kind kind = Command::Kind::stop_unit;
  switch (live.step.action) {
    case Action::start: kind = Command::Kind::start_unit, line.stage = "starting"; break;
    case Action::stop: kind = Command::Kind::stop_unit, line.stage = "stopping"; break;
    case Action::load: kind = Command::Kind::load_model, line.stage = "loading the model"; break;
    case Action::unload: kind = Command::Kind::unload_model, line.stage = "unloading the model"; break;
    case Action::sleep: kind = Command::Kind::sleep_service, line.stage = "going to sleep"; break;
    case Action::wake: kind = Command::Kind::wake_service, line.stage = "waking"; break;
    case Action::verify: return await(live, now, out);
  }
  if (live.step.action == Action::start || live.step.action == Action::stop) verified_.erase(live.step.unit);
  out.push_back(command(kind, live, now + startup_timeout(live.step) + job_grace));
}

void Switch::await(Live& live, TimePoint now, Commands& out) {
  live.stage = Stage::waiting;
  auto& line = report(live);
  const auto action = live.step.action;
  // A router is ready without its models: one that is still loading must not be taken for one that does not answer.
  const bool model_of_router = action == Action::verify && is_model_of_router(live.step);
  if (action == Action::load || action == Action::unload || action == Action::sleep || model_of_router) {
    const bool comes_up = action == Action::load || model_of_router;
    const auto patience = comes_up                   ? patience_with(live.step)
                          : action == Action::unload ? unload_timeout
                                                     : residency_timeout;
    auto wait = command(Command::Kind::await_residency, live, now + patience);
    wait.target = comes_up ? Residency::running : action == Action::unload ? Residency::unloaded : live.step.target;
    line.stage = comes_up ? "loading the model" : action == Action::unload ? "unloading" : "falling asleep";
    out.push_back(std::move(wait));
    return;
  }
  line.stage = "getting ready";
  out.push_back(command(Command::Kind::await_ready, live, now + patience_with(live.step)));
}

void Switch::verify(Live& live, TimePoint now, Commands& out) {
  live.stage = Stage::verifying;
  report(live).stage = "verifying";
  out.push_back(command(Command::Kind::verify, live, now + residency_timeout));
}

void Switch::prove(Live& live, Stage stage, TimePoint now, Commands& out) {
  live.stage = stage;
  const bool last = stage == Stage::proving_kill || stage == Stage::clearing_last_proof;
  const auto patience = last ? request_.knowledge.settings.release_timeout : survivor_grace;
  if (!frees(live.step.action))
    report(live).stage = "clearing away";
  else
    report(live).stage = "releasing";
  out.push_back(command(Command::Kind::prove_release, live, now + patience));
}

void Switch::prove_fall(Live& live, TimePoint now, Commands& out) {
  live.stage = Stage::falling;
  report(live).stage = "releasing";
  auto proof = command(Command::Kind::prove_fall, live, now + request_.knowledge.settings.release_timeout);
  proof.ceiling = live.step.ceiling;
  out.push_back(std::move(proof));
}

/// A load that failed was told to go: that it went must be seen.
void Switch::prove_unloaded(Live& live, TimePoint now, Commands& out) {
  live.stage = Stage::clearing_proof;
  auto wait = command(Command::Kind::await_residency, live, now + unload_timeout);
  wait.target = Residency::unloaded;
  out.push_back(std::move(wait));
}

void Switch::on_step_event(Live& live, const Event& event, TimePoint now, Commands& out) {
  using Kind = Event::Kind;
  const auto is = [&](Kind a, Kind b) { return event.kind == a || event.kind == b; };
  if (event.kind == Kind::not_journaled) return not_issued(live, event, now, out);
  switch (live.stage) {
    case Stage::memory:
      if (event.kind == Kind::memory_ok && draining_) {
        live.stage = Stage::pending;  // nothing has been done for it yet, and nothing will
      } else if (event.kind == Kind::memory_ok) {
        act(live, now, out);
      } else if (is(Kind::memory_short, Kind::not_ready)) {
        note_failure(live, event);
        step_failed(live, now);
        abandon_waits(out);
      }
      return;
    case Stage::acting:
      if (is(Kind::job_done, Kind::job_failed)) on_acted(live, event, now, out);
      return;
    case Stage::waiting:
      if (event.kind == Kind::ready) {
        const bool answers = !frees(live.step.action) && !router_process_only(live.step);
        if (answers) return verify(live, now, out);
        live.step.ceiling.empty() ? step_done(live, {}, now) : prove_fall(live, now, out);
      } else if (event.kind == Kind::not_ready) {
        step_not_up(live, event, now, out);
      }
      return;
    case Stage::falling:
      if (event.kind == Kind::released) {
        verified_[live.step.unit] = event.main_pid;
        step_done(live, event.text, now);
      }
      if (is(Kind::survived, Kind::not_ready)) step_not_up(live, event, now, out);
      return;
    case Stage::verifying:
      if (event.kind == Kind::verified) {
        verified_[live.step.unit] = event.main_pid;
        step_done(live, event.text, now);
      }
      if (event.kind == Kind::not_verified) step_not_up(live, event, now, out);
      return;
    case Stage::proving:
    case Stage::proving_kill:
    case Stage::clearing_proof:
    case Stage::clearing_last_proof:
      if (live.step.action == Action::load ? is(Kind::ready, Kind::not_ready) : is(Kind::released, Kind::survived))
        on_proof(live, event, now, out);
      return;
    case Stage::killing:
    case Stage::clearing_kill:
      if (!is(Kind::job_done, Kind::job_failed)) return;
      report(live).earlier.push_back(fmt::format("needed SIGKILL: {}", live.survivors));
      prove(live, live.stage == Stage::killing ? Stage::proving_kill : Stage::clearing_last_proof, now, out);
      return;
    case Stage::clearing:
      if (!is(Kind::job_done, Kind::job_failed)) return;
      if (live.step.action == Action::load) return prove_unloaded(live, now, out);
      live.unconfirmed = event.kind == Kind::job_failed;
      prove(live, Stage::clearing_proof, now, out);
      return;
    case Stage::pending:
    case Stage::done:
    case Stage::failed: return;
  }
}

/// The mutating command of the step has ended.
void Switch::on_acted(Live& live, const Event& event, TimePoint now, Commands& out) {
  const bool ok = event.kind == Event::Kind::job_done;
  mutated_ = true;
  touched_units_.insert(live.step.unit);
  if (abandoned_ && allocates(live.step.action)) {
    Event given_up = event;
    given_up.abandoned = ok;
    return step_not_up(live, given_up, now, out);
  }
  switch (live.step.action) {
    // A stop job that failed may still have stopped everything: the proof decides, not the job.
    case Action::stop:
      live.unconfirmed = !ok;
      if (ok && !event.text.empty()) report(live).earlier.push_back(event.text);
      return prove(live, Stage::proving, now, out);
    case Action::start: return ok ? await(live, now, out) : step_not_up(live, event, now, out);
    case Action::load:
    case Action::wake:
    case Action::unload:
    case Action::sleep: return ok ? await(live, now, out) : step_not_up(live, event, now, out);
    case Action::verify: return;
  }
}

/// The command that is out could not be written down, and so was not given.
void Switch::not_issued(Live& live, const Event& event, TimePoint now, Commands& out) {
  const bool clearing = live.stage == Stage::clearing || live.stage == Stage::clearing_kill;
  const bool killing = live.stage == Stage::killing || live.stage == Stage::clearing_kill;
  if (live.stage != Stage::acting && !clearing && !killing) return;
  const auto what = killing              ? fmt::format("{}, and could not be killed", live.survivors)
                    : live.stopped_again ? "the unit manager did not confirm that it is stopped, and was not told again"
                    : clearing           ? "what is left of it could not be cleared away"
                                         : "it was not begun";
  auto& line = report(live);
  Event why = event;
  why.text = fmt::format("{}: {}", what, event.text);
  if (clearing)
    line.note += "; and " + why.text;
  else
    note_failure(live, why);
  if (!problem_ && !draining_ && !clearing && event.error)
    problem_ = Error{event.error->code,
                     fmt::format("{} of '{}' failed: {}", to_string(live.step.action), line.subject, line.note),
                     line.remedy,
                     {}};
  unjournaled_ = true;
  live.may_retry = live.taken_back = false;
  step_failed(live, now);
  abandon_waits(out);
}

void Switch::on_proof(Live& live, const Event& event, TimePoint now, Commands& out) {
  const bool clearing = live.stage == Stage::clearing_proof || live.stage == Stage::clearing_last_proof;
  const bool released = event.kind == Event::Kind::released || event.kind == Event::Kind::ready;
  if (released && live.unconfirmed && !live.stopped_again) {
    live.stopped_again = true;
    live.stage = clearing ? Stage::clearing : Stage::acting;
    out.push_back(command(Command::Kind::stop_unit, live, now + startup_timeout(live.step) + job_grace));
    return;
  }
  if (released && !live.unconfirmed) return clearing ? cleared(live, now, out) : step_done(live, event.text, now);

  const bool last = live.stage == Stage::proving_kill || live.stage == Stage::clearing_last_proof ||
                    live.step.action == Action::load;  // nothing kills one model of a router
  if (!last && !released) {
    live.survivors = event.text;
    live.stage = clearing ? Stage::clearing_kill : Stage::killing;
    report(live).stage = "killing what survived";
    out.push_back(command(Command::Kind::kill_unit, live, now + survivor_grace));
    return;
  }
  // No path continues past an unproven release.
  live.may_retry = live.taken_back = false;
  Event unproven = event;
  if (released) unproven.text = "the unit manager did not confirm that it is stopped";
  if (!clearing)
    note_failure(live, unproven);
  else
    report(live).note += fmt::format("; and its release is not proven: {}", unproven.text);
  step_failed(live, now);
  abandon_waits(out);
}

void Switch::step_done(Live& live, const std::string& note, TimePoint now) {
  live.stage = Stage::done;
  if (live.step.action == Action::start) request_.knowledge.distrusted.erase(live.step.unit);
  auto& line = report(live);
  line.result = "done";
  line.stage.clear();
  line.note = note;
  line.remedy.clear();
  line.log_line.clear();
  line.ended = now;
}

/// A start, load, wake, sleep, unload or verify did not get where it should.
void Switch::step_not_up(Live& live, const Event& event, TimePoint now, Commands& out) {
  note_failure(live, event);
  const bool given_up = event.abandoned || abandoned_;
  switch (live.step.action) {
    case Action::start:
      live.may_retry = event.transient && !given_up && live.attempt < max_attempts;
      live.stage = Stage::clearing;
      report(live).stage = "clearing away";
      out.push_back(command(Command::Kind::stop_unit, live, now + startup_timeout(live.step)));
      return;
    case Action::load:
      live.may_retry = event.transient && !given_up && live.attempt < max_attempts;
      live.stage = Stage::clearing;
      report(live).stage = "clearing away";
      out.push_back(command(Command::Kind::unload_model, live, now + startup_timeout(live.step) + job_grace));
      return;
    case Action::verify:
    case Action::wake:
    case Action::unload: step_failed(live, now); return given_up ? void() : distrust(live, out);
    case Action::sleep: {
      const bool ended = event.kind == Event::Kind::not_ready && live.stage == Stage::falling;
      step_failed(live, now);
      return ended && !given_up ? distrust(live, out) : abandon_waits(out);
    }
    case Action::stop: step_failed(live, now); return abandon_waits(out);
  }
}

/// What it looked like was not what it is: the unit is restarted, once.
void Switch::distrust(const Live& live, Commands& out) {
  if (newly_distrusted_.contains(live.step.unit)) return;  // another step has found the same out in this round
  if (restarted_units_.contains(live.step.unit)) return abandon_waits(out);
  restarted_units_.insert(live.step.unit);
  newly_distrusted_.insert(live.step.unit);
  draining_ = true;  // what is under way may end well: it stays in the next round
}

/// What a failed start left behind is gone.
void Switch::cleared(Live& live, TimePoint now, Commands& out) {
  if (live.may_retry && !abandoned_) {
    live.may_retry = false;
    report(live).earlier.push_back(fmt::format("attempt {}: {}", live.attempt, report(live).note));
    ++live.attempt;
    return issue(live, now, out);
  }
  step_failed(live, now);
  abandon_waits(out);
}

void Switch::step_failed(Live& live, TimePoint now) {
  live.stage = Stage::failed;
  auto& line = report(live);
  line.result = live.taken_back ? "cancelled" : "failed";
  line.stage.clear();
  line.ended = now;
}

void Switch::note_failure(Live& live, const Event& event) {
  auto& line = report(live);
  if (event.abandoned) {
    live.taken_back = cancelled_;
    if (cancelled_) line.remedy = line.log_line = "";  // what an earlier attempt failed of is told with that
    if (cancelled_)
      line.note = "given up: the switch was taken back";
    else if (line.note.empty())
      line.note = "given up because another step failed";
    return;
  }
  line.note = event.text;
  line.remedy = event.remedy;
  line.log_line = event.log_line;
}

Command Switch::command(Command::Kind kind, const Live& live, TimePoint deadline) const {
  Command out;
  out.kind = kind;
  out.step = live.step.index;
  out.attempt = live.attempt;
  out.service = live.step.service;
  out.unit = live.step.unit;
  out.gpus = live.step.gpus;
  out.target = live.step.target;
  out.deadline = deadline;
  return out;
}

/// The start of a router: the process is ready without any model, and there is nobody to probe yet.
bool Switch::router_process_only(const Step& step) const {
  if (step.action != Action::start) return false;
  if (step.service.empty()) return true;
  return request_.knowledge.services.at(step.service).in_router();
}

bool Switch::is_model_of_router(const Step& step) const {
  return !step.service.empty() && request_.knowledge.services.at(step.service).in_router();
}

Duration Switch::startup_timeout(const Step& step) const {
  Duration longest = 60s;
  for (const auto& [id, service] : request_.knowledge.services)
    if (id == step.service || (step.service.empty() && service.unit_name() == step.unit))
      longest = std::max(longest, service.startup_timeout);
  if (const auto own = request_.knowledge.services.find(step.service); own != request_.knowledge.services.end())
    return own->second.startup_timeout;
  return longest;
}

/// A service that was slow before, and came up, gets the time that it needs; people's startup_timeout is the least.
Duration Switch::patience_with(const Step& step) const {
  const auto floor = startup_timeout(step);
  if (!first_snapshot_) return floor;
  const auto phase = phase_of_coming_up(step);
  const auto patience = [&](const MeasuredFootprint& seen) {
    const auto found = seen.phases.find(phase);
    return found == seen.phases.end() ? floor : patience_for(found->second, floor);
  };
  const auto& known = footprint_of(request_.knowledge.footprints, step.subject());
  if (step.action != Action::verify) {
    const auto* seen = measured_on(known, step.gpus, first_snapshot_->gpus);
    return seen ? patience(*seen) : floor;
  }
  // Where one is that is only asked, nobody has planned: it gets the longest that it ever took.
  auto longest = floor;
  for (const auto& [gpu, seen] : known.measured)
    longest = std::max(longest, patience(seen));
  return longest;
}

/// Who is asked whether it runs may be on its way up: a model of a router then loads.
gpumod::Phase Switch::phase_of_coming_up(const Step& step) const {
  if (step.action == Action::wake) return gpumod::Phase::wake;
  const bool loads = step.action == Action::load || (step.action == Action::verify && is_model_of_router(step));
  return loads ? gpumod::Phase::load : gpumod::Phase::ready;
}

}  // namespace gpumod
