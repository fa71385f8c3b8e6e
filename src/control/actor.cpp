#include "control/actor.h"

#include <algorithm>

#include <fmt/format.h>
#include <signal.h>

#include "base/log.h"
#include "base/text.h"
#include "control/launch.h"
#include "control/observe.h"
#include "host/processes.h"

namespace gpumod {

Event Actor::event(const Command& command, Event::Kind kind, std::string text) const {
  Event out;
  out.kind = kind;
  out.step = command.step;
  out.attempt = command.attempt;
  out.text = std::move(text);
  return out;
}

/// The service a command is about; for a router's own start, any member of the unit: they share binary and port.
const Service* Actor::service_of(const Command& command) const {
  if (const auto found = catalog_.services.find(command.service); found != catalog_.services.end())
    return &found->second;
  const auto members = catalog_.services_of_unit(command.unit);
  return members.empty() ? nullptr : members.front();
}

void Actor::abandon(int step) {
  abandoned_.insert(step);
  if (const auto found = waiting_.find(step); found != waiting_.end()) found->second->set();
}

Task<Event> Actor::carry_out(Command command) {
  using Kind = Command::Kind;
  abandoned_.erase(command.step);
  switch (command.kind) {
    case Kind::observe: return look(std::move(command));
    case Kind::preflight: return check_start(std::move(command));
    case Kind::check_memory: return check_memory(std::move(command));
    case Kind::start_unit: return start_unit(std::move(command));
    case Kind::stop_unit: return stop_unit(std::move(command));
    case Kind::kill_unit: return kill_unit(std::move(command));
    case Kind::prove_release: return prove_release(std::move(command));
    case Kind::prove_fall: return prove_fall(std::move(command));
    case Kind::load_model:
    case Kind::unload_model:
    case Kind::sleep_service:
    case Kind::wake_service: return ask_engine(std::move(command));
    case Kind::await_ready: return await_ready(std::move(command));
    case Kind::await_residency: return await_residency(std::move(command));
    case Kind::verify: return verify(std::move(command));
    case Kind::abandon:
    case Kind::record_failure:
    case Kind::finish: break;
  }
  detail::die("a command that is not the actor's");
}

Task<Event> Actor::look(Command command) {
  auto snapshot = co_await observe(machine_, catalog_);
  Event out = event(command, Event::Kind::observed);
  if (snapshot) {
    snapshot->gpus = placeable(std::move(snapshot->gpus));
    unit_of_pid_ = snapshot->unit_of_pid;
    note_gpus(snapshot->gpus);
    note_baseline(*snapshot);
    out.snapshot = std::move(*snapshot);
  } else {
    out.error = snapshot.error();
  }
  co_return out;
}

Task<Event> Actor::check_start(Command command) {
  const auto checked = co_await preflight(machine_, catalog_, command.services);
  if (checked) co_return event(command, Event::Kind::preflight_ok);
  Event out = event(command, Event::Kind::preflight_failed, checked.error().message);
  out.error = checked.error();
  co_return out;
}

Task<Event> Actor::stop_unit(Command command) {
  const std::string unit = command.unit;
  logs_.erase(unit);
  const auto status = co_await machine_.units->status(unit);
  if (status) stopped_[unit] = status->pids;
  auto containers = co_await containers_of(catalog_, unit);  // while their runtime still knows them
  containers_[unit] = std::move(containers);
  const auto stopped = co_await within(*machine_.loop, command.deadline, machine_.units->stop(unit));
  const Result<JobOutcome> outcome =
      stopped ? *stopped
              : Result<JobOutcome>(fail(ErrorCode::failed, "the unit manager did not finish the stop in time"));
  if (!outcome) co_return event(command, Event::Kind::job_failed, outcome.error().message);
  if (!outcome->ok) co_return event(command, Event::Kind::job_failed, outcome->result);
  // The manager's job is done either way; its result tells whether SIGTERM was enough.
  const auto ended = co_await machine_.units->status(unit);
  const bool killed = ended && ended->result == "timeout";
  co_return event(command, Event::Kind::job_done,
                  killed ? "its processes did not end on SIGTERM: the unit manager killed them" : "");
}

Task<Event> Actor::kill_unit(Command command) {
  const std::string unit = command.unit;
  const auto killed = co_await machine_.units->kill(unit, SIGKILL);
  co_return event(command, killed ? Event::Kind::job_done : Event::Kind::job_failed,
                  killed ? "" : killed.error().message);
}

/// Load, unload, sleep, wake: the engine's requests in order.
Task<Event> Actor::ask_engine(Command command) {
  const Service* service = service_of(command);
  if (!service) co_return event(command, Event::Kind::job_failed, "its service is not in the catalogue any more");
  const Engine& engine = engine_for(service->engine);
  std::vector<HttpRequest> requests;
  if (command.kind == Command::Kind::sleep_service) requests = engine.sleep_requests(*service, command.target);
  if (command.kind == Command::Kind::wake_service) {
    auto asleep = Residency::sleeping1;
    if (auto question = engine.residency_request(*service)) {
      const HttpRequest request = *question;
      const auto reply = co_await machine_.http->request(request);
      if (reply) asleep = engine.judge_residency(*service, *reply).value_or(asleep);
    }
    // vLLM does not say how deep it sleeps: the deeper wake is right for both.
    if (service->sleep == SleepAbility::level2) asleep = Residency::sleeping2;
    requests = engine.wake_requests(*service, asleep);
  }
  if (command.kind == Command::Kind::load_model)
    if (auto load = engine.load_request(*service)) requests.push_back(*load);
  if (command.kind == Command::Kind::unload_model)
    if (auto unload = engine.unload_request(*service)) requests.push_back(*unload);
  for (const auto& request : requests) {
    const auto reply = co_await machine_.http->request(request);
    if (!reply) co_return event(command, Event::Kind::job_failed, reply.error().message);
    Result<void> judged;
    if (command.kind == Command::Kind::load_model)
      judged = engine.judge_load(*service, *reply);
    else if (command.kind == Command::Kind::unload_model)
      judged = engine.judge_unload(*service, *reply);
    else if (reply->status / 100 != 2)
      judged =
          fail(ErrorCode::failed, fmt::format("{} {} answered {}: {}", request.method, request.target, reply->status,
                                              printable(std::string_view(reply->body).substr(0, 200))));
    if (!judged) {
      Event out = event(command, Event::Kind::job_failed, judged.error().message);
      out.remedy = judged.error().hint;
      co_return out;
    }
  }
  co_return event(command, Event::Kind::job_done);
}

/// In words, when somebody else's process answers on the service's port. Nothing when it is the unit's own, or when the
/// kernel does not let us see whose it is.
std::optional<std::string> Actor::wrong_listener(const Service& service, const UnitStatus& status) const {
  if (service.port == 0) return std::nullopt;
  if (service.command() && !service.command()->container.empty()) return std::nullopt;
  for (const auto& listener : listeners_on({service.port})) {
    if (listener.pids.empty()) continue;
    const bool own = std::any_of(listener.pids.begin(), listener.pids.end(), [&](pid_t pid) {
      return std::find(status.pids.begin(), status.pids.end(), pid) != status.pids.end();
    });
    if (own) return std::nullopt;
    const auto info = process_info(listener.pids.front());
    return fmt::format("port {} is answered by pid {} ({}), which does not belong to {}", service.port,
                       listener.pids.front(), info ? info->command : "ended", service.unit_name());
  }
  return std::nullopt;
}

Task<Event> Actor::verify(Command command) {
  const Service* service = service_of(command);
  if (!service) co_return event(command, Event::Kind::not_verified, "its service is not in the catalogue any more");
  if (!probing_) co_return event(command, Event::Kind::verified);
  const Engine& engine = engine_for(service->engine);
  const std::string unit = command.unit;
  const auto status = co_await machine_.units->status(unit);  // before the questions: who is asked
  if (status)
    if (const auto stranger = wrong_listener(*service, *status))
      co_return event(command, Event::Kind::not_verified, *stranger);
  const auto good = [&](std::string text) {
    Event out = event(command, Event::Kind::verified, std::move(text));
    if (status) out.main_pid = status->main_pid;
    return out;
  };
  if (const auto question = engine.identity_request(*service)) {
    const HttpRequest request = *question;
    const auto reply = co_await machine_.http->request(request);
    const auto judged = reply ? engine.judge_identity(*service, *reply) : Result<void>(fail(reply.error()));
    if (!judged) {
      Event out = event(command, Event::Kind::not_verified, judged.error().message);
      out.remedy = judged.error().hint;
      co_return out;
    }
  }
  const auto probe = engine.probe_request(*service);
  if (!probe) co_return good({});
  const HttpRequest request = *probe;
  const auto reply = co_await machine_.http->request(request);
  if (!reply)
    co_return event(command, Event::Kind::not_verified, fmt::format("its probe failed: {}", reply.error().message));
  const auto verdict = engine.judge_probe(*service, *reply);
  if (!verdict.ok)
    co_return event(command, Event::Kind::not_verified, fmt::format("its probe failed: {}", verdict.reason));
  std::string text = printable(verdict.text);
  if (verdict.dimensions) text = fmt::format("{} dimensions", *verdict.dimensions);
  if (verdict.tokens_per_second && *verdict.tokens_per_second > 0)
    text += fmt::format("{}{:.0f} tok/s", text.empty() ? "" : ", ", *verdict.tokens_per_second);
  if (verdict.unproven) text = verdict.reason;
  co_return good(std::move(text));
}

}  // namespace gpumod
