// Single services: what they are, how they are, and changing one without touching the others.

#include <fmt/format.h>

#include "base/text.h"
#include "control/additions.h"
#include "control/launched.h"
#include "control/observe.h"
#include "fit/claim.h"
#include "fit/vllm_flags.h"
#include "verbs/describe.h"
#include "verbs/drift.h"
#include "verbs/handlers.h"
#include "verbs/memory.h"

namespace gpumod {

namespace json = boost::json;

namespace {

/// Redacted, but named: people must see that a variable is set without seeing its value.
json::object describe_environment(const Service& service) {
  json::object variables;
  for (const auto& [name, value] : service.environment)
    variables[name] = redacted();
  return variables;
}

Task<std::vector<GpuSample>> sample_of(Machine& machine) {
  const auto gpus = co_await machine.gpus->sample();
  co_return placeable(gpus.value_or(std::vector<GpuSample>()));
}

/// To be stopped, what runs needs no file.
Task<bool> can_be_stopped_without_its_file(Context& context, const Catalog& catalog, ServiceId id) {
  if (!catalog.broken_services.contains(id)) co_return false;
  const auto machine = context.machine();
  if (!machine) co_return false;
  const auto snapshot = co_await observe(**machine, catalog);
  if (!snapshot) co_return false;
  co_return std::any_of(snapshot->units.begin(), snapshot->units.end(), [&](const auto& entry) {
    return entry.second.tag == id && runs_without_its_file(entry.second, catalog);
  });
}

/// One service to another residency; everything else stays as it is.
Answer change_one(Context& context, Request request, std::string kind, Residency target, bool restart = false) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto found = (*catalog)->service(text_of(request, "service"));
  Service service;
  if (found) {
    service = **found;
  } else {
    service.id = text_of(request, "service");
    ServiceId asked = service.id;
    if (target != Residency::stopped) co_return fail(found.error());
    const bool runs = co_await can_be_stopped_without_its_file(context, **catalog, std::move(asked));
    if (!runs) co_return fail(found.error());
  }
  const auto goal = context.stored_goal();
  if (!goal) co_return fail(goal.error());
  Context::Order order;
  order.kind = std::move(kind);
  order.goal.exclusive = false;
  order.goal.wanted[service.id] = target;
  order.merges = true;
  order.dry_run = flag_of(request, "dry-run");
  if (restart) order.distrusted.insert(service.unit_name());
  const bool was_wanted = *goal && (*goal)->wanted.contains(service.id);
  auto answer = co_await context.carry_out(std::move(order));
  if (answer && *goal && !(*goal)->mode.empty() && !flag_of(request, "dry-run")) {
    if (target == Residency::stopped && was_wanted)
      context.notice(
          fmt::format("mode '{}' goes on without '{}' until the next mode switch", (*goal)->mode, service.id));
    if (target == Residency::running && !was_wanted)
      context.notice(
          fmt::format("'{}' runs in addition to mode '{}' until the next mode switch", service.id, (*goal)->mode));
  }
  co_return answer;
}

}  // namespace

Answer service_list(Context& context, Request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto machine = context.machine();
  if (!machine) co_return fail(machine.error());
  const auto snapshot = co_await observe(**machine, **catalog);
  if (!snapshot) co_return fail(snapshot.error());
  json::array services;
  for (const auto& [id, service] : (*catalog)->services) {
    auto line = describe_declared(service);
    describe_observed(line, service, *snapshot);
    services.push_back(std::move(line));
  }
  co_return json::value(json::object{{"services", std::move(services)}, {"problems", describe_problems(**catalog)}});
}

Answer service_show(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto found = (*catalog)->service(text_of(request, "service"));
  if (!found) co_return fail(found.error());
  const Service& service = **found;
  auto line = describe_declared(service);
  line["host"] = service.host;
  line["model"] = json::object{
      {"id", service.model.id}, {"path", service.model.path.string()}, {"served_name", service.model.served_name}};
  line["health"] = service.health_path;
  line["probe"] = to_string(service.probe.kind);
  line["startup_timeout"] = seconds(service.startup_timeout);
  line["stop_timeout"] = seconds(service.stop_timeout);
  line["gpu"] = service.gpu.any() ? json::value("auto") : json::value_from(service.gpu.devices);
  line["extra_args"] = json::value_from(service.extra_args);
  line["environment"] = describe_environment(service);
  json::array modes;
  for (const auto& [id, mode] : (*catalog)->modes)
    if (std::find(mode.services.begin(), mode.services.end(), service.id) != mode.services.end())
      modes.push_back(json::value(id));
  line["modes"] = std::move(modes);
  // Its file can be shown on a machine whose unit manager cannot be reached; then nothing else is known.
  const auto machine = context.machine();
  std::vector<GpuSample> gpus;
  line["outdated"] = false;
  if (machine) {
    const std::string unit = service.unit_name();
    const auto status = co_await (*machine)->units->status(unit);
    line["outdated"] = status && is_outdated(context.paths(), **catalog, *status);
  }
  if (machine && (*machine)->gpus) gpus = co_await sample_of(**machine);
  std::set<ServiceId> one{service.id};
  const auto known = co_await context.known(std::move(one));
  const auto started = as_started(service, additions_of(**catalog, service).words);
  line["memory"] = describe_memory(started, footprint_of(known.footprints, service.id), gpus);
  co_return json::value(json::object{{"service", std::move(line)}});
}

