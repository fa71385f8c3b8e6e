#include "verbs/qa_look.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

#include <fmt/format.h>

#include "base/text.h"
#include "control/examine.h"
#include "control/observe.h"
#include "fit/ledger.h"
#include "model/json.h"
#include "model/recording_json.h"
#include "verbs/describe.h"
#include "verbs/qa_values.h"
#include "verbs/qa_wait.h"
#include "verbs/verb.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr std::size_t shown_lines = 12, longest_line = 400;
constexpr std::size_t most_points = 120;

double rounded(double value) {
  return std::round(value * 10000) / 10000;
}

json::object describe_examination(const ServiceId& id, const Examination& seen) {
  json::object figures;
  for (const auto& [name, value] : seen.figures)
    if (std::isfinite(rounded(value))) figures[name] = rounded(value);  // JSON has no other numbers
  return {{"service", id},
          {"kind", to_string(seen.kind)},
          {"passed", seen.problems.empty()},
          {"figures", std::move(figures)},
          {"answer", seen.answer},
          {"reasoning", seen.reasoning},
          {"problems", json::value_from(seen.problems)},
          {"note", text_or_null(seen.note)}};
}

json::array pids_of(const std::vector<GpuProcess>& processes) {
  json::array pids;
  for (const auto& process : processes)
    pids.push_back(process.pid);
  return pids;
}

bool is_wanted(const Goal& goal, const std::vector<const Service*>& members) {
  return std::any_of(members.begin(), members.end(), [&](const Service* service) {
    const auto wanted = goal.wanted.find(service->id);
    return wanted != goal.wanted.end() && wanted->second != Residency::stopped;
  });
}

std::int64_t held_by(const Snapshot& snapshot, const std::string& unit) {
  Bytes held;
  for (const auto& gpu : snapshot.gpus)
    held += held_by_unit(snapshot, unit, gpu).value_or(Bytes());
  return held.count();
}

/// "runaway of chat": the same name whenever it is found, whatever its pid is then.
std::string name_of_escaped(const Snapshot& snapshot, const Holding& holding) {
  const auto pid = holding.processes.empty() ? 0 : holding.processes.front().pid;
  const auto client = snapshot.clients.find(pid);
  const bool seen = client != snapshot.clients.end() && !client->second.command.empty();
  return fmt::format("{} of {}", seen ? client->second.command : "a process", holding.name);
}

/// Units that nothing wants, and what has escaped its unit.
json::array orphans_in(const Snapshot& snapshot, const Catalog& catalog, const Goal& goal,
                       const std::vector<GpuLedger>& ledgers) {
  json::array orphans;
  for (const auto& [name, unit] : snapshot.units) {
    const auto members = catalog.services_of_unit(name);
    if (unit.gone() || is_wanted(goal, members)) continue;
    std::vector<std::string> ids;
    for (const auto* member : members)
      ids.push_back(member->id);
    orphans.push_back(json::object{{"name", ids.empty() ? name : join(ids, ", ")},
                                   {"unit", name},
                                   {"why", ids.empty() ? "undefined" : "unwanted"},
                                   {"bytes", held_by(snapshot, name)},
                                   {"pids", json::value_from(unit.pids)}});
  }
  for (const auto& ledger : ledgers)
    for (const auto& holding : ledger.account.holdings)
      if (holding.kind == Holding::Kind::orphan && holding.unit.empty())
        orphans.push_back(json::object{{"name", name_of_escaped(snapshot, holding)},
                                       {"unit", nullptr},
                                       {"why", to_string(holding.why)},
                                       {"bytes", holding.used.count()},
                                       {"pids", pids_of(holding.processes)}});
  return orphans;
}

json::array foreigners_in(const std::vector<GpuLedger>& ledgers) {
  json::array foreign;
  for (const auto& ledger : ledgers)
    for (const auto& holding : ledger.account.holdings)
      if (holding.kind == Holding::Kind::foreign)
        foreign.push_back(json::object{{"gpu", ledger.index},
                                       {"name", holding.name},
                                       {"user", holding.user},
                                       {"bytes", holding.used.count()},
                                       {"pids", pids_of(holding.processes)}});
  return foreign;
}

