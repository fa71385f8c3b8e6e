// What switches were like: the list of them, and one of them over its time.

#include <algorithm>
#include <charconv>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/fd.h"
#include "base/text.h"
#include "control/lock.h"
#include "model/json.h"
#include "model/recording_json.h"
#include "verbs/handlers.h"
#include "verbs/recording_words.h"
#include "verbs/trace.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr std::int64_t usual_limit = 20, far_enough = 1000;

/// "mode switch code", "service start embedding": as it was asked for.
std::string what_of(const StoredSwitch& stored) {
  const bool to_a_mode = stored.kind == "mode switch" || stored.kind == "bench switch" || stored.kind == "qa run";
  if (to_a_mode && !stored.goal.mode.empty()) return fmt::format("{} {}", stored.kind, stored.goal.mode);
  if (stored.goal.exclusive) return stored.kind;
  std::vector<std::string> services;
  for (const auto& [id, residency] : stored.goal.wanted)
    services.push_back(id);
  return fmt::format("{} {}", stored.kind, join(services, " + "));
}

/// One of the many switches of a bench or a quality run.
bool is_of_a_run(const StoredSwitch& stored) {
  return stored.kind == "bench switch" || stored.kind == "qa run";
}

/// An open row that is older than the holder of the lock is of a switch that was cut off before.
bool is_under_way(const StoredSwitch& stored, const std::optional<MutationHolder>& holder) {
  return !stored.ended && holder && stored.began >= holder->since;
}

std::string result_of(const StoredSwitch& stored, const std::optional<MutationHolder>& holder) {
  if (stored.ended) return stored.result;
  return is_under_way(stored, holder) ? "running" : "interrupted";
}

/// The body of the stored answer.
json::value report_of(const StoredSwitch& stored) {
  std::error_code malformed;
  auto report = json::parse(stored.report.empty() ? "null" : stored.report, malformed);
  if (malformed || !report.is_object()) return nullptr;
  const auto* body = report.get_object().if_contains("switch");
  return body ? *body : json::value(nullptr);
}

std::string cause_of(const StoredSwitch& stored) {
  if (!stored.failure.empty()) return stored.failure;
  const auto report = report_of(stored);
  const auto* body = report.if_object();
  const auto* problem = body ? body->if_contains("problem") : nullptr;
  return problem && problem->is_object() ? text_of(problem->get_object(), "message") : std::string();
}

Duration length_of(const StoredSwitch& stored) {
  return std::max<Duration>(Duration{}, stored.ended.value_or(wall_now()) - stored.began);
}

json::value stored_json(const std::optional<std::string>& text) {
  std::error_code malformed;
  auto value = text ? json::parse(*text, malformed) : json::value();
  return malformed || !value.is_object() ? json::value() : value;
}

json::object line_of(const StoredSwitch& stored, const Store& store, bool recorded,
                     const std::optional<MutationHolder>& holder) {
  const auto result = result_of(stored, holder);
  const auto recording = recorded ? stored_json(store.recording(stored.id).value_or(std::nullopt)) : json::value();
  json::value seconds, predicted;
  if (result != "interrupted") seconds = std::chrono::round<std::chrono::milliseconds>(length_of(stored)).count() / 1e3;
  if (const auto* body = recording.if_object()) {
    if (const auto* precise = body->if_contains("seconds")) seconds = *precise;
    if (const auto* foreseen = body->if_contains("predicted_seconds")) predicted = *foreseen;
  }
  return {{"id", stored.id},
          {"what", what_of(stored)},
          {"kind", stored.kind},
          {"from", text_or_null(stored.from)},
          {"to", text_or_null(stored.goal.mode)},
          {"began", format_wall(stored.began)},
          {"seconds", std::move(seconds)},
          {"predicted_seconds", std::move(predicted)},
          {"result", result},
          {"cause", text_or_null(cause_of(stored))},
          {"recorded", recording.is_object()}};
}