Answer service_forget(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto found = (*catalog)->service(text_of(request, "service"));
  if (!found) co_return fail(found.error());
  const auto store = context.store();
  if (!store) co_return fail(store.error());
  const auto gone = (*store)->forget((*found)->id);
  if (!gone) co_return fail(gone.error());
  co_return json::value(json::object{{"forgotten", json::object{{"service", (*found)->id}, {"runs", *gone}}}});
}

Answer service_status(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto found = (*catalog)->service(text_of(request, "service"));
  if (!found) co_return fail(found.error());
  const auto machine = context.machine();
  if (!machine) co_return fail(machine.error());
  const auto snapshot = co_await observe(**machine, **catalog, SurveyDepth::everything);
  if (!snapshot) co_return fail(snapshot.error());
  auto line = describe_declared(**found);
  describe_observed(line, **found, *snapshot);
  if (const auto unit = snapshot->units.find((*found)->unit_name()); unit != snapshot->units.end()) {
    line["unit_state"] = to_string(unit->second.active);
    line["sub_state"] = unit->second.sub_state;
    line["restarts"] = unit->second.restarts;
    line["pids"] = json::value_from(unit->second.pids);
  }
  co_return json::value(json::object{{"service", std::move(line)}});
}

Answer service_start(Context& context, Request request) {
  return change_one(context, std::move(request), "service start", Residency::running);
}
Answer service_stop(Context& context, Request request) {
  return change_one(context, std::move(request), "service stop", Residency::stopped);
}
Answer service_restart(Context& context, Request request) {
  return change_one(context, std::move(request), "service restart", Residency::running, true);
}
Answer service_wake(Context& context, Request request) {
  return change_one(context, std::move(request), "service wake", Residency::running);
}

Answer service_sleep(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto found = (*catalog)->service(text_of(request, "service"));
  if (!found) co_return fail(found.error());
  const auto ability = (*found)->sleep;
  if ((*found)->in_router())
    co_return co_await change_one(context, std::move(request), "service sleep", Residency::unloaded);
  if (ability == SleepAbility::none)
    co_return fail(
        ErrorCode::refused, fmt::format("service '{}' cannot sleep", (*found)->id),
        fmt::format("Its engine has no sleep, or {} does not say sleep: l1 or l2.", to_string((*found)->source)));
  const auto target = ability == SleepAbility::level2 ? Residency::sleeping2 : Residency::sleeping1;
  co_return co_await change_one(context, std::move(request), "service sleep", target);
}

constexpr std::int64_t most_log_lines = 100000;

/// The last lines, and with --follow each new one as {"event": "log", "time", "text"} until the caller goes.
Answer service_logs(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto found = (*catalog)->service(text_of(request, "service"));
  if (!found) co_return fail(found.error());
  const auto wanted = integer_of(request, "lines").value_or(50);
  if (wanted < 0 || wanted > most_log_lines)
    co_return fail(ErrorCode::usage, fmt::format("--lines must be from 0 to {}, and is {}", most_log_lines, wanted));
  const auto limit = static_cast<std::size_t>(wanted);
  const auto machine = context.machine();
  if (!machine) co_return fail(machine.error());
  const std::string unit = (*found)->unit_name();
  const auto status = co_await (*machine)->units->status(unit);
  const bool follows = flag_of(request, "follow");
  // Several runs of a unit may be in the log: the newest is what people ask about.
  const std::string invocation = status ? status->invocation : "";
  auto tail = co_await (*machine)->units->log_tail(unit, invocation, limit);
  if (!tail && invocation.empty()) {
    // Nothing is known of a run: that there is no line is no error, unless lines may be there that cannot be read.
    Error error = tail.error();
    if (error.code == ErrorCode::environment)
      error.message = fmt::format("there is no log of '{}': it has not run yet, or {}", (*found)->id, error.message);
    if (error.code == ErrorCode::not_found)
      tail = std::vector<LogLine>();
    else
      tail = fail(std::move(error));
  }
  if (!tail) co_return fail(tail.error());
  std::string note;
  if (tail->empty() && limit > 0)
    note = invocation.empty()
               ? fmt::format("there is no log of '{}': it has not run yet, or nothing is left of it", (*found)->id)
               : fmt::format("'{}' has not written a line yet", (*found)->id);
  if (!note.empty()) context.notice(note);
  json::array lines;
  for (const auto& line : *tail) {
    json::object entry{{"time", format_wall(line.time)}, {"text", printable(line.text)}};
    if (follows) {
      entry["event"] = "log";
      context.progress()(std::move(entry));
    } else {
      lines.push_back(std::move(entry));
    }
  }
  if (!follows)
    co_return json::value(json::object{{"service", (*found)->id},
                                       {"unit", unit},
                                       {"lines", std::move(lines)},
                                       {"note", note.empty() ? json::value(nullptr) : json::value(note)}});
  const auto following = (*machine)->units->follow_log(unit, [&context](const LogLine& line) {
    context.progress()({{"event", "log"}, {"time", format_wall(line.time)}, {"text", printable(line.text)}});
  });
  if (!following) co_return fail(following.error());
  co_await wait_until(TimePoint::max());  // until the process is told to end
  co_return json::value(nullptr);
}

}  // namespace gpumod
