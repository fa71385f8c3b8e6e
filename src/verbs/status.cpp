// What is there, what should be, and how they differ; and bringing the one to the other.

#include <fmt/format.h>

#include "control/observe.h"
#include "fit/ledger.h"
#include "model/json.h"
#include "verbs/describe.h"
#include "verbs/drift.h"
#include "verbs/handlers.h"
#include "verbs/homecoming.h"
#include "verbs/unfinished.h"

namespace gpumod {

namespace json = boost::json;

namespace {

Task<void> look(Machine& machine, const Catalog& catalog, Result<Snapshot>& snapshot) {
  snapshot = co_await observe(machine, catalog);
}

Task<void> read_goal(Context& context, Result<std::optional<Goal>>& goal) {
  co_await wait_for(Duration::zero());  // the questions to the unit manager leave first: it works on them meanwhile
  goal = context.stored_goal();
}

}  // namespace

Answer status(Context& context, Request) {
  // The unit manager gets ready for us while we read files. If it cannot be reached, that is told below, in its turn.
  (void)context.machine();
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto machine = context.machine();
  if (!machine) co_return fail(machine.error());
  Result<std::optional<Goal>> goal;
  Result<Snapshot> snapshot;
  std::vector<Task<void>> both;
  both.push_back(look(**machine, **catalog, snapshot));
  both.push_back(read_goal(context, goal));
  co_await run_all(std::move(both));
  if (!goal) co_return fail(goal.error());
  if (!snapshot) co_return fail(snapshot.error());
  if (!context.state_problem().empty()) goal = goal_of_what_runs(*snapshot, **catalog);

  auto unfinished = find_unfinished(context, *goal, (*catalog)->settings);
  json::array services;
  for (const auto& [id, service] : (*catalog)->services) {
    auto line = describe_declared(service);
    describe_observed(line, service, *snapshot);
    const auto wanted = *goal ? (*goal)->wanted.find(id) : std::map<ServiceId, Residency>::const_iterator();
    const bool in_goal = *goal && wanted != (*goal)->wanted.end();
    line["wanted"] = in_goal ? to_string(wanted->second) : "stopped";
    services.push_back(std::move(line));
  }
  const auto ledgers = ledgers_of(*snapshot, (*catalog)->services, goal_with_change(*goal, unfinished.open));
  json::object answer;
  answer["mode"] = *goal && !(*goal)->mode.empty() ? json::value((*goal)->mode) : json::value(nullptr);
  answer["unit_manager"] = (*machine)->units->kind();
  answer["gpus"] = describe_gpus(*snapshot, ledgers);
  answer["gpu_problem"] = snapshot->gpu_problem ? to_json(*snapshot->gpu_problem) : json::value(nullptr);
  answer["services"] = std::move(services);
  answer["orphans"] = describe_orphans(*snapshot, **catalog);
  const auto evidence = co_await context.evidence_of_squeeze(*snapshot);
  answer["differences"] =
      describe_differences(differences_of(*goal, *snapshot, **catalog, unfinished.interruption, evidence));
  answer["deviations"] = describe_deviations(context, *goal, **catalog);
  answer["switch"] = std::move(unfinished.described);
  answer["problems"] = describe_problems(**catalog);
  answer["notes"] = notes_on_state(context);
  co_return json::value(std::move(answer));
}

/// Brings what is to what the goal says. An interrupted switch is dealt with first, as for every mutation.
Answer repair(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  auto goal = context.stored_goal();
  if (!goal) co_return fail(goal.error());
  Context::Order order;
  order.kind = "repair";
  order.dry_run = flag_of(request, "dry-run");
  const auto machine = context.machine();
  if (!machine) co_return fail(machine.error());
  const auto snapshot = co_await observe(**machine, **catalog);
  if (!snapshot) co_return fail(snapshot.error());
  if (!*goal && !context.state_problem().empty()) goal = goal_of_what_runs(*snapshot, **catalog);
  const auto left = context.interrupted_switch();
  // Where an interrupted switch is to be finished, its goal becomes the stored one; but for one of a run of many, which was
  // to come home.
  if (const auto home = home_of_cut_run(context.paths()))
    order.goal_after = home->goal;
  else if (left && *left)
    order.goal_after = goal_of_repair(*goal, recovery_of(**left, (*catalog)->settings));
  if (order.goal_after) {
    order.goal = *order.goal_after;
  } else if (*goal) {
    order.goal = **goal;
  } else {
    co_return fail(ErrorCode::refused, "there is no goal yet: no mode has been switched to",
                   "gpumod mode switch MODE sets one.");
  }
  order.goal.exclusive = true;
  std::erase_if(order.goal.wanted, [&](const auto& entry) { return !(*catalog)->services.contains(entry.first); });
  const auto evidence = co_await context.evidence_of_squeeze(*snapshot);
  order.distrusted = squeezed_units(order.goal, *snapshot, **catalog, evidence);
  co_return co_await context.carry_out(std::move(order));
}

Answer config_check(Context& context, Request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  json::object answer{{"directory", context.paths().config.string()},
                      {"services", (*catalog)->services.size()},
                      {"modes", (*catalog)->modes.size()},
                      {"problems", describe_problems(**catalog)}};
  if (!(*catalog)->has_errors()) co_return json::value(std::move(answer));
  std::string first;
  std::size_t errors = 0;
  for (const auto& problem : (*catalog)->problems) {
    if (problem.severity != Severity::error) continue;
    if (errors++ == 0) first = to_string(problem);
  }
  Error error{
      ErrorCode::configuration, errors == 1 ? first : fmt::format("{} errors; the first: {}", errors, first), {}, {}};
  error.details = std::move(answer);
  co_return fail(std::move(error));
}

}  // namespace gpumod
