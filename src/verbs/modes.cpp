// Modes: what people named together, which one is the goal, and switching between them.

#include "verbs/modes.h"

#include <algorithm>

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "control/observe.h"
#include "verbs/describe.h"
#include "verbs/door.h"
#include "verbs/drift.h"
#include "verbs/handlers.h"
#include "verbs/unfinished.h"

namespace gpumod {

namespace json = boost::json;
namespace fs = std::filesystem;

namespace {

json::object describe_mode(const Mode& mode, const std::optional<Goal>& goal) {
  return {{"id", mode.id},
          {"name", mode.name},
          {"description", mode.description},
          {"services", json::value_from(mode.services)},
          {"optional", json::value_from(mode.optional)},
          {"on_failure", to_string(mode.on_failure)},
          {"source", to_string(mode.source)},
          {"active", goal && goal->mode == mode.id}};
}

/// Where nothing is under way, people may mean a switch that was cut off.
Error nothing_to_cancel(Context& context, Error error) {
  if (error.code != ErrorCode::not_found) return error;
  const auto left = context.interrupted_switch();
  if (!left || !*left) return error;
  auto words = in_words(**left, recovery_of(**left, load_settings(context.paths())));
  error.message = "nothing is under way, so there is nothing to cancel; but " + words.text;
  error.hint = std::move(words.hint);
  return error;
}

}  // namespace

Goal goal_of(const Mode& mode) {
  Goal goal;
  goal.mode = mode.id;
  for (const auto& id : mode.services)
    goal.wanted[id] = Residency::running;
  return goal;
}

Context::Order order_of(const Mode& mode) {
  Context::Order order;
  order.kind = "mode switch";
  order.goal = goal_of(mode);
  order.goal_after = order.goal;
  order.on_failure = mode.on_failure;
  return order;
}

Answer mode_list(Context& context, Request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto goal = context.stored_goal();
  if (!goal) co_return fail(goal.error());
  json::array modes;
  for (const auto& [id, mode] : (*catalog)->modes)
    modes.push_back(describe_mode(mode, *goal));
  co_return json::value(json::object{{"modes", std::move(modes)}, {"problems", describe_problems(**catalog)}});
}

Answer mode_show(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto mode = (*catalog)->mode(text_of(request, "mode"));
  if (!mode) co_return fail(mode.error());
  const auto goal = context.stored_goal();
  if (!goal) co_return fail(goal.error());
  json::array services;
  for (const auto& id : (*mode)->services)
    if (const auto service = (*catalog)->service(id)) services.push_back(describe_declared(**service));
  auto line = describe_mode(**mode, *goal);
  line["members"] = std::move(services);
  co_return json::value(json::object{{"mode", std::move(line)}});
}

Answer mode_status(Context& context, Request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto machine = context.machine();
  if (!machine) co_return fail(machine.error());
  auto goal = context.stored_goal();
  if (!goal) co_return fail(goal.error());
  const auto snapshot = co_await observe(**machine, **catalog);
  if (!snapshot) co_return fail(snapshot.error());
  if (!context.state_problem().empty()) goal = goal_of_what_runs(*snapshot, **catalog);
  json::array services;
  if (*goal)
    for (const auto& [id, residency] : (*goal)->wanted) {
      json::object line{{"id", id}, {"wanted", to_string(residency)}, {"state", "unknown"}, {"detail", ""}};
      if (const auto view = snapshot->services.find(id); view != snapshot->services.end()) {
        line["state"] = to_string(view->second.residency);
        line["detail"] = view->second.detail;
      }
      services.push_back(std::move(line));
    }
  auto unfinished = find_unfinished(context, *goal, (*catalog)->settings);
  const auto evidence = co_await context.evidence_of_squeeze(*snapshot);
  auto differences =
      describe_differences(differences_of(*goal, *snapshot, **catalog, unfinished.interruption, evidence));
  auto orphans = describe_orphans(*snapshot, **catalog);
  const auto notes = notes_on_state(context);
  const bool in_order =
      *goal && differences.empty() && orphans.empty() && unfinished.described.is_null() && notes.empty();
  co_return json::value(
      json::object{{"mode", *goal && !(*goal)->mode.empty() ? json::value((*goal)->mode) : json::value(nullptr)},
                   {"in_order", in_order},
                   {"services", std::move(services)},
                   {"differences", std::move(differences)},
                   {"orphans", std::move(orphans)},
                   {"deviations", describe_deviations(context, *goal, **catalog)},
                   {"switch", std::move(unfinished.described)},
                   {"notes", notes}});
}

Answer mode_switch(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto mode = (*catalog)->mode(text_of(request, "mode"));
  if (!mode) co_return fail(mode.error());
  Context::Order order = order_of(**mode);
  order.dry_run = flag_of(request, "dry-run");
  co_return co_await context.carry_out(std::move(order));
}

/// It has succeeded when what was there before runs again, whoever asked for that first: us, somebody else, or a step
/// that failed by itself.
Answer mode_cancel(Context& context, Request request) {
  const auto pid = integer_of(request, "pid");
  if (pid && (*pid < 1 || *pid > std::numeric_limits<pid_t>::max()))
    co_return fail(ErrorCode::usage, fmt::format("no process has the number {}", *pid));
  auto knocked =
      co_await knock_and_cancel(context.paths(), pid ? std::optional(static_cast<pid_t>(*pid)) : std::nullopt);
  if (!knocked) co_return fail(nothing_to_cancel(context, std::move(knocked).error()));
  const auto& outcome = knocked->outcome;
  json::value report;
  if (const auto* details = outcome ? outcome->if_object() : outcome.error().details.if_object())
    if (const auto* found = details->if_contains("switch")) report = *found;
  std::string result;
  if (const auto* body = report.if_object()) result = text_of(*body, "result");
  json::object answer{{"cancelled", json::object{{"verb", knocked->working}, {"pid", knocked->pid}}}};
  if (!report.is_null()) answer["switch"] = report;
  const bool undone = !outcome && (outcome.error().code == ErrorCode::cancelled || result == "rolled_back");
  if (undone) co_return json::value(std::move(answer));
  if (!outcome) co_return fail(outcome.error());
  Error late{ErrorCode::failed,
             fmt::format("'{}' was done before it could be taken back", knocked->working),
             "gpumod status shows how things are.",
             {}};
  answer.erase("cancelled");
  late.details = std::move(answer);
  co_return fail(std::move(late));
}

Answer mode_create(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  Mode mode;
  mode.id = text_of(request, "mode");
  mode.name = text_of(request, "name").empty() ? mode.id : text_of(request, "name");
  mode.description = text_of(request, "description");
  mode.services = list_of(request, "services");
  if (!is_valid_id(mode.id))
    co_return fail(ErrorCode::usage, fmt::format("'{}' cannot be the id of a mode", printable(mode.id)),
                   "Small letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 64.");
  if (const auto exists = (*catalog)->modes.find(mode.id); exists != (*catalog)->modes.end())
    co_return fail(ErrorCode::refused,
                   fmt::format("mode '{}' exists already ({})", mode.id, to_string(exists->second.source)),
                   fmt::format("gpumod mode edit {} changes it.", mode.id));
  for (const auto& id : mode.services)
    if (const auto service = (*catalog)->service(id); !service) co_return fail(service.error());
  const auto text = new_mode_text(mode);
  const auto file_name = mode.id + ".yaml";
  for (const auto& problem : check_mode_text(**catalog, file_name, text))
    if (problem.severity == Severity::error) co_return fail(ErrorCode::refused, problem.message, problem.hint);
  const auto directory = context.paths().config / "modes";
  const auto path = directory / file_name;
  if (std::error_code ignored; fs::exists(fs::symlink_status(path, ignored)))
    co_return fail(ErrorCode::refused, fmt::format("{} exists already", path.string()),
                   "It has errors? gpumod config check says which.");
  if (const auto made = make_directories(directory, 0700); !made) co_return fail(made.error());
  if (const auto written = write_file_atomically(path, text, 0600); !written) co_return fail(written.error());
  co_return json::value(json::object{{"created", json::object{{"mode", mode.id}, {"file", path.string()}}}});
}

/// Swaps in a text that somebody edited, if it is valid; faces run the editor on a copy.
/// Without `text` it answers where the file is and what it holds.
Answer mode_edit(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto id = text_of(request, "mode");
  fs::path path;
  std::string file_name;
  if (const auto mode = (*catalog)->mode(id)) {
    path = path_of(context.paths(), (*mode)->source);
    file_name = path.filename();
  } else if ((*catalog)->broken_modes.contains(id)) {  // that is when people need to edit it
    file_name = id + ".yaml";
    path = context.paths().config / "modes" / file_name;
  } else {
    co_return fail(mode.error());
  }
  if (!request.contains("text")) {
    const auto text = read_file(path, 1 << 20);
    if (!text) co_return fail(text.error());
    co_return json::value(json::object{{"file", path.string()}, {"text", *text}});
  }
  const auto text = text_of(request, "text");
  json::array problems;
  std::string first, hint;
  for (const auto& problem : check_mode_text(**catalog, file_name, text)) {
    problems.push_back(json::value(to_string(problem)));
    if (problem.severity == Severity::error && first.empty()) first = to_string(problem), hint = problem.hint;
  }
  if (!first.empty()) {
    Error error{ErrorCode::configuration, first, "The file was left as it was.", {}};
    error.details = json::object{{"problems", std::move(problems)}};
    co_return fail(std::move(error));
  }
  if (const auto written = write_file_atomically(path, text, 0600); !written) co_return fail(written.error());
  co_return json::value(json::object{{"edited", json::object{{"mode", id}, {"file", path.string()}}}});
}

Answer mode_remove(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto mode = (*catalog)->mode(text_of(request, "mode"));
  if (!mode) co_return fail(mode.error());
  const auto goal = context.stored_goal();
  if (!goal) co_return fail(goal.error());
  if (*goal && (*goal)->mode == (*mode)->id)
    co_return fail(ErrorCode::refused, fmt::format("mode '{}' is the one that runs", (*mode)->id),
                   "Switch to another mode first.");
  const auto path = path_of(context.paths(), (*mode)->source);
  std::error_code problem;
  if (!fs::remove(path, problem) || problem)
    co_return fail(ErrorCode::failed, fmt::format("{} could not be removed: {}", path.string(), problem.message()));
  co_return json::value(json::object{{"removed", json::object{{"mode", (*mode)->id}, {"file", path.string()}}}});
}

}  // namespace gpumod