/// What the processes of ours hold; null where NVML does not say it of each.
json::value ours_in(const std::vector<GpuLedger>& ledgers) {
  Bytes ours;
  for (const auto& ledger : ledgers) {
    for (const auto& holding : ledger.account.holdings)
      if (holding.kind != Holding::Kind::foreign && !holding.complete) return nullptr;
    ours += ledger.account.managed + ledger.account.orphan;
  }
  return ledgers.empty() ? json::value(nullptr) : json::value(ours.count());
}

struct LogWanted {
  std::string service, unit;
};

/// Of which services the last lines belong into the report: those whose step or probe failed.
std::vector<LogWanted> logs_wanted(const json::value& transition, const Catalog& catalog) {
  std::vector<LogWanted> wanted;
  for (const auto& step : list_at(transition, {"steps"}))
    if (string_at(step, {"result"}) == "failed") {
      const auto service = string_at(step, {"service"}), unit = string_at(step, {"unit"});
      wanted.push_back({service.empty() ? unit : service, unit});
    }
  for (const auto& service : list_at(transition, {"services"})) {
    const auto id = string_at(service, {"service"});
    const auto found = catalog.services.find(id);
    if (!true_at(service, {"passed"}) && found != catalog.services.end())
      wanted.push_back({id, found->second.unit_name()});
  }
  return wanted;
}

Task<json::array> read_logs(Machine& machine, std::vector<LogWanted> wanted) {
  json::array logs;
  for (const auto& one : wanted) {
    std::string unit = one.unit;
    const auto lines = co_await machine.units->log_tail(std::move(unit), "", shown_lines);
    if (!lines || lines->empty()) continue;
    json::array shown;
    for (const auto& line : *lines)
      shown.push_back(json::value(shorten(line.text, longest_line)));
    logs.push_back(json::object{{"service", one.service}, {"unit", one.unit}, {"lines", std::move(shown)}});
  }
  co_return logs;
}

}  // namespace

json::object transition_of(const Result<json::value>& answer, const std::string& from, const std::string& to,
                           Duration took) {
  json::object line{{"switch", nullptr},
                    {"from", from},
                    {"to", to},
                    {"result", answer ? "committed" : to_string(answer.error().code)},
                    {"seconds", std::round(seconds(took) * 1000) / 1000},
                    {"vram", json::object{{"before", nullptr}, {"after", nullptr}, {"peak", nullptr}}},
                    {"steps", json::array()},
                    {"problem", nullptr}};
  const json::value report = answer ? *answer : answer.error().details;
  if (const auto& body = members_at(report, {"switch"}); !body.empty()) {
    line["switch"] = body.contains("id") ? body.at("id") : json::value(nullptr);
    for (const char* key : {"result", "seconds", "vram", "steps"})
      if (const auto* value = body.if_contains(key)) line[key] = *value;
  }
  if (!answer) line["problem"] = json::object{{"message", answer.error().message}, {"hint", answer.error().hint}};
  return line;
}

json::object recorded_of(const Recording& recording) {
  json::array waits, curve;
  for (const auto& wait : recording.waits) {
    const auto step = std::find_if(recording.steps.begin(), recording.steps.end(),
                                   [&](const Recording::Step& each) { return each.step == wait.step; });
    json::array given;
    for (const auto& one : given_back_during(recording, wait))
      given.push_back(to_json(one));
    waits.push_back(json::object{{"subject", step == recording.steps.end() ? "" : step->subject},
                                 {"for", to_string(wait.what)},
                                 {"cause", wait.cause},
                                 {"seconds", rounded(seconds(wait.until - wait.from))},
                                 {"given_back", std::move(given)}});
  }
  for (const auto& gpu : recording.gpus) {
    std::vector<Recording::Point> points;
    std::copy_if(recording.curve.begin(), recording.curve.end(), std::back_inserter(points),
                 [&](const Recording::Point& point) { return point.gpu == gpu.index; });
    for (const auto& point : thinned(std::move(points), most_points))
      curve.push_back(
          json::object{{"at", rounded(seconds(point.at))}, {"gpu", point.gpu}, {"used", bytes_or_null(point.used)}});
  }
  return {{"waits", std::move(waits)}, {"curve", std::move(curve)}};
}

