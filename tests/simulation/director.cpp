#include "director.h"

namespace gpumod::simulation {

namespace {

constexpr std::uint64_t most_entries = 400'000;
constexpr Duration longest_switch = std::chrono::hours(24);

std::string in_words(const Goal& goal) {
  std::string text;
  for (const auto& [id, residency] : goal.wanted)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", id, to_string(residency));
  return fmt::format("{}{{{}}}", goal.exclusive ? "only " : "", text);
}

}  // namespace

Goal merged_goal(const std::optional<Goal>& stored, const Goal& change) {
  Goal merged = stored.value_or(Goal{});
  merged.exclusive = true;
  for (const auto& [id, residency] : change.wanted) {
    if (residency == Residency::stopped)
      merged.wanted.erase(id);
    else
      merged.wanted[id] = residency;
  }
  return merged;
}

Director::Director(std::uint64_t seed, Coverage& coverage, bool verbose)
    : coverage_(coverage),
      random_(seed),
      weather_(random_),
      catalogue_(random_),
      trace_(agenda_, verbose),
      host_(catalogue_, random_, weather_, agenda_, trace_, *this),
      hands_(catalogue_, random_, weather_, agenda_, host_, *this, *this),
      judge_(catalogue_, weather_, agenda_, host_, hands_, journal_, trace_) {}

void Director::saw(Fault fault) {
  if (fault != Fault::foreign_moves && fault != Fault::gpu_unreadable) trace_.say("  fault: {}", to_string(fault));
  if (!switch_) return;
  for (const auto& line : switch_->reports())
    if (line.result == "running")
      ++coverage_.faults[static_cast<std::size_t>(fault)][static_cast<std::size_t>(line.action)];
}

void Director::saw_in(Fault fault, int step) {
  trace_.say("  fault: {} in step {}", to_string(fault), step);
  if (!switch_ || step < 0) return;
  const auto& line = switch_->reports()[static_cast<std::size_t>(step)];
  ++coverage_.faults[static_cast<std::size_t>(fault)][static_cast<std::size_t>(line.action)];
}

// --- the director -------------------------------------------------------------------------------------------------

void Director::post(Event event, Duration in) {
  int slot;
  if (free_events_.empty()) {
    slot = static_cast<int>(events_.size());
    events_.push_back(std::move(event));
  } else {
    slot = free_events_.back();
    free_events_.pop_back();
    events_[static_cast<std::size_t>(slot)] = std::move(event);
  }
  ++on_their_way_;
  agenda_.add(in, Tick::deliver, slot, static_cast<int>(epoch_));
}

Phase Director::phase() const {
  if (preflighting_) return Phase::preflighting;
  if (observing_) {
    if (judge_.undoing()) return Phase::looking_to_undo;
    const auto& reports = switch_->reports();
    const bool all_done =
        !reports.empty() && looks_ > 1 &&
        std::all_of(reports.begin(), reports.end(), [](const StepReport& line) { return line.result == "done"; });
    return all_done ? Phase::looking_back : Phase::looking;
  }
  return judge_.undoing() ? Phase::undoing : Phase::acting;
}

bool Director::deliver(Event event) {
  ++coverage_.events;
  const auto kind = static_cast<std::size_t>(event.kind);
  if (event.step >= 0) {
    if (const auto stage = switch_->stage_of(event.step)) {
      const auto& report = switch_->reports()[static_cast<std::size_t>(event.step)];
      const bool stale = event.attempt != std::max(1, report.attempts);
      ++coverage_.stages[static_cast<std::size_t>(*stage)][stale ? event_count : kind];
    }
    const auto step = static_cast<std::size_t>(event.step);
    if (step < expected_.size() && expected_[step] && expected_[step]->attempt == event.attempt)
      expected_[step].reset();
    trace_.say("→ {} step {} attempt {} {}{}{}", to_string(event.kind), event.step, event.attempt, event.text,
               event.transient ? " (transient)" : "", event.abandoned ? " (abandoned)" : "");
    if (past_.size() < 40) past_.push_back(event);
  } else {
    PhaseEvent what = PhaseEvent::cancel;
    if (event.kind == Event::Kind::observed) what = event.snapshot ? PhaseEvent::observed : PhaseEvent::not_observed;
    if (event.kind == Event::Kind::preflight_ok) what = PhaseEvent::preflight_ok;
    if (event.kind == Event::Kind::preflight_failed) what = PhaseEvent::preflight_failed;
    ++coverage_.phases[static_cast<std::size_t>(phase())][static_cast<std::size_t>(what)];
    trace_.say("→ {}{}", to_string(event.kind), event.error ? ": " + event.error->message : "");
    if (event.kind == Event::Kind::observed) observing_ = false;
    if (event.kind == Event::Kind::preflight_ok || event.kind == Event::Kind::preflight_failed) preflighting_ = false;
  }
  judge_.event(event, *switch_);
  const auto commands = switch_->on(event, agenda_.now);
  judge_.after(*switch_);
  if (!dispatch(commands)) return false;
  judge_.dispatched(*switch_);
  return true;
}

/// Why nothing can be written now.
std::optional<Fault> Director::journal_fails() {
  if (agenda_.now < full_until_) return Fault::disk_full;
  if (weather_.strikes(Fault::disk_full, random_)) {
    full_until_ = random_.percent(40) ? TimePoint::max() : agenda_.now + random_.time(1ms, 200s);
    return Fault::disk_full;
  }
  if (weather_.strikes(Fault::journal_write_fails, random_)) return Fault::journal_write_fails;
  return std::nullopt;
}

/// Journals, then acts. False: gpumod has ended.
bool Director::dispatch(const std::vector<Command>& commands) {
  std::vector<const Command*> mutating;
  for (const auto& command : commands)
    if (command.mutates()) mutating.push_back(&command);
  bool written = true;
  if (!mutating.empty()) {
    if (!survives(CrashPoint::before_journal, mutating.front()->kind)) return false;
    if (!row_.mutated && switch_->first_snapshot()) row_.previous = switch_->previous();
    for (const auto* command : mutating)
      if (command->kind == Command::Kind::record_failure)
        row_.failure = command->text.empty() ? "unknown" : command->text;
    if (const auto fault = journal_fails()) {
      written = false;
      for (const auto* command : mutating)
        saw_in(*fault, command->step);
    } else {
      auto next = row_;
      next.mutated = true;
      for (const auto* command : mutating)
        next.commands.push_back({command->kind, command->step, command->attempt});
      if (!survives(CrashPoint::in_journal, mutating.front()->kind)) {
        if (!by_power_cut_ && random_.percent(50)) journal_.write(next);  // the kernel had it all
        return false;
      }
      row_ = std::move(next);
      journal_.write(row_);
    }
    if (!survives(CrashPoint::before_acting, mutating.front()->kind)) return false;
  }
  for (const auto& command : commands) {
    ++coverage_.commands;
    trace_.say("← {} {} {}{}{}", to_string(command.kind), command.step >= 0 ? fmt::format("step {}", command.step) : "",
               command.service.empty() ? command.unit : command.service, command.attempt > 1 ? " again" : "",
               command.text.empty() ? "" : ": " + command.text);
    if (command.kind == Command::Kind::record_failure && written) {
      judge_.command(command, *switch_);
      continue;
    }
    if (command.kind == Command::Kind::finish || command.kind == Command::Kind::record_failure) {
      judge_.command(command, *switch_);
      continue;
    }
    if (command.kind == Command::Kind::abandon) {
      judge_.command(command, *switch_);
      hands_.abandon(command.step);
      continue;
    }
    if (command.kind == Command::Kind::observe) {
      observing_ = true;
      ++looks_;
      if (weather_.has(Fault::cancel) && random_.percent(8))
        agenda_.add(Duration(0), Tick::cancel, 0, static_cast<int>(epoch_));
    }
    if (command.kind == Command::Kind::preflight) preflighting_ = true;
    if (command.step >= 0) {
      if (expected_.size() <= static_cast<std::size_t>(command.step))
        expected_.resize(static_cast<std::size_t>(command.step) + 1);
      expected_[static_cast<std::size_t>(command.step)] = Expected{command.kind, command.attempt};
    }
    if (!written && command.mutates()) {
      Event event;
      event.kind = Event::Kind::not_journaled;
      event.step = command.step;
      event.attempt = command.attempt;
      event.text = "the journal cannot be written";
      event.error = Error{ErrorCode::environment, event.text, {}, {}};
      judge_.unwritten(command, *switch_);
      post(std::move(event), Duration(0));
      continue;
    }
    judge_.command(command, *switch_);
    hands_.carry_out(command);
    if (!survives(CrashPoint::after_acting, command.kind)) return false;
  }
  return true;
}

void Director::arm() {
  crash_in_ = 0;
  crash_at_.reset();
  by_power_cut_ = weather_.strikes(Fault::power_cut, random_);
  if (!by_power_cut_ && !weather_.strikes(Fault::crash, random_)) return;
  // Somewhere, or at the next command of some kind, whichever is there.
  if (random_.percent(50))
    crash_in_ = static_cast<int>(random_.between(1, random_.percent(50) ? 8 : 40));
  else
    crash_at_ = {static_cast<CrashPoint>(random_.below(static_cast<int>(CrashPoint::count))),
                 random_.percent(10) ? Command::Kind::kill_unit  // few switches have one
                                     : static_cast<Command::Kind>(random_.below(command_count))};
}

bool Director::survives(CrashPoint point, Command::Kind kind) {
  const bool there = crash_at_ && crash_at_->first == point && crash_at_->second == kind;
  if (!there && (crash_in_ == 0 || --crash_in_ > 0)) return true;
  const auto p = static_cast<std::size_t>(point), k = static_cast<std::size_t>(kind);
  ++(by_power_cut_ ? coverage_.power_cuts : coverage_.crashes)[p][k];
  saw(by_power_cut_ ? Fault::power_cut : Fault::crash);
  ended_ = by_power_cut_ ? Ending::power_cut : Ending::crashed;
  return false;
}

Director::Ending Director::drive(Order order, std::optional<Goal> previous) {
  ++coverage_.switches;
  trace_.say("── {}: {}, on failure {}", order.kind, in_words(order.goal), to_string(order.on_failure));
  SwitchRequest request;
  request.goal = order.goal;
  request.previous = previous;
  request.on_failure = order.on_failure;
  request.knowledge = catalogue_.knowledge;
  request.knowledge.distrusted = order.distrusted;
  row_ = JournalRow();
  row_.id = journal_.next_id();
  row_.kind = order.kind;
  row_.boot_id = fmt::format("boot {}", boot_);
  row_.goal = order.goal;
  if (previous) row_.previous = *previous;
  judge_.begin(request, row_.id);
  switch_ = std::make_unique<Switch>(std::move(request));
  expected_.clear();
  past_.clear();
  observing_ = preflighting_ = false;
  looks_ = 0;
  ended_.reset();
  arm();
  if (weather_.strikes(Fault::cancel, random_))
    agenda_.add(random_.time(0ms, random_.percent(50) ? 200ms : 40s), Tick::cancel, 0, static_cast<int>(epoch_));
  if (weather_.has(Fault::second_writer))
    agenda_.add(random_.time(0ms, 20s), Tick::second_writer, 0, static_cast<int>(epoch_));
  if (weather_.has(Fault::stray_event) || weather_.has(Fault::stale_event))
    agenda_.add(random_.time(0ms, 1s), Tick::stray, 0, static_cast<int>(epoch_));
  if (weather_.strikes(Fault::clock_jump, random_))
    agenda_.add(random_.time(0ms, 30s), Tick::jump, 0, static_cast<int>(epoch_));
  if (weather_.strikes(Fault::hand, random_))
    agenda_.add(random_.time(0ms, 30s), Tick::hand, random_.below(static_cast<int>(catalogue_.units.size())),
                random_.below(2));

  const TimePoint began = agenda_.now;
  bool goes_on = dispatch(switch_->begin(agenda_.now));
  for (std::uint64_t entries = 0; goes_on && !switch_->finished(); ++entries) {
    if (agenda_.empty() || (!hands_.busy() && on_their_way_ == 0)) {
      judge_.complain("the switch waits for nothing");
      break;
    }
    if (entries > most_entries || agenda_.now - began > longest_switch) {
      judge_.complain("the switch does not end");
      break;
    }
    const Entry entry = agenda_.take();
    if (entry.kind != Tick::deliver) {
      handle(entry);
      continue;
    }
    Event event = std::move(events_[static_cast<std::size_t>(entry.a)]);
    free_events_.push_back(entry.a);
    if (static_cast<unsigned>(entry.b) != epoch_) continue;  // whoever asked is gone
    --on_their_way_;
    goes_on = deliver(std::move(event));
  }
  Ending ending = ended_.value_or(Ending::finished);
  if (goes_on && switch_->finished()) {
    if (hands_.busy()) judge_.complain("it ended while a command was under way");
    const auto result = last_result_ = switch_->result();
    ++coverage_.results[static_cast<std::size_t>(result)];
    judge_.end(*switch_);
    const bool reached = result == SwitchResult::committed || result == SwitchResult::unchanged;
    const bool restored = row_.mutated && (result == SwitchResult::rolled_back || result == SwitchResult::cancelled);
    if (!journal_fails()) journal_.end(row_, reached ? order.goal_after : std::nullopt, reached || restored);
    trace_.say("── it is {}{}{}", to_string(result), switch_->problem() ? ": " : "",
               switch_->problem() ? switch_->problem()->message : "");
  } else {
    trace_.say("── {}", ending == Ending::power_cut ? "the power is cut" : "gpumod ends");
  }
  // Whoever waits is gone with it; what the world was told goes on.
  ++epoch_;
  on_their_way_ = 0;
  hands_.forget();
  switch_.reset();
  locked_ = false;
  if (ending == Ending::power_cut) power_returns();
  return ending;
}

Recovery Director::recovery_of(const JournalRow& left) {
  const Recovery recovery = recover({std::to_string(left.id), left.kind, left.goal, left.previous, left.mutated,
                                     !left.failure.empty(), left.failure, left.boot_id},
                                    {fmt::format("boot {}", boot_), catalogue_.knowledge.settings.boot});
  judge_.recovery(left, left.boot_id != fmt::format("boot {}", boot_), recovery);
  return recovery;
}

/// As verbs/context deals with an order: recovery first.
Director::Ending Director::carry_out(Order order) {
  locked_ = true;
  std::optional<Goal> previous;
  if (const auto* left = journal_.unfinished()) {
    ++coverage_.recoveries;
    const JournalRow interrupted = *left;
    const Recovery recovery = recovery_of(interrupted);
    trace_.say("── recovery: {}", recovery.sentence);
    if (recovery.direction == RecoveryDirection::discard) {
    } else if (order.goal.exclusive) {
      previous = recovery.direction == RecoveryDirection::blank ? recovery.goal : interrupted.previous;
    } else {
      Order repair;
      repair.kind = "recovery";
      repair.goal = recovery.goal;
      if (recovery.direction != RecoveryDirection::back)
        repair.goal_after = recovery.goal.exclusive ? recovery.goal : merged_goal(journal_.goal, recovery.goal);
      const auto ending = drive(std::move(repair), interrupted.previous);
      if (ending != Ending::finished) return ending;
      locked_ = true;
      const bool reached = last_result_ == SwitchResult::committed || last_result_ == SwitchResult::unchanged;
      if (!reached) return Ending::finished;  // "has to be dealt with first, and could not be"
    }
  }
  if (order.merges) {
    order.goal.mode = journal_.goal ? journal_.goal->mode : "";
    order.goal_after = merged_goal(journal_.goal, order.goal);
  }
  return drive(std::move(order), std::move(previous));
}

}  // namespace gpumod::simulation