std::optional<Action> action_of(const std::string& command) {
  if (command == to_string(Command::Kind::start_unit)) return Action::start;
  if (command == to_string(Command::Kind::stop_unit)) return Action::stop;
  if (command == to_string(Command::Kind::load_model)) return Action::load;
  if (command == to_string(Command::Kind::unload_model)) return Action::unload;
  if (command == to_string(Command::Kind::sleep_service)) return Action::sleep;
  if (command == to_string(Command::Kind::wake_service)) return Action::wake;
  return std::nullopt;
}

/// What the journal tells: which commands were issued, and when.
Recording from_journal(const StoredSwitch& stored, const std::vector<StoredCommand>& commands) {
  Recording recording;
  recording.id = stored.id;
  recording.kind = stored.kind;
  recording.from = stored.from;
  recording.to = stored.goal.mode;
  recording.began = stored.began;
  recording.partial = true;
  recording.took = stored.ended ? length_of(stored) : Duration{};
  if (const auto cause = cause_of(stored); !cause.empty()) recording.failure = Recording::Failure{cause, "", {}};
  for (const auto& command : commands) {
    const auto action = action_of(command.command);
    const Duration at = std::max<Duration>(Duration{}, command.issued - stored.began);
    recording.took = std::max(recording.took, at);
    const auto known = std::find_if(recording.steps.begin(), recording.steps.end(),
                                    [&](const auto& step) { return step.step == command.step; });
    if (known != recording.steps.end()) {
      known->attempts = std::max(known->attempts, command.attempt);
      continue;
    }
    if (!action || command.step < 0) continue;
    Recording::Step step;
    step.step = command.step;
    step.action = *action;
    step.subject = command.service.empty() ? command.unit : command.service;
    step.service = command.service;
    step.unit = command.unit;
    step.result = "unknown";
    step.attempts = command.attempt;
    step.began = at;
    recording.steps.push_back(std::move(step));
  }
  return recording;
}

/// Of a switch that has ended, its answer is stored: what it says of the steps is known.
void add_report(Recording& recording, const json::value& report) {
  const auto* body = report.if_object();
  const auto* lines = body ? body->if_contains("steps") : nullptr;
  if (!lines || !lines->is_array()) return;
  for (const auto& line : lines->get_array()) {
    if (!line.is_object()) continue;
    const auto& said = line.get_object();
    for (auto& step : recording.steps) {
      if (integer_of(said, "step") != step.step) continue;
      step.result = text_of(said, "result");
      step.note = text_of(said, "note");
      step.undo = flag_of(said, "undo");
      if (const auto* took = said.if_contains("seconds"); took && took->is_number() && step.began)
        step.ended =
            *step.began + std::chrono::round<Duration>(std::chrono::duration<double>(took->to_number<double>()));
    }
  }
}

/// Why there is only a part of it.
std::string why_partial(const std::string& result) {
  if (result == "running")
    return "It is under way: what has been ordered so far is shown. The rest comes when it ends.";
  if (result == "interrupted")
    return "It was cut off: its worker ended before it could write down how it went. What was ordered until then is "
           "shown.";
  return "There is no recording of it: it was let go (the newest 200 are kept, as long as they take no more than 8 "
         "MiB), "
         "or its worker ended before it was written. What its answer and the journal say is shown.";
}

/// The switch that people mean: a number, or "last".
Result<StoredSwitch> find(const Store* store, const std::string& name) {
  const auto nothing_yet = [] {
    return fail(ErrorCode::not_found, "no switch was made yet, so there is nothing to show",
                "gpumod mode switch MODE makes one.");
  };
  if (!store) return nothing_yet();
  if (name.empty() || name == "last") {
    auto newest = TRY(store->history(1));
    if (newest.empty()) return nothing_yet();
    return std::move(newest.front());
  }
  std::int64_t id = 0;
  const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), id);
  if (problem != std::errc() || end != name.data() + name.size())
    return fail(ErrorCode::usage, fmt::format("'{}' is not the number of a switch", printable(name)),
                "gpumod history lists them; 'last' is the newest.");
  auto found = TRY(store->switch_of(id));
  if (!found) return fail(ErrorCode::not_found, fmt::format("there is no switch {}", id), "gpumod history lists them.");
  return std::move(*found);
}

