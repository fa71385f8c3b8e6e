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

namespace {

/// HTTP readiness signals nothing: asked often enough that the lag stays under 10 ms for loads up to 10 s and under
/// half a percent of the load beyond.
Duration readiness_interval(Duration waited) {
  if (waited < 10s) return std::clamp<Duration>(waited / 50, 1ms, 10ms);
  return waited / 250;
}

constexpr std::size_t log_lines_for_cause = 400;

Result<UnitManager::StartOutcome> no_answer() {
  return fail(ErrorCode::failed, "the unit manager did not finish the start in time");
}

}  // namespace

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

Task<Event> Actor::start_unit(Command command) {
  const Service* service = service_of(command);
  if (!service) co_return event(command, Event::Kind::job_failed, "its service is not in the catalogue any more");
  Result<UnitManager::StartOutcome> outcome = fail(ErrorCode::failed, "");
  if (!service->unit.empty()) {
    const std::string adopted = service->unit;
    auto started = co_await within(*machine_.loop, command.deadline, machine_.units->start_existing(adopted));
    outcome = started ? std::move(*started) : no_answer();
  } else {
    std::vector<GpuSample> chosen;
    auto gpus = co_await sample(command.deadline);
    if (gpus && !command.gpus.empty())
      for (auto& gpu : *gpus)
        if (std::find(command.gpus.begin(), command.gpus.end(), gpu.index) != command.gpus.end())
          chosen.push_back(std::move(gpu));
    if (chosen.size() != command.gpus.size())
      co_return event(command, Event::Kind::job_failed, "the GPUs that it was planned for cannot be read any more");
    auto spec = unit_spec_for(machine_, catalog_, command.unit, chosen);
    if (!spec) {
      Event out = event(command, Event::Kind::job_failed, spec.error().message);
      out.remedy = spec.error().hint;
      co_return out;
    }
    auto started = co_await within(*machine_.loop, command.deadline, machine_.units->start(std::move(*spec)));
    outcome = started ? std::move(*started) : no_answer();
  }
  if (!outcome) {
    Event out = event(command, Event::Kind::job_failed, outcome.error().message);
    out.remedy = outcome.error().hint;
    co_return out;
  }
  if (outcome->job.ok) co_return event(command, Event::Kind::job_done);
  const std::string unit = command.unit;
  const auto known = co_await machine_.units->status(unit);
  const UnitStatus status = known.value_or(UnitStatus());
  Event out = co_await explain_end(command, status);
  out.kind = Event::Kind::job_failed;
  if (out.text.empty()) out.text = fmt::format("its unit could not be started ({})", outcome->job.result);
  co_return out;
}

