// Quality runs: every switch of a tour is made and looked at, what was seen is kept and compared with the last time.
//
// A run is one mutation under one lock. It goes on after a switch that failed, and whatever happened, it ends where it
// began: also when it is taken back.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/fd.h"
#include "base/text.h"
#include "verbs/handlers.h"
#include "verbs/homecoming.h"
#include "verbs/modes.h"
#include "verbs/qa_archive.h"
#include "verbs/qa_diff.h"
#include "verbs/qa_issues.h"
#include "verbs/qa_look.h"
#include "verbs/qa_report.h"
#include "verbs/qa_tour.h"
#include "verbs/qa_values.h"
#include "verbs/qa_words.h"

namespace gpumod {

namespace json = boost::json;

namespace {

/// Of all its switches: what people changed by hand before it, they still did.
constexpr const char* run_kind = "qa run";
constexpr std::int64_t most_rounds = 100;
constexpr std::size_t most_in_one_answer = 3 << 20;  // of bytes: more does not fit into a message of the worker
constexpr std::size_t most_transitions = 500;

struct Tour {
  std::vector<ModeId> sequence;  ///< one round of it
  std::vector<ModeId> targets;   ///< what to switch to, one after the other
  std::int64_t rounds = 1;
};

/// The mode that the goal is, exactly; "" when it is none, or a mode with changes.
ModeId mode_of(const Goal& goal, const Catalog& catalog) {
  const auto mode = catalog.modes.find(goal.mode);
  return mode != catalog.modes.end() && goal_of(mode->second).wanted == goal.wanted ? goal.mode : ModeId();
}

Result<std::vector<ModeId>> sequence_of(const Request& request, const Catalog& catalog, const ModeId& at) {
  auto modes = list_of(request, "modes");
  for (const auto& mode : modes)
    TRY(catalog.mode(mode));
  if (!modes.empty()) return modes;
  if (request.contains("modes"))
    return fail(ErrorCode::usage, "--modes names no mode", "Without it, every transition between all modes is made.");
  for (const auto& [id, mode] : catalog.modes)
    modes.push_back(id);
  if (modes.empty())
    return fail(ErrorCode::refused, "there is no mode that could be switched to", "gpumod mode create writes one.");
  return every_transition(modes, at.empty() ? modes.front() : at);
}

Result<Tour> tour_of(const Request& request, const Catalog& catalog, const Goal& goal) {
  Tour tour;
  tour.rounds = integer_of(request, "rounds").value_or(1);
  if (tour.rounds < 1 || tour.rounds > most_rounds)
    return fail(ErrorCode::usage, fmt::format("--rounds is {}", tour.rounds),
                fmt::format("It is how often the sequence is gone through: 1 to {}.", most_rounds));
  const auto at = mode_of(goal, catalog);
  tour.sequence = TRY(sequence_of(request, catalog, at));
  tour.targets = targets_of(tour.sequence, at, static_cast<int>(tour.rounds));
  if (tour.targets.size() > most_transitions)
    return fail(ErrorCode::usage,
                fmt::format("that would be {} switches, and {} is the most", tour.targets.size(), most_transitions),
                "Fewer rounds, or some of the modes with --modes.");
  return tour;
}

void tell(Context& context, const char* what, json::object event) {
  event["event"] = what;
  if (context.progress()) context.progress()(std::move(event));
}

Goal stored_goal_of(Context& context) {
  auto stored = context.stored_goal();
  return stored && *stored ? std::move(**stored) : Goal();
}

/// One switch, and the look at what it has brought about.
Task<json::object> go_to(Context& context, Mode mode) {
  const auto from = stored_goal_of(context).mode;
  tell(context, "transition", {{"from", from}, {"to", mode.id}});
  const TimePoint began = now();
  Context::Order order = order_of(mode);
  order.kind = run_kind;
  order.comes_home = true;
  const auto answer = co_await context.carry_out(std::move(order));
  auto transition = transition_of(answer, from, mode.id, now() - began);
  auto looking = look_after(context, transition);
  co_await std::move(looking);
  tell(context, "transition_done",
       {{"from", from},
        {"to", mode.id},
        {"result", result_word(transition)},
        {"seconds", transition.at("seconds")},
        {"notes", json::value_from(notes_on(transition))}});
  co_return transition;
}

bool same(const Goal& a, const Goal& b) {
  return a.mode == b.mode && a.wanted == b.wanted;
}

/// A switch that failed leaves the goal as it was, and perhaps nothing that runs.
bool stands(const json::array& transitions) {
  if (transitions.empty()) return true;
  const auto result = string_at(transitions.back(), {"result"});
  return result == to_string(SwitchResult::committed) || result == to_string(SwitchResult::unchanged);
}

/// Brings back what ran before the run; null when it runs already. `sound`: the goal that is stored was reached.
Task<json::value> restore(Context& context, Goal began_with, bool sound) {
  if (sound && same(stored_goal_of(context), began_with)) co_return json::value();
  Context::Order order;
  order.kind = run_kind;
  order.comes_home = true;
  order.goal = began_with;
  order.goal.exclusive = true;
  if (const auto catalog = context.catalog(); catalog)
    std::erase_if(order.goal.wanted, [&](const auto& entry) { return !(*catalog)->services.contains(entry.first); });
  order.goal_after = order.goal;
  order.to_the_end = true;
  tell(context, "restoring", {{"mode", began_with.mode}});
  const auto answer = co_await context.carry_out(std::move(order));
  co_return json::object{{"mode", began_with.mode},
                         {"problem", answer ? json::value(nullptr) : json::value(answer.error().message)}};
}

std::string verdict_on(const json::value& run, bool cancelled) {
  const auto& transitions = list_at(run, {"transitions"});
  const bool good = std::all_of(transitions.begin(), transitions.end(), passed);
  const bool restored = string_at(run, {"restored", "problem"}).empty();
  return cancelled ? "cancelled" : good && restored ? "passed" : "failed";
}

/// How the command ends: with the run as the answer, or as the details of an error.
Answer conclude_run(json::value run, std::optional<Error> unwritten, bool regressions_count) {
  const auto result = string_at(run, {"result"});
  const auto worse = list_at(run, {"compared", "regressions"}).size();
  const auto id = integer_at(run, {"id"});
  const auto hint = id ? fmt::format("gpumod qa show {} shows it again.", *id) : std::string();
  std::optional<Error> error;
  if (result == "cancelled")
    error = Error{ErrorCode::cancelled, "the run was stopped before its end", hint, {}};
  else if (const auto problem = string_at(run, {"restored", "problem"}); !problem.empty())
    error = Error{ErrorCode::failed,
                  "what ran before could not be restored: " + problem,
                  "gpumod status shows how things are.",
                  {}};
  else if (result == "failed")
    error = Error{ErrorCode::failed, "the quality run failed: " + summary_words(run), hint, {}};
  else if (regressions_count && worse > 0)
    error = Error{ErrorCode::failed,
                  fmt::format("{} since run {}", counted(worse, "regression"),
                              integer_at(run, {"compared", "before"}).value_or(0)),
                  hint,
                  {}};
  if (unwritten && error)
    error->message += "; and not everything of it could be kept: " + unwritten->message;
  else if (unwritten)
    error = std::move(unwritten);
  if (!error) co_return json::value(json::object{{"qa", std::move(run)}});
  error->details = json::object{{"qa", std::move(run)}};
  co_return fail(std::move(*error));
}

json::object brief(const json::value& run) {
  const auto& transitions = list_at(run, {"transitions"});
  const auto good = std::count_if(transitions.begin(), transitions.end(), passed);
  json::object line;
  for (const char* key : {"id", "began", "seconds", "result", "sequence", "rounds"})
    line[key] = find(run, {key}) ? *find(run, {key}) : json::value();
  line["transitions"] = transitions.size();
  line["passed"] = good;
  line["issues"] = list_at(run, {"issues"}).size();
  line["regressions"] = list_at(run, {"compared", "regressions"}).size();
  return line;
}

}  // namespace

Answer qa_run(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto stored = context.stored_goal();
  if (!stored) co_return fail(stored.error());
  const Goal began_with = stored->value_or(Goal());
  const auto tour = tour_of(request, **catalog, began_with);
  if (!tour) co_return fail(tour.error());
  if (!request.contains("modes"))
    for (const auto& mode : (*catalog)->broken_modes)
      context.notice(fmt::format("mode '{}' is left out: its file has errors (gpumod config check)", mode));
  if (flag_of(request, "dry-run"))
    co_return json::value(json::object{{"tour", json::object{{"from", mode_of(began_with, **catalog)},
                                                             {"sequence", json::value_from(tour->sequence)},
                                                             {"rounds", tour->rounds},
                                                             {"targets", json::value_from(tour->targets)}}}});
  const auto machine = context.machine();
  if (!machine) co_return fail(machine.error());
  const std::filesystem::path reports = text_of(request, "report");
  // Whether it can be written is better known before an hour of work than after it.
  if (!reports.empty())
    if (const auto made = make_directories(reports, 0700); !made) co_return fail(made.error());

  const TimePoint began = now();
  json::object run{{"id", nullptr},
                   {"began", format_wall(wall_now())},
                   {"seconds", nullptr},
                   {"result", nullptr},
                   {"sequence", json::value_from(tour->sequence)},
                   {"rounds", tour->rounds}};
  auto environment = co_await describe_environment(context);
  run["environment"] = std::move(environment);
  if (const auto kept = remember_home(context.paths(), {run_kind, began_with}); !kept) co_return fail(kept.error());
  json::array transitions;
  for (std::size_t i = 0; i < tour->targets.size() && !context.cancelled(); ++i) {
    const auto mode = (*catalog)->modes.find(tour->targets[i]);
    Mode target = mode->second;
    auto transition = co_await go_to(context, std::move(target));
    const auto meant = i > 0 ? tour->targets[i - 1] : mode_of(began_with, **catalog);
    if (const auto from = text_of(transition, "from"); i > 0 && from != meant)
      transition["note"] = fmt::format("it was to begin in {}, which was not reached", meant);
    transitions.push_back(std::move(transition));
  }
  const bool cancelled = context.cancelled();
  const bool sound = stands(transitions);
  run["transitions"] = std::move(transitions);
  Goal wanted = began_with;
  auto restored = co_await restore(context, std::move(wanted), sound);
  run["restored"] = std::move(restored);
  if (string_at(run, {"restored", "problem"}).empty()) forget_home(context.paths());
  run["seconds"] = std::round(seconds(now() - began) * 1000) / 1000;
  run["result"] = verdict_on(run, cancelled);
  finish_run(run);
  const auto last = last_of_sequence(context.paths(), run.at("sequence").as_array());
  run["compared"] = last ? json::value(compare_runs(*last, run)) : json::value(nullptr);

  std::optional<Error> unwritten;
  const auto kept = keep_run(context.paths(), run);
  if (!kept) unwritten = kept.error();
  if (auto* compared = run["compared"].if_object()) (*compared)["after"] = run["id"];
  if (!reports.empty()) {
    const auto written = write_reports(reports, kept ? fmt::format("qa-{}", *kept) : "qa", run);
    if (!written) unwritten = written.error();
    json::array files;
    for (const auto& file : written.value_or(std::vector<std::filesystem::path>()))
      files.push_back(json::value(file.string()));
    run["reports"] = std::move(files);
  }
  for (auto& transition : run.at("transitions").as_array())
    transition.as_object().erase("curve");  // long, and for reports
  if (json::serialize(run).size() > most_in_one_answer)
    for (auto& transition : run.at("transitions").as_array())
      transition.as_object().erase("logs");
  json::value whole(std::move(run));
  auto concluding = conclude_run(std::move(whole), std::move(unwritten), flag_of(request, "fail-on-regression"));
  auto answer = co_await std::move(concluding);
  co_return answer;
}

Answer qa_list(Context& context, Request request) {
  const auto limit = integer_of(request, "limit").value_or(20);
  if (limit < 1) co_return fail(ErrorCode::usage, fmt::format("--limit is {}", limit), "It is at least 1.");
  json::array runs;
  for (const auto id : kept_runs(context.paths())) {
    if (static_cast<std::int64_t>(runs.size()) == limit) break;
    if (const auto run = load_run(context.paths(), std::to_string(id))) runs.push_back(brief(*run));
  }
  co_return json::value(json::object{{"runs", std::move(runs)}});
}

Answer qa_show(Context& context, Request request) {
  auto run = load_run(context.paths(), text_of(request, "run"));
  if (!run) co_return fail(run.error());
  if (const auto reports = text_of(request, "report"); !reports.empty()) {
    const auto id = integer_at(*run, {"id"});
    const auto written = write_reports(reports, id ? fmt::format("qa-{}", *id) : "qa", *run);
    if (!written) co_return fail(written.error());
    json::array files;
    for (const auto& file : *written)
      files.push_back(json::value(file.string()));
    if (auto* object = run->if_object()) (*object)["reports"] = std::move(files);
  }
  co_return json::value(json::object{{"qa", std::move(*run)}});
}

Answer qa_diff(Context& context, Request request) {
  const auto before = load_run(context.paths(), text_of(request, "before"));
  if (!before) co_return fail(before.error());
  const auto after = load_run(context.paths(), text_of(request, "after"));
  if (!after) co_return fail(after.error());
  auto found = compare_runs(*before, *after);
  const auto worse = found.at("regressions").as_array().size();
  json::object answer{{"diff", std::move(found)}};
  if (worse == 0 || !flag_of(request, "fail-on-regression")) co_return json::value(std::move(answer));
  Error error{ErrorCode::failed, counted(worse, "regression"), {}, {}};
  error.details = std::move(answer);
  co_return fail(std::move(error));
}

}  // namespace gpumod