std::string counted_switches(std::size_t amount) {
  return amount == 1 ? "1 switch" : fmt::format("{} switches", amount);
}

/// Leaves the newest `limit` that somebody asked for by name. How many of runs were newer than the last of these.
std::size_t leave_out_runs(std::vector<StoredSwitch>& rows, std::int64_t limit) {
  std::vector<StoredSwitch> kept;
  std::size_t left_out = 0;
  for (auto& row : rows) {
    if (static_cast<std::int64_t>(kept.size()) == limit) break;
    if (is_of_a_run(row))
      ++left_out;
    else
      kept.push_back(std::move(row));
  }
  rows = std::move(kept);
  return left_out;
}

}  // namespace

Answer history(Context& context, Request request) {
  const auto limit = integer_of(request, "limit").value_or(usual_limit);
  if (limit < 1)
    co_return fail(ErrorCode::usage, fmt::format("--limit {} would list nothing", limit), "It is at least 1.");
  const auto store = context.reading();
  if (!store) co_return fail(store.error());
  json::array lines, notes;
  if (!context.state_problem().empty()) notes.emplace_back(context.state_problem());
  if (*store) {
    const bool all = flag_of(request, "all");
    auto rows = (*store)->history(static_cast<std::size_t>(all ? limit : std::max(limit, far_enough)));
    if (!rows) co_return fail(rows.error());
    const auto newest = rows->empty() ? std::optional<WallTime>() : rows->front().began;
    if (const auto left_out = all ? 0 : leave_out_runs(*rows, limit); left_out > 0)
      notes.emplace_back(fmt::format("{} of benches and quality runs {} left out: --all shows {}",
                                     counted_switches(left_out), left_out == 1 ? "is" : "are",
                                     left_out == 1 ? "it" : "them"));
    const auto recorded = (*store)->recorded();
    if (!recorded) co_return fail(recorded.error());
    const auto holder = mutation_holder(context.paths());
    for (const auto& row : *rows)
      lines.push_back(line_of(row, **store, recorded->contains(row.id), holder));
    if (holder && (!newest || *newest < holder->since))
      notes.emplace_back(fmt::format("'{}' is under way, and has not changed anything yet", holder->about));
  }
  co_return json::value(json::object{{"switches", std::move(lines)}, {"notes", std::move(notes)}});
}

Answer history_show(Context& context, Request request) {
  const auto store = context.reading();
  if (!store) co_return fail(store.error());
  const auto stored = find(*store, text_of(request, "switch"));
  if (!stored) co_return fail(stored.error());
  const auto text = (*store)->recording(stored->id);
  if (!text) co_return fail(text.error());
  const auto whole = stored_json(*text);
  auto read = recording_from_json(whole);
  const auto result = result_of(*stored, mutation_holder(context.paths()));
  if (!read) {
    const auto commands = (*store)->commands_of(stored->id);
    if (!commands) co_return fail(commands.error());
    read = from_journal(*stored, *commands);
    add_report(*read, report_of(*stored));
    if (result == "running") read->took = length_of(*stored);
  }
  json::object shown = to_json(*read);
  shown["result"] = result;
  shown["what"] = what_of(*stored);
  json::object answer{{"recording", std::move(shown)},
                      {"summary", json::value_from(why_so_long(*read))},
                      {"note", read->partial ? json::value(why_partial(result)) : json::value(nullptr)}};
  if (const auto file = text_of(request, "trace"); !file.empty()) {
    const auto written = write_file_atomically(file, json::serialize(trace_of(*read)) + "\n", 0600);
    if (!written) co_return fail(written.error());
    answer["trace"] = file;
  }
  co_return json::value(std::move(answer));
}

}  // namespace gpumod