namespace {

/// Nothing of a switch that was not begun, or whose recording was let go.
json::object find_recorded(Context& context, const json::object& transition) {
  const auto id = integer_of(transition, "switch");
  const auto known = context.reading();
  if (!id || !known || !*known) return {};
  const auto text = (*known)->recording(*id);
  std::error_code malformed;
  const auto value = text && *text ? json::parse(**text, malformed) : json::value();
  const auto recording = recording_from_json(value);
  return recording ? recorded_of(*recording) : json::object();
}

}  // namespace

Task<void> look_after(Context& context, json::object& transition) {
  for (const char* key : {"services", "orphans", "foreign", "logs", "waits", "curve"})
    transition[key] = json::array();
  for (auto& [key, value] : find_recorded(context, transition))
    transition[key] = std::move(value);
  const auto catalog = context.catalog();
  const auto machine = context.machine();
  if (!catalog || !machine) co_return;
  const auto stored = context.stored_goal();
  const Goal goal = stored && *stored ? **stored : Goal();
  json::array services;
  for (const auto& [id, residency] : goal.wanted) {
    const auto service = (*catalog)->services.find(id);
    if (residency != Residency::running || service == (*catalog)->services.end() || context.cancelled()) continue;
    if (context.progress()) context.progress()({{"event", "probe"}, {"service", id}});
    const auto seen = co_await examine(**machine, service->second, context.ending());
    if (seen) services.push_back(describe_examination(id, *seen));
  }
  transition["services"] = std::move(services);
  const auto snapshot = co_await observe(**machine, **catalog);
  if (snapshot) {
    const auto ledgers = ledgers_of(*snapshot, (*catalog)->services, goal);
    transition["orphans"] = orphans_in(*snapshot, **catalog, goal, ledgers);
    transition["foreign"] = foreigners_in(ledgers);
    if (auto* vram = transition["vram"].if_object()) (*vram)["ours"] = ours_in(ledgers);
  }
  auto wanted = logs_wanted(transition, **catalog);
  auto logs = co_await read_logs(**machine, std::move(wanted));
  transition["logs"] = std::move(logs);
}

Task<json::object> describe_environment(Context& context) {
  const std::string_view commit = GPUMOD_GIT;
  json::object environment{{"gpumod", fmt::format("{}{}{}", GPUMOD_VERSION, commit.empty() ? "" : ", ", commit)}};
  const auto catalog = context.catalog();
  const auto machine = context.machine();
  if (!catalog || !machine) co_return environment;
  environment["unit_manager"] = (*machine)->units->kind();
  environment["driver"] = (*machine)->gpus ? json::value((*machine)->gpus->driver_version()) : json::value(nullptr);
  environment["gpu_problem"] =
      (*machine)->gpu_problem ? json::value((*machine)->gpu_problem->message) : json::value(nullptr);
  json::array gpus, services;
  if ((*machine)->gpus) {
    const auto sample = co_await (*machine)->gpus->sample();
    for (const auto& gpu : sample.value_or(std::vector<GpuSample>()))
      gpus.push_back(json::object{{"index", gpu.index}, {"name", gpu.name}, {"total", bytes_or_null(gpu.total)}});
  }
  std::set<ServiceId> nothing;
  const auto known = co_await context.known(std::move(nothing));
  for (const auto& [id, service] : (*catalog)->services) {
    const auto key = known.keys.find(id);
    services.push_back(
        json::object{{"id", id},
                     {"engine", to_string(service.engine)},
                     {"port", service.port},
                     {"model", model_name(service)},
                     {"key", key == known.keys.end() ? json::value(nullptr) : json::value(key->second)}});
  }
  environment["gpus"] = std::move(gpus);
  environment["services"] = std::move(services);
  co_return environment;
}

}  // namespace gpumod
