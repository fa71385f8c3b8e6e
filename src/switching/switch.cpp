#include "switching/switch.h"

#include <algorithm>

#include <fmt/format.h>

namespace gpumod {

namespace {

constexpr int max_rounds = 8;

}  // namespace

Switch::Switch(SwitchRequest request) : request_(std::move(request)) {}

std::optional<Switch::Stage> Switch::stage_of(int step) const {
  const auto index = static_cast<std::size_t>(step);
  if (step < 0 || index >= steps_.size()) return std::nullopt;
  return steps_[index].stage;
}

const Step* Switch::step_at(int step) const {
  const auto index = static_cast<std::size_t>(step);
  return step < 0 || index >= steps_.size() ? nullptr : &steps_[index].step;
}

std::string_view to_string(Switch::Stage stage) {
  using Stage = Switch::Stage;
  switch (stage) {
    case Stage::pending: return "pending";
    case Stage::memory: return "memory";
    case Stage::acting: return "acting";
    case Stage::proving: return "proving";
    case Stage::killing: return "killing";
    case Stage::proving_kill: return "proving_kill";
    case Stage::waiting: return "waiting";
    case Stage::falling: return "falling";
    case Stage::verifying: return "verifying";
    case Stage::clearing: return "clearing";
    case Stage::clearing_proof: return "clearing_proof";
    case Stage::clearing_kill: return "clearing_kill";
    case Stage::clearing_last_proof: return "clearing_last_proof";
    case Stage::done: return "done";
    case Stage::failed: return "failed";
  }
  return "unknown";
}

std::vector<Command> Switch::begin(TimePoint) {
  Commands out;
  observe(out);
  return out;
}

std::vector<Command> Switch::on(const Event& event, TimePoint now) {
  Commands out;
  if (finished()) return out;
  if (event.kind == Event::Kind::cancel_requested) {
    if (phase_ == Phase::undoing || cancelled_) return out;
    cancelled_ = true;
    problem_ = Error{ErrorCode::cancelled, "cancelled", {}, {}};
    abandon_waits(out);
  } else if (event.kind == Event::Kind::observed) {
    if (!observing_) return out;
    observing_ = false;
    const bool looking_back = std::exchange(looking_back_, false);
    if (looking_back && !draining_)
      // Each was verified by itself: a machine that cannot be looked at just now does not undo that.
      event.snapshot ? last_look(*event.snapshot, now, out) : void(looked_back_ = true);
    else if (!event.snapshot)
      refuse(event.error.value_or(Error{ErrorCode::environment, "the machine could not be observed", {}, {}}), out);
    else if (!draining_)
      plan_round(*event.snapshot, now, out);
  } else if (event.kind == Event::Kind::preflight_ok || event.kind == Event::Kind::preflight_failed) {
    if (!std::exchange(preflighting_, false)) return out;
    if (event.kind == Event::Kind::preflight_failed && !draining_)
      refuse(event.error.value_or(Error{ErrorCode::refused, event.text, {}, {}}), out);
  } else {
    const auto index = static_cast<std::size_t>(event.step);
    if (event.step < 0 || index >= steps_.size() || steps_[index].attempt != event.attempt) return out;
    on_step_event(steps_[index], event, now, out);
  }
  if (!finished()) advance(now, out);
  return out;
}

void Switch::observe(Commands& out) {
  observing_ = true;
  Command look;
  look.kind = Command::Kind::observe;
  out.push_back(std::move(look));
}

/// What ran before, as far as this switch has touched it: what it never acted on is not its business.
Goal Switch::undo_goal(const Snapshot& snapshot) const {
  if (request_.on_failure == OnFailure::blank && !cancelled_) return Goal{"", {}, true};
  Goal goal = *request_.previous;
  for (auto& [id, residency] : goal.wanted) {
    const auto found = request_.knowledge.services.find(id);
    if (found == request_.knowledge.services.end()) continue;
    if (!is_asleep(residency)) continue;
    const auto view = snapshot.services.find(id);
    const bool up = view != snapshot.services.end() && view->second.residency != Residency::stopped &&
                    view->second.residency != Residency::failed;
    // Starting somebody only to put it to sleep could take the room of those who ran; and an engine that falls asleep
    // by itself cannot be told to.
    if (!up) residency = Residency::stopped;
    const auto ability = found->second.sleep;
    if (up && (ability == SleepAbility::none || ability == SleepAbility::router)) residency = Residency::running;
  }
  if (!previous_given_)
    std::erase_if(goal.wanted, [&](const auto& entry) {
      const auto found = request_.knowledge.services.find(entry.first);
      return found == request_.knowledge.services.end() || !touched_units_.contains(found->second.unit_name());
    });
  std::erase_if(goal.wanted, [&](const auto& entry) {
    const auto found = request_.knowledge.services.find(entry.first);
    return given_up_.contains(entry.first) ||
           (found != request_.knowledge.services.end() && given_up_.contains(found->second.unit_name()));
  });
  return goal;
}

/// The round cannot be begun.
void Switch::refuse(Error error, Commands& out) {
  if (phase_ == Phase::undoing) {
    return not_restored(error.message, out);
  }
  problem_ = std::move(error);
  if (!mutated_) return finish(SwitchResult::refused, out);
  give_up_forward(out);
}

void Switch::preflight(Commands& out) {
  Command check;
  check.kind = Command::Kind::preflight;
  for (const auto& live : steps_)
    if (live.step.action == Action::start || live.step.action == Action::load)
      for (const auto& [id, service] : request_.knowledge.services)
        if (id == live.step.service ||
            (live.step.service.empty() && service.unit_name() == live.step.unit && request_.goal.wanted.contains(id)))
          check.services.push_back(id);
  if (check.services.empty()) return;
  std::sort(check.services.begin(), check.services.end());
  check.services.erase(std::unique(check.services.begin(), check.services.end()), check.services.end());
  preflighting_ = true;
  out.push_back(std::move(check));
}

/// While undoing, one service that cannot come back keeps no other down: a plan without it is better than none.
Result<Plan> Switch::plan_undo(const Snapshot& seen, const Goal& goal) {
  unrestorable_.clear();
  Snapshot snapshot = seen;
  snapshot.outdated.clear();
  auto planned = plan(snapshot, goal, request_.knowledge);
  if (planned) return planned;
  Goal possible = goal;
  std::erase_if(possible.wanted, [](const auto& entry) { return entry.second != Residency::stopped; });
  Knowledge knowledge = request_.knowledge;
  planned = plan(snapshot, possible, knowledge);
  if (!planned) {  // then not even what runs can be restarted
    knowledge.distrusted.clear();
    planned = plan(snapshot, possible, knowledge);
  }
  for (const auto& [id, residency] : goal.wanted) {
    if (!planned || residency == Residency::stopped) continue;
    possible.wanted[id] = residency;
    auto with_it = plan(snapshot, possible, knowledge);
    if (with_it) {
      planned = std::move(with_it);
      continue;
    }
    possible.wanted.erase(id);
    unrestorable_ += fmt::format("{}'{}': {}", unrestorable_.empty() ? "" : "; ", id, with_it.error().message);
  }
  return planned;
}

void Switch::plan_round(const Snapshot& snapshot, TimePoint, Commands& out) {
  ++rounds_;
  if (!first_snapshot_) {
    first_snapshot_ = snapshot;
    previous_given_ = request_.previous.has_value();
    if (!request_.previous) request_.previous = goal_from(snapshot);
  }
  const Goal goal = phase_ == Phase::undoing ? undo_goal(snapshot) : request_.goal;
  auto planned = phase_ == Phase::undoing ? plan_undo(snapshot, goal) : plan(snapshot, goal, request_.knowledge);
  if (!planned) return refuse(std::move(planned).error(), out);
  if (!first_plan_) first_plan_ = *planned;
  changed_ = changed_ || !planned->only_verifies();

  round_base_ = steps_.size();
  const int base = static_cast<int>(round_base_);
  for (auto& step : planned->steps) {
    step.index += base;
    for (int& earlier : step.after)
      earlier += base;
    StepReport line;
    line.step = step.index;
    line.action = step.action;
    line.subject = step.subject();
    line.service = step.service;
    line.unit = step.unit;
    line.result = "pending";
    line.undo = phase_ == Phase::undoing;
    reports_.push_back(std::move(line));
    Live live;
    live.step = std::move(step);
    steps_.push_back(std::move(live));
  }
  if (rounds_ == 1) preflight(out);
}

void Switch::advance(TimePoint now, Commands& out) {
  if (observing_ || preflighting_) return;
  if (phase_ == Phase::undoing) give_up_the_lost();
  if (!draining_)
    for (std::size_t i = round_base_; i < steps_.size(); ++i)
      if (ready_to_issue(steps_[i])) issue(steps_[i], now, out);
  bool stuck = false;
  for (std::size_t i = round_base_; i < steps_.size(); ++i) {
    if (steps_[i].in_flight()) return;
    stuck = stuck || steps_[i].stage == Stage::pending;
  }
  // While undoing, what waits for something that failed is given up; forward, this cannot be, and must not hang if it
  // is.
  if (stuck && !draining_ && phase_ == Phase::forward)
    problem_ = Error{ErrorCode::failed, "the steps of the plan wait for each other (a defect of gpumod)", {}, {}};
  end_round(now, out);
}

/// While undoing, one service that does not come up must not keep the others down: what it took was cleared away.
bool Switch::passed_over(const Live& first, const Live& next) const {
  // Who was to be put to sleep once it was up, and never came up, has nothing to give back either.
  const bool no_nap = first.lost && first.step.action == Action::sleep;
  return phase_ == Phase::undoing && first.stage == Stage::failed && (no_nap || !frees(first.step.action)) &&
         first.step.unit != next.step.unit;
}

bool Switch::ready_to_issue(const Live& live) const {
  if (live.stage != Stage::pending) return false;
  return std::all_of(live.step.after.begin(), live.step.after.end(), [&](int earlier) {
    const Live& first = steps_[static_cast<std::size_t>(earlier)];
    return first.stage == Stage::done || passed_over(first, live);
  });
}

/// What waits for something that failed will never begin; who only queues behind it must not wait for that.
void Switch::give_up_the_lost() {
  for (bool again = true; std::exchange(again, false);)
    for (std::size_t i = round_base_; i < steps_.size(); ++i) {
      Live& live = steps_[i];
      const bool lost =
          live.stage == Stage::pending && std::any_of(live.step.after.begin(), live.step.after.end(), [&](int earlier) {
            const Live& first = steps_[static_cast<std::size_t>(earlier)];
            return first.stage == Stage::failed && !passed_over(first, live);
          });
      if (!lost) continue;
      live.stage = Stage::failed;
      live.lost = true;
      report(live).result = "skipped";
      again = true;
    }
}

/// The way forward (or back) is lost: no new steps, and whoever only waits stops waiting.
void Switch::abandon_waits(Commands& out) {
  if (phase_ == Phase::undoing) return;  // every service that can be brought back is worth it
  draining_ = true;
  if (std::exchange(abandoned_, true)) return;
  for (std::size_t i = round_base_; i < steps_.size(); ++i) {
    const auto& live = steps_[i];
    const bool waits = live.stage == Stage::memory || live.stage == Stage::waiting;
    if (waits && !frees(live.step.action)) out.push_back(command(Command::Kind::abandon, live));
  }
}

/// Nothing of the round is under way any more.
void Switch::end_round(TimePoint, Commands& out) {
  const bool all_done = std::all_of(steps_.begin() + static_cast<long>(round_base_), steps_.end(),
                                    [](const Live& live) { return live.stage == Stage::done; });
  if (all_done && (phase_ == Phase::undoing || !cancelled_)) {
    if (owes_last_look()) {
      looking_back_ = true;
      return observe(out);
    }
    if (phase_ == Phase::undoing && (!unrestorable_.empty() || !given_up_.empty())) {
      // What came up may take less than it claims: what was left out for want of room gets another chance.
      const bool moved_on = std::any_of(steps_.begin() + static_cast<long>(round_base_), steps_.end(),
                                        [](const Live& live) { return live.step.action != Action::verify; });
      const bool again = moved_on && !unrestorable_.empty() && rounds_ < max_rounds;
      return again ? next_round(out) : not_restored(unrestorable_, out);
    }
    if (phase_ == Phase::undoing)
      return finish(
          request_.on_failure == OnFailure::blank && !cancelled_ ? SwitchResult::failed : SwitchResult::rolled_back,
          out);
    return finish(changed_ ? SwitchResult::committed : SwitchResult::unchanged, out);
  }
  for (std::size_t i = round_base_; i < steps_.size(); ++i)
    if (steps_[i].stage == Stage::pending) reports_[i].result = "skipped";

  const bool only_distrust =
      (phase_ == Phase::undoing || !cancelled_) && !abandoned_ && !newly_distrusted_.empty() && rounds_ < max_rounds;
  request_.knowledge.distrusted.merge(newly_distrusted_);
  newly_distrusted_.clear();
  if (only_distrust) return next_round(out);

  const auto failed =
      std::find_if(steps_.begin() + static_cast<long>(round_base_), steps_.end(), [&](const Live& live) {
        return live.stage == Stage::failed && !report(live).note.empty() && !report(live).note.starts_with("given up");
      });
  if (phase_ == Phase::undoing) {
    bool unproven = false;
    for (std::size_t i = round_base_; i < steps_.size(); ++i) {
      if (steps_[i].stage != Stage::failed || reports_[i].note.empty()) continue;
      given_up_.try_emplace(steps_[i].step.subject(), reports_[i].note);
      unproven = unproven || frees(steps_[i].step.action);
    }
    // Who was left out for want of room may have it now that another one will not come back.
    if (!unrestorable_.empty() && !unproven && rounds_ < max_rounds) return next_round(out);
    return not_restored(unrestorable_, out);
  }
  if (!problem_) {
    problem_ = Error{ErrorCode::failed, "the switch failed", {}, {}};
    if (failed != steps_.end()) {
      const auto& line = report(*failed);
      problem_ = Error{ErrorCode::failed,
                       fmt::format("{} of '{}' failed: {}", to_string(line.action), line.subject, line.note),
                       line.remedy,
                       {}};
    }
  }
  give_up_forward(out);
}

/// A service that was verified while others were still under way may have died since.
bool Switch::owes_last_look() const {
  if (phase_ == Phase::undoing || looked_back_ || !changed_) return false;
  std::optional<TimePoint> first_verified, last_done;
  for (std::size_t i = round_base_; i < steps_.size(); ++i) {
    const auto& step = steps_[i].step;
    const auto ended = reports_[i].ended;
    last_done = std::max(last_done, ended);
    if ((frees(step.action) && step.action != Action::sleep) || router_process_only(step)) continue;
    if (!first_verified || ended < first_verified) first_verified = ended;
  }
  return first_verified && first_verified < last_done;
}

/// What was verified and is not there any more, or not the same; empty: all is well. `hopeless`: it was started anew
/// for that once before.
std::string Switch::not_as_verified(const Snapshot& snapshot, bool& hopeless) {
  std::string first;
  const auto say = [&](std::string text) {
    if (first.empty()) first = std::move(text);
  };
  for (const auto& [id, wanted] : request_.goal.wanted) {
    const auto view = snapshot.services.find(id);
    const bool asleep = is_asleep(wanted);
    if ((wanted != Residency::running && !asleep) || view == snapshot.services.end()) continue;
    // One that is only slow to answer, busy with somebody's request, has not died.
    const auto residency = view->second.residency;
    if (residency == Residency::running || residency == Residency::starting || (asleep && is_asleep(residency)))
      continue;
    say(fmt::format("'{}' was verified, and then {}: it is {}", id,
                    residency == Residency::failed ? "failed" : "went away",
                    view->second.detail.empty() ? to_string(residency) : view->second.detail));
    hopeless = !restarted_units_.insert(view->second.unit).second || hopeless;
  }
  for (const auto& [name, pid] : verified_) {
    const auto unit = snapshot.units.find(name);
    if (pid == 0 || unit == snapshot.units.end() || unit->second.main_pid == 0 || unit->second.main_pid == pid)
      continue;
    say(fmt::format("{} was verified, and has been restarted by something else since", name));
  }
  return first;
}

/// What is there that the goal does not want: somebody started it meanwhile. Empty: nothing.
std::string Switch::not_as_wanted(const Snapshot& snapshot) const {
  const auto left = plan(snapshot, request_.goal, request_.knowledge);
  if (!left) return {};
  for (const auto& step : left->steps)
    if (step.action == Action::stop || step.action == Action::unload)
      return fmt::format("'{}' was started by something else while the switch was under way", step.subject());
  return {};
}

void Switch::last_look(const Snapshot& snapshot, TimePoint now, Commands& out) {
  bool hopeless = false;
  std::string amiss = not_as_verified(snapshot, hopeless);
  if (amiss.empty()) amiss = not_as_wanted(snapshot);
  if (amiss.empty()) {
    looked_back_ = true;
    return;
  }
  if (!hopeless && rounds_ < max_rounds) {
    round_base_ = steps_.size();
    return plan_round(snapshot, now, out);
  }
  problem_ = Error{ErrorCode::failed, amiss, "See what its log says: gpumod service logs.", {}};
  give_up_forward(out);
}

void Switch::give_up_forward(Commands& out) {
  if (!mutated_ && unjournaled_ && !cancelled_) {
    problem_->message += "; nothing was touched";
    return finish(SwitchResult::refused, out);
  }
  if (!mutated_) return finish(cancelled_ ? SwitchResult::cancelled : SwitchResult::failed, out);
  Command record;
  record.kind = Command::Kind::record_failure;
  record.text = problem_->message;
  out.push_back(std::move(record));
  if (request_.on_failure == OnFailure::stay && !cancelled_) return finish(SwitchResult::failed, out);
  phase_ = Phase::undoing;
  // Who was only asked, and answered badly, is left as it is.
  const auto untouched = [&](const std::string& unit) { return !touched_units_.contains(unit); };
  std::erase_if(request_.knowledge.distrusted, untouched);
  std::erase_if(restarted_units_, untouched);
  next_round(out);
}

void Switch::next_round(Commands& out) {
  draining_ = false;
  abandoned_ = false;
  looked_back_ = false;
  round_base_ = steps_.size();
  observe(out);
}

void Switch::not_restored(const std::string& why, Commands& out) {
  std::string all = why;
  for (const auto& [subject, note] : given_up_)
    all += fmt::format("{}'{}': {}", all.empty() ? "" : "; ", subject, note);
  problem_->message += fmt::format("; what ran before could not be restored: {}", all);
  finish(SwitchResult::failed, out);
}

void Switch::finish(SwitchResult result, Commands& out) {
  if (cancelled_ && result == SwitchResult::rolled_back) result = SwitchResult::cancelled;
  result_ = result;
  Command end;
  end.kind = Command::Kind::finish;
  end.result = result;
  if (problem_) end.text = problem_->message;
  out.push_back(std::move(end));
}

}  // namespace gpumod
