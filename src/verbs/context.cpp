#include "verbs/context.h"

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/log.h"
#include "control/additions.h"
#include "control/footprints.h"
#include "control/launch.h"
#include "control/observe.h"
#include "fit/vllm_flags.h"
#include "host/processes.h"
#include "model/json.h"
#include "switching/plan.h"
#include "verbs/homecoming.h"

namespace gpumod {

namespace json = boost::json;

Context::Context(Loop& loop, Paths paths, ProgressSink progress)
    : loop_(loop), paths_(std::move(paths)), progress_(std::move(progress)) {}

void Context::notice(const std::string& text) {
  log_info("{}", text);
  if (progress_) progress_({{"event", "notice"}, {"text", text}});
}

Result<const Catalog*> Context::catalog() {
  if (!catalog_) catalog_ = TRY(load_catalog(paths_));
  return &*catalog_;
}

Result<Machine*> Context::machine() {
  if (!machine_) machine_ = TRY(open_machine(loop_, paths_, catalog_ ? catalog_->settings : load_settings(paths_)));
  return &*machine_;
}

Result<Store*> Context::store() {
  if (!store_) {
    store_ = TRY(Store::open(paths_.state));
    if (!store_->notice().empty()) notice(state_problem_ = store_->notice());
  }
  return &*store_;
}

Result<Store*> Context::reading() {
  if (store_) return &*store_;
  if (!reading_) {
    reading_ = TRY(Store::open_existing(paths_.state));
    if (*reading_ && !(*reading_)->notice().empty()) notice(state_problem_ = (*reading_)->notice());
  }
  return *reading_ ? &**reading_ : nullptr;
}

Task<Result<void>> Context::remember_what_runs() {
  const auto opened = store();
  if (!opened) co_return fail(opened.error());
  const auto forgotten = (*opened)->knows_nothing();
  if (!forgotten) co_return fail(forgotten.error());
  const auto known = catalog();
  if (!*forgotten || !known) co_return Result<void>();
  const auto reached = machine();
  if (!reached) co_return Result<void>();
  const auto snapshot = co_await observe(**reached, **known);
  const auto goal = snapshot ? goal_of_what_runs(*snapshot, **known) : std::nullopt;
  if (!goal) co_return Result<void>();
  notice(goal->mode.empty()
             ? std::string("no goal is stored: what runs now is taken for it")
             : fmt::format("no goal is stored: what runs now is mode '{}', and is taken for it", goal->mode));
  co_return (*opened)->set_goal(*goal);
}

Result<std::optional<Goal>> Context::stored_goal() {
  const auto* known = TRY(reading());
  return known ? known->goal() : std::optional<Goal>();
}

Result<std::optional<StoredSwitch>> Context::interrupted_switch() {
  const auto* known = TRY(reading());
  return known ? known->unfinished() : std::optional<StoredSwitch>();
}

Result<std::vector<StoredModel>> Context::registered_models() {
  const auto* known = TRY(reading());
  return known ? known->models() : std::vector<StoredModel>();
}

std::set<ServiceId> Context::changed_by_hand() {
  constexpr std::size_t far_enough = 200;
  std::set<ServiceId> changed;
  const auto known = reading();
  if (!known || !*known) return changed;
  for (const auto& past : (*known)->history(far_enough).value_or(std::vector<StoredSwitch>())) {
    const bool reached =
        past.result == to_string(SwitchResult::committed) || past.result == to_string(SwitchResult::unchanged);
    if (!reached) continue;
    if (past.kind == "mode switch") break;
    if (past.goal.exclusive) continue;
    for (const auto& [id, residency] : past.goal.wanted)
      changed.insert(id);
  }
  return changed;
}

void Context::cancel() {
  ending_.set();
  if (running_) running_->cancel();
}

namespace {

std::set<ServiceId> all_services(const Catalog& catalog) {
  std::set<ServiceId> all;
  for (const auto& [id, service] : catalog.services)
    all.insert(id);
  return all;
}

/// A goal from the journal, less what no file defines any more.
Goal known_part(Goal goal, const Catalog& catalog) {
  std::erase_if(goal.wanted, [&](const auto& entry) { return !catalog.services.contains(entry.first); });
  return goal;
}

/// The exit code of a switch that did not get where it was asked to.
Error problem_of(const SwitchOutcome& outcome) {
  Error error = outcome.problem.value_or(Error{ErrorCode::failed, "the switch failed", {}, {}});
  const auto tried = error.code == ErrorCode::environment ? error.code : ErrorCode::failed;
  switch (outcome.result) {
    case SwitchResult::rolled_back:
      error.message += fmt::format("; {}", what_was_restored(!outcome.nothing_before));
      error.code = tried;
      break;
    case SwitchResult::failed: error.code = tried; break;
    case SwitchResult::cancelled:
      error.message = fmt::format("cancelled; {}", what_was_restored(!outcome.nothing_before));
      error.code = ErrorCode::cancelled;
      break;
    default: break;
  }
  json::object details = outcome.to_json();
  if (error.details.is_object())
    for (const auto& member : error.details.as_object())
      details[member.key()] = member.value();
  error.details = std::move(details);
  return error;
}

}  // namespace

namespace {

/// Where the settings cannot be read, which unit manager and what margin are meant is a guess: nothing is changed by it.
Result<void> check_settings(const Catalog& catalog) {
  for (const auto& problem : catalog.problems)
    if (problem.severity == Severity::error && problem.where.file == "gpumod.yaml")
      return fail(ErrorCode::configuration, to_string(problem),
                  "Nothing is started or stopped by guessed settings: mend that file; gpumod config check shows every "
                  "problem.");
  return {};
}

}  // namespace

Task<Result<json::value>> Context::carry_out(Order order) {
  const auto known = catalog();
  if (!known) co_return fail(known.error());
  if (const auto settings = check_settings(**known); !settings) co_return fail(settings.error());
  if (order.dry_run) co_return co_await dry_run(std::move(order));
  const auto opened = store();
  if (!opened) co_return fail(opened.error());
  const auto reached = machine();
  if (!reached) co_return fail(reached.error());

  auto previous = co_await recover_first(order);
  if (!previous) co_return fail(previous.error());
  if (order.merges) {  // only now: a recovery may have changed what is stored
    const auto stored = store_->goal();
    if (!stored) co_return fail(stored.error());
    order.goal.mode = *stored ? (*stored)->mode : "";
    order.goal_after = merged_goal(*stored, order.goal);
  }
  // People have said anew what is to run: nobody has to come back to what was before a run over many switches.
  const bool settles = order.goal.exclusive && !order.comes_home;
  auto outcome = co_await run(std::move(order), std::move(*previous));
  if (!outcome) co_return fail(outcome.error());
  if (outcome->result == SwitchResult::committed || outcome->result == SwitchResult::unchanged) {
    if (settles) forget_home(paths_);
    auto answer = outcome->to_json();
    json::array notes;
    if (!state_problem_.empty()) notes.emplace_back(state_problem_);
    for (const auto& note : outcome->left_alone) {
      notice(note);
      notes.emplace_back(note);
    }
    if (!notes.empty()) answer["notes"] = std::move(notes);
    co_return json::value(std::move(answer));
  }
  co_return fail(problem_of(*outcome));
}

Task<Context::Known> Context::known(std::set<ServiceId> services) {
  Known known;
  const auto files = catalog();
  const auto reached = machine();
  if (!files || !reached) co_return known;
  const std::string driver = (*reached)->gpus ? (*reached)->gpus->driver_version() : "";
  const Catalog& catalogue = **files;
  const std::function<void()> look = [&known, &catalogue, &driver, &services, this] {
    known.keys = footprint_keys(paths_, catalogue, driver);
    add_estimates(paths_, catalogue, services, known.footprints);
  };
  co_await run_blocking(look);  // a model may lie on a network that takes its time
  if (const auto remembering = reading(); remembering && *remembering)
    add_measurements((*remembering)->remembered(known.keys), known.footprints);
  co_return known;
}

Task<SqueezeEvidence> Context::evidence_of_squeeze(const Snapshot& snapshot) {
  constexpr std::size_t far_enough = 50;
  SqueezeEvidence evidence;
  const auto files = catalog();
  if (!files || !may_be_squeezed(snapshot, **files)) co_return evidence;
  std::set<ServiceId> estimates_of_nobody;
  auto all = co_await known(std::move(estimates_of_nobody));
  evidence.known = std::move(all.footprints);
  if (const auto remembering = reading(); remembering && *remembering)
    evidence.tried = last_started_by_repair((*remembering)->history(far_enough).value_or(std::vector<StoredSwitch>()));
  co_return evidence;
}

Task<Result<SwitchOutcome>> Context::run(Order order, std::optional<Goal> previous) {
  Director director(*machine_, *catalog_, *store_, progress_);
  director.set_probing(probing_);
  SwitchOrder what;
  what.kind = order.kind;
  const auto before = store_->goal();
  if (before && *before) what.from = (*before)->mode;
  what.request.goal = std::move(order.goal);
  what.request.previous = std::move(previous);
  what.request.on_failure = order.on_failure;
  std::set<ServiceId> services = all_services(*catalog_);
  auto learned = co_await known(std::move(services));
  what.request.knowledge = knowledge_of(*catalog_, std::move(order.distrusted), std::move(learned.footprints));
  what.footprint_keys = std::move(learned.keys);
  what.goal_after = std::move(order.goal_after);
  if (!order.to_the_end) {
    running_ = &director;
    if (cancelled()) director.cancel();
  }
  auto outcome = co_await director.run(std::move(what));
  running_ = nullptr;
  co_return outcome;
}

/// Deals with a switch that a crash cut off. A mode switch replaces what it wanted, so it only inherits what a rollback
/// would restore; anything else builds on what it should have become, so that is brought about first.
Task<Result<std::optional<Goal>>> Context::recover_first(const Order& order) {
  auto left = store_->unfinished();
  if (!left) co_return fail(left.error());
  if (!*left) co_return std::optional<Goal>();
  const StoredSwitch& interrupted = **left;
  const Recovery recovery = recovery_of(interrupted, catalog_->settings);
  if (recovery.direction == RecoveryDirection::discard) {
    notice(recovery.sentence);
    co_return std::optional<Goal>();
  }
  if (order.goal.exclusive) {
    notice(fmt::format("switch {} was interrupted; this one takes over what it left", interrupted.id));
    const bool blank = recovery.direction == RecoveryDirection::blank;
    Goal previous = known_part(blank ? recovery.goal : interrupted.previous, *catalog_);
    co_return std::optional<Goal>(std::move(previous));
  }
  notice(recovery.sentence);
  Order repair;
  repair.kind = "recovery";
  repair.goal = known_part(recovery.goal, *catalog_);
  if (recovery.direction != RecoveryDirection::back) {
    const auto stored = store_->goal();
    repair.goal_after =
        recovery.goal.exclusive ? recovery.goal : merged_goal(stored.value_or(std::nullopt), recovery.goal);
  }
  std::optional<Goal> previous = known_part(interrupted.previous, *catalog_);
  const auto outcome = co_await run(std::move(repair), std::move(previous));
  if (!outcome) co_return fail(outcome.error());
  const auto why = outcome->problem ? outcome->problem->message : "unknown";
  if (outcome->result == SwitchResult::rolled_back)
    co_return fail(
        ErrorCode::refused,
        fmt::format("switch {} was interrupted and could not be finished now: {}; {}, and what was asked for was "
                    "not begun",
                    interrupted.id, why, what_was_restored(!outcome->nothing_before)),
        "Nothing is left of it: ask again.");
  const bool full = outcome->problem && outcome->problem->code == ErrorCode::environment;
  if (outcome->result != SwitchResult::committed && outcome->result != SwitchResult::unchanged)
    co_return fail(
        full ? ErrorCode::environment : ErrorCode::refused,
        fmt::format("an interrupted switch has to be dealt with first, and could not be: {}", why),
        full && !outcome->problem->hint.empty()
            ? outcome->problem->hint
            : "gpumod status shows what there is; gpumod repair tries again; gpumod mode switch takes over.");
  co_return std::optional<Goal>();
}

Task<Result<json::value>> Context::dry_run(Order order) {
  const auto left = interrupted_switch();
  if (left && *left && !order.goal.exclusive) {
    const auto recovery = recovery_of(**left, catalog_->settings);
    if (recovery.direction != RecoveryDirection::discard) notice(fmt::format("{}, before this", recovery.sentence));
  }
  const auto reached = machine();
  if (!reached) co_return fail(reached.error());
  auto snapshot = co_await observe(**reached, *catalog_);
  if (!snapshot) co_return fail(snapshot.error());
  std::set<ServiceId> services = all_services(*catalog_);
  auto learned = co_await known(std::move(services));
  const auto planned =
      plan(*snapshot, order.goal, knowledge_of(*catalog_, order.distrusted, std::move(learned.footprints)));
  if (!planned) co_return fail(planned.error());
  std::vector<ServiceId> starting;
  for (const auto& step : planned->steps)
    if (allocates(step.action) && !step.service.empty()) starting.push_back(step.service);
  const auto checked = co_await preflight(**reached, *catalog_, std::move(starting));
  if (!checked) co_return fail(checked.error());
  co_return json::value(json::object{{"plan", to_json(*planned)}, {"to", order.goal.mode}});
}

std::string_view what_was_restored(bool something_ran) {
  return something_ran ? "what ran before runs again" : "nothing ran before, and what was begun is stopped again";
}

Knowledge knowledge_of(const Catalog& catalog, std::set<std::string> distrusted, Footprints footprints) {
  Knowledge knowledge{catalog.services, catalog.settings, std::move(distrusted), {}, std::move(footprints)};
  for (const auto& [id, place] : catalog.service_faults)
    knowledge.broken[id] = to_string(place);
  for (auto& [id, service] : knowledge.services)
    if (service.vllm()) service = as_started(std::move(service), additions_of(catalog, catalog.services.at(id)).words);
  return knowledge;
}

Recovery recovery_of(const StoredSwitch& stored, const Settings& settings) {
  const JournaledSwitch journal{
      fmt::format("{}", stored.id), stored.kind,    stored.goal,   stored.previous, stored.mutated,
      !stored.failure.empty(),      stored.failure, stored.boot_id};
  return recover(journal, Boot{boot_id().value_or(""), settings.boot});
}

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

}  // namespace gpumod