Task<Event> Actor::stop_unit(Command command) {
  const std::string unit = command.unit;
  const auto status = co_await machine_.units->status(unit);
  if (status) stopped_[unit] = status->pids;
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

/// The unit has ended, or restarts: what its log says about it.
/// Lines older than `since` are left out: a router's log also tells of earlier models.
Task<Event> Actor::explain_end(Command command, UnitStatus unit, WallTime since) {
  Event out = event(command, Event::Kind::not_ready);
  const Service* service = service_of(command);
  const std::string name = command.unit;
  const std::string invocation = unit.restarting() ? "" : unit.invocation;
  const auto log = co_await machine_.units->log_tail(name, invocation, log_lines_for_cause);
  auto lines = log.value_or(std::vector<LogLine>());
  std::erase_if(lines, [&](const LogLine& line) { return line.time < since; });
  if (service) {
    const auto cause = engine_for(service->engine).classify(lines);
    if (cause.kind != FailureCause::Class::unknown) {
      out.text = cause.cause;
      out.remedy = cause.remedy;
      out.log_line = printable(cause.line);
      out.transient = cause.kind == FailureCause::Class::transient;
      co_return out;
    }
  }
  if (unit.restarting())
    out.text = fmt::format("it ended ({}) and its unit restarts it", unit.result);
  else if (unit.killed_by_signal)
    out.text = fmt::format("it was ended by signal {} ({})", unit.exit_code, unit.result);
  else if (unit.active == ActiveState::failed || unit.active == ActiveState::inactive)
    out.text = fmt::format("it ended with exit code {}", unit.exit_code);
  if (!lines.empty()) {
    // The server's own last words; systemd's remarks about the unit ("NAME: Failed with result …") come after them.
    const auto own = std::find_if(lines.rbegin(), lines.rend(),
                                  [&](const LogLine& line) { return !line.text.starts_with(name + ": "); });
    out.log_line = printable(own != lines.rend() ? own->text : lines.back().text);
    out.remedy = fmt::format("See its log: gpumod service logs {}", service ? service->id : command.unit);
  }
  co_return out;
}

Task<Event> Actor::await_ready(Command command) {
  const Service* service = service_of(command);
  if (!service) co_return event(command, Event::Kind::not_ready, "its service is not in the catalogue any more");
  const Engine& engine = engine_for(service->engine);
  const std::string unit = command.unit;
  Signal wake(*machine_.loop);
  waiting_[command.step] = &wake;
  const Registration forget([this, step = command.step] { waiting_.erase(step); });
  std::optional<UnitStatus> changed;
  const Registration watch = machine_.units->on_change(unit, [&](const UnitStatus& status) {
    changed = status;
    wake.set();
  });
  auto first = co_await machine_.units->status(unit);
  if (!first) co_return event(command, Event::Kind::not_ready, first.error().message);
  UnitStatus status = std::move(*first);
  const unsigned restarts = status.restarts;
  const TimePoint began = now();
  const auto request = engine.readiness_request(*service);
  std::string reason = "nothing answers";
  for (;;) {
    if (abandoned(command)) {
      Event out = event(command, Event::Kind::not_ready);
      out.abandoned = true;
      co_return out;
    }
    if (changed) status = *std::exchange(changed, std::nullopt);
    const bool ended = status.active == ActiveState::failed || status.active == ActiveState::inactive;
    if (ended || status.restarting() || status.restarts > restarts) co_return co_await explain_end(command, status);
    bool ready = service->port == 0;
    if (request) {
      HttpRequest question = *request;
      question.timeout = std::clamp<Duration>(command.deadline - now(), 1ms, question.timeout);
      const auto reply = co_await machine_.http->request(question);
      if (reply) {
        const auto verdict = engine.judge_readiness(*service, *reply);
        ready = verdict.state == ReadinessVerdict::State::ready;
        reason = verdict.reason;
        if (verdict.state == ReadinessVerdict::State::failed)
          co_return event(command, Event::Kind::not_ready, verdict.reason);
      } else {
        reason = reply.error().message;
      }
    } else if (service->port != 0) {
      ready = !listeners_on({service->port}).empty();
      reason = fmt::format("nothing listens on port {}", service->port);
    }
    if (ready) co_return event(command, Event::Kind::ready);
    if (now() >= command.deadline) {
      Event out = co_await explain_end(command, status);
      if (out.text.empty())
        out.text = fmt::format("it did not get ready within {}: {}", format_seconds(now() - began), reason);
      out.transient = false;
      co_return out;
    }
    wake.reset();
    if (!changed && !abandoned(command))
      (void)co_await wake.wait(std::min(command.deadline, now() + readiness_interval(now() - began)));
  }
}

Task<Event> Actor::await_residency(Command command) {
  const Service* service = service_of(command);
  if (!service) co_return event(command, Event::Kind::not_ready, "its service is not in the catalogue any more");
  const Engine& engine = engine_for(service->engine);
  const auto request = engine.residency_request(*service);
  if (!request) co_return event(command, Event::Kind::ready);
  Signal wake(*machine_.loop);
  waiting_[command.step] = &wake;
  const Registration forget([this, step = command.step] { waiting_.erase(step); });
  const TimePoint began = now();
  const WallTime began_wall = wall_now();
  UnitStatus router;  // as far as a failed load goes, it runs on
  router.active = ActiveState::active;
  const bool loading = command.target == Residency::running;
  std::string reason;
  bool seen_on_its_way = false;
  for (;;) {
    if (abandoned(command)) {
      Event out = event(command, Event::Kind::not_ready);
      out.abandoned = true;
      co_return out;
    }
    HttpRequest question = *request;
    question.timeout = std::clamp<Duration>(command.deadline - now(), 1ms, question.timeout);
    const auto reply = co_await machine_.http->request(question);
    if (!reply) {
      reason = reply.error().message;
      const std::string unit = command.unit;
      const auto status = co_await machine_.units->status(unit);
      if (status &&
          (status->active == ActiveState::failed || status->active == ActiveState::inactive || status->restarting()))
        co_return co_await explain_end(command, *status);
    } else if (const auto residency = engine.judge_residency(*service, *reply); !residency) {
      reason = residency.error().message;
      // A failure of an earlier load may still be shown until the router has taken up this one.
      if (loading && (seen_on_its_way || now() - began > 1s)) {
        Event out = co_await explain_end(command, router, began_wall);
        if (out.text.empty()) out.text = reason;
        co_return out;
      }
    } else {
      const bool asleep = command.target == Residency::sleeping1 || command.target == Residency::sleeping2;
      const bool is_asleep = *residency == Residency::sleeping1 || *residency == Residency::sleeping2;
      // An unloaded model that a router reports as failed gives its memory back all the same.
      const bool gone = command.target == Residency::unloaded &&
                        (*residency == Residency::failed || *residency == Residency::stopped);
      if (*residency == command.target || (asleep && is_asleep) || gone) co_return event(command, Event::Kind::ready);
      if (*residency == Residency::starting) seen_on_its_way = true;
      reason = fmt::format("it is {}", to_string(*residency));
      if (loading && *residency == Residency::failed && (seen_on_its_way || now() - began > 1s)) {
        Event out = co_await explain_end(command, router, began_wall);
        const auto said = engine.failure_reason(*service, *reply);
        if (out.text.empty()) out.text = said.empty() ? "the router could not load the model" : said;
        co_return out;
      }
    }
    if (now() >= command.deadline)
      co_return event(
          command, Event::Kind::not_ready,
          fmt::format("it is not {} after {}: {}", to_string(command.target), format_seconds(now() - began), reason));
    (void)co_await wake.wait(std::min(command.deadline, now() + readiness_interval(now() - began)));
  }
}

/// In words, when somebody else's process answers on the service's port. Nothing when it is the unit's own, or when the
/// kernel does not let us see whose it is.
Task<std::optional<std::string>> Actor::wrong_listener(const Service& service) {
  if (service.port == 0) co_return std::nullopt;
  if (service.command() && !service.command()->container.empty()) co_return std::nullopt;
  const std::string unit = service.unit_name();
  const auto status = co_await machine_.units->status(unit);
  if (!status) co_return std::nullopt;
  for (const auto& listener : listeners_on({service.port})) {
    if (listener.pids.empty()) continue;
    const bool own = std::any_of(listener.pids.begin(), listener.pids.end(), [&](pid_t pid) {
      return std::find(status->pids.begin(), status->pids.end(), pid) != status->pids.end();
    });
    if (own) co_return std::nullopt;
    const auto info = process_info(listener.pids.front());
    co_return fmt::format("port {} is answered by pid {} ({}), which does not belong to {}", service.port,
                          listener.pids.front(), info ? info->command : "ended", unit);
  }
  co_return std::nullopt;
}

Task<Event> Actor::verify(Command command) {
  const Service* service = service_of(command);
  if (!service) co_return event(command, Event::Kind::not_verified, "its service is not in the catalogue any more");
  if (!probing_) co_return event(command, Event::Kind::verified);
  const Engine& engine = engine_for(service->engine);
  const auto stranger = co_await wrong_listener(*service);
  if (stranger) co_return event(command, Event::Kind::not_verified, *stranger);
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
  if (!probe) co_return event(command, Event::Kind::verified);
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
  co_return event(command, Event::Kind::verified, text);
}

}  // namespace gpumod
