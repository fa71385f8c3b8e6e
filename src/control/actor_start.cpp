// Bringing a service up, and saying why it did not come: start, readiness, residency, and what the log tells.
#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/text.h"
#include "control/actor.h"
#include "control/interpreter.h"
#include "control/launch.h"
#include "control/launched.h"
#include "control/progress.h"
#include "host/journal.h"
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

/// One question to a server under way. It may outlive the wait that asked: it owns what it touches.
struct Question {
  std::optional<Result<HttpReply>> reply;
};

Task<void> ask(HttpClient& http, HttpRequest request, std::shared_ptr<Question> question,
               std::shared_ptr<Signal> wake) {
  auto reply = co_await http.request(request);
  question->reply.emplace(std::move(reply));
  wake->set();
}

/// The signs of life of one start, looked at beside the wait. It may outlive that by one look: it owns what it touches.
struct Watch {
  explicit Watch(Progress began) : progress(began) {}
  Progress progress;
  bool finished = false;
};

constexpr Duration gpu_patience = 5s;

Task<std::optional<Bytes>> vram_of(Machine& machine, std::vector<pid_t> pids) {
  if (!machine.gpus) co_return std::nullopt;
  const auto sampled = co_await within(*machine.loop, now() + gpu_patience, machine.gpus->sample());
  if (!sampled || !*sampled) co_return std::nullopt;
  Bytes sum;
  for (const auto& gpu : **sampled)
    for (const auto& process : gpu.processes)
      if (std::find(pids.begin(), pids.end(), process.pid) != pids.end()) sum += process.used.value_or(Bytes());
  co_return sum;
}

Task<void> look_for_signs(Machine& machine, std::string unit, std::shared_ptr<Watch> watch) {
  for (;;) {
    co_await wait_for(watch->progress.look_interval());  // what is ready at once is not looked at
    if (watch->finished) co_return;
    const auto status = co_await machine.units->status(unit);
    if (watch->finished) co_return;
    if (status) {
      std::vector<pid_t> pids = status->pids;
      Progress::Look seen;
      for (const pid_t pid : pids)
        if (const auto usage = usage_of(pid)) seen.processes[pid] = *usage;
      seen.vram = co_await vram_of(machine, std::move(pids));
      if (watch->finished) co_return;
      watch->progress.look(std::move(seen), now());
    }
  }
}

/// Begins to look; ends with the registration. A container's processes are not below the unit.
std::pair<std::shared_ptr<Watch>, Registration> watch_progress(Machine& machine, const Service& service,
                                                               const Command& command) {
  const TimePoint began = now();
  const auto watch = std::make_shared<Watch>(Progress(command.deadline - began, began));
  if (service.command() && !service.command()->container.empty())
    watch->progress.blindfold();
  else
    machine.loop->spawn(look_for_signs(machine, command.unit, watch));
  return {watch, Registration([watch] { watch->finished = true; })};
}

/// "held by pid 4242 (llama-server)"; nothing when nobody listens there any more.
std::optional<std::string> holder_of_port(std::uint16_t port, const std::map<pid_t, std::string>& unit_of_pid) {
  for (const auto& listener : listeners_on({port})) {
    if (listener.pids.empty())
      return fmt::format("the port {} is held by a process of the user with id {}", port, listener.uid);
    const pid_t pid = listener.pids.front();
    const auto info = process_info(pid);
    const auto unit = unit_of_pid.find(pid);
    return fmt::format("the port {} is held by pid {} ({}{})", port, pid, info ? info->command : "ended",
                       unit == unit_of_pid.end() ? "" : ", of " + unit->second);
  }
  return std::nullopt;
}

}  // namespace

Task<Event> Actor::start_unit(Command command) {
  const Service* service = service_of(command);
  if (!service) co_return event(command, Event::Kind::job_failed, "its service is not in the catalogue any more");
  Result<UnitManager::StartOutcome> outcome = fail(ErrorCode::failed, "");
  started_[command.unit] = wall_now();
  logs_[command.unit] = StartLog::follow(*machine_.units, command.unit, *service);
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
  if (!outcome || !outcome->job.ok) logs_.erase(command.unit);
  if (!outcome) {
    Event out = event(command, Event::Kind::job_failed, outcome.error().message);
    out.remedy = outcome.error().hint;
    co_return out;
  }
  if (outcome->job.ok) {
    const std::string started = command.unit;
    const auto status = co_await machine_.units->status(started);
    if (status && !outcome->used_fragment) remember_launch(machine_.paths, catalog_, *status);
    if (const auto log = logs_.find(command.unit); log != logs_.end()) log->second->expect_run(outcome->invocation);
    co_return event(command, Event::Kind::job_done);
  }
  const std::string unit = command.unit;
  const auto known = co_await machine_.units->status(unit);
  const UnitStatus status = known.value_or(UnitStatus());
  Event out = co_await explain_end(command, status);
  out.kind = Event::Kind::job_failed;
  if (out.text.empty()) out.text = why_not_started(outcome->job);
  co_return out;
}

/// The catalogue's words, and what can be seen of the machine at this moment.
void Actor::say_cause(Event& out, FailureCause cause, const Service& service) const {
  if (cause.subject == FailureCause::Subject::port) {
    std::uint16_t port = service.port;
    std::from_chars(cause.subject_name.data(), cause.subject_name.data() + cause.subject_name.size(), port);
    if (auto holder = holder_of_port(port, unit_of_pid_))
      cause.cause = std::move(*holder);
    else if (!service.command())  // a llama-server says the same of an address that is not its machine's
      cause.cause += fmt::format(", or {} is no address of this machine", service.host);
  } else if (cause.subject == FailureCause::Subject::program) {
    if (auto lost = lost_interpreter(cause.subject_name)) {
      cause.cause = std::move(lost->message);
      cause.remedy = std::move(lost->hint);
    }
  }
  out.text = std::move(cause.cause);
  out.remedy = std::move(cause.remedy);
  out.log_line = printable(cause.line);
  out.transient = cause.kind == FailureCause::Class::transient;
}

/// The unit has ended, or restarts: what its log says about it.
/// Lines older than `since`, or than the start that was ordered, are left out: a router's log also tells of earlier models,
/// and where the manager knows nothing of this run it tells of the one before.
Task<Event> Actor::explain_end(Command command, UnitStatus unit, WallTime since, std::shared_ptr<StartLog> watched) {
  Event out = event(command, Event::Kind::not_ready);
  const Service* service = service_of(command);
  const std::string name = command.unit;
  const std::string invocation = unit.restarting() ? "" : unit.invocation;
  const auto log = co_await machine_.units->log_tail(name, invocation, log_lines_for_cause);
  auto lines = log.value_or(std::vector<LogLine>());
  if (const auto started = started_.find(name); started != started_.end()) since = std::max(since, started->second);
  std::erase_if(lines, [&](const LogLine& line) { return line.time < since; });
  if (service) {
    const Engine& engine = engine_for(service->engine);
    auto cause = engine.classify(lines);
    out.log = lines_that_matter(lines.empty() && watched ? watched->lines() : lines, cause.line);
    // A unit that restarts itself may have begun a new run, which has said nothing yet.
    if (cause.kind == FailureCause::Class::unknown && watched) {
      cause = engine.classify(watched->lines());
      if (cause.kind != FailureCause::Class::unknown) out.log = lines_that_matter(watched->lines(), cause.line);
    }
    if (cause.kind != FailureCause::Class::unknown) {
      say_cause(out, std::move(cause), *service);
      co_return out;
    }
  }
  if (unit.restarting())
    out.text = fmt::format("{}, and its unit restarts it", how_it_ended(unit));
  else if (unit.killed_by_signal || unit.active == ActiveState::failed || unit.active == ActiveState::inactive)
    out.text = how_it_ended(unit);
  // The server's own last words; systemd's remarks ("Started NAME", "NAME: Failed with result …") stand around them.
  const auto own = std::find_if(lines.rbegin(), lines.rend(),
                                [&](const LogLine& line) { return line.text.find(name) == std::string::npos; });
  if (!lines.empty()) {
    if (own != lines.rend()) out.log_line = printable(own->text);
    out.remedy = fmt::format("See its log: gpumod service logs {}", service ? service->id : command.unit);
  }
  if (own == lines.rend() && machine_.units->kind() == "systemd" && system_journal_is_hidden())
    out.remedy += fmt::format("{}What it said may lie in the system's journal, which you may not read: {}.",
                              out.remedy.empty() ? "" : ". ", see_system_journal);
  co_return out;
}

/// Readiness signals nothing, so it is asked for; everything else that can end the wait wakes it: the unit's changes,
/// the log, an answer. A question that a wedged server leaves open holds nothing up.
Task<Event> Actor::await_ready(Command command) {
  const Service* service = service_of(command);
  if (!service) co_return event(command, Event::Kind::not_ready, "its service is not in the catalogue any more");
  const Engine& engine = engine_for(service->engine);
  const std::string unit = command.unit;
  const auto wake = std::make_shared<Signal>(*machine_.loop);
  waiting_[command.step] = wake.get();
  const Registration forget([this, step = command.step] { waiting_.erase(step); });
  std::optional<UnitStatus> changed;
  const Registration watch = machine_.units->on_change(unit, [&](const UnitStatus& status) {
    changed = status;
    wake->set();
  });
  // Of a start, its log is followed from before it; of what ran already, from now on.
  std::shared_ptr<StartLog> log;
  if (auto started = logs_.extract(unit)) log = std::move(started.mapped());
  const bool was_running = !log;
  if (was_running) log = StartLog::follow(*machine_.units, unit, *service);
  const auto watching = watch_progress(machine_, *service, command);
  const auto signs = watching.first;
  log->on_line([wake, signs] {
    signs->progress.line(now());
    wake->set();
  });
  auto first = co_await machine_.units->status(unit);
  if (!first) co_return event(command, Event::Kind::not_ready, first.error().message);
  UnitStatus status = std::move(*first);
  log->expect_run(status.invocation);
  const unsigned restarts = status.restarts;
  const TimePoint began = now();
  const auto request = engine.readiness_request(*service);
  std::shared_ptr<Question> question;
  TimePoint ask_at = began;
  bool looked_back = !was_running;
  std::string reason = "nothing answers";
  for (;;) {
    wake->reset();
    if (abandoned(command)) {
      Event out = event(command, Event::Kind::not_ready);
      out.abandoned = true;
      co_return out;
    }
    if (changed) status = *std::exchange(changed, std::nullopt);
    const bool ended = status.active == ActiveState::failed || status.active == ActiveState::inactive;
    if (ended || status.restarting() || status.restarts > restarts)
      co_return co_await explain_end(command, status, WallTime::min(), log);
    if (log->verdict()) {
      Event out = event(command, Event::Kind::not_ready);
      out.log = lines_that_matter(log->lines(), log->verdict()->line);
      say_cause(out, *log->verdict(), *service);
      co_return out;
    }
    if (!question && now() >= ask_at) {
      question = std::make_shared<Question>();
      if (request) {
        HttpRequest asked = *request;
        machine_.loop->spawn(ask(*machine_.http, std::move(asked), question, wake));
      } else {
        const bool listens = service->port == 0 || !listeners_on({service->port}).empty();
        if (listens) co_return event(command, Event::Kind::ready);
        reason = fmt::format("nothing listens on port {}", service->port);
        question.reset();
        ask_at = now() + readiness_interval(now() - began);
      }
    }
    if (question && question->reply) {
      const auto reply = std::move(*question->reply);
      question.reset();
      if (reply) signs->progress.answered();
      ask_at = now() + readiness_interval(now() - began);
      if (reply) {
        const auto verdict = engine.judge_readiness(*service, *reply);
        reason = verdict.reason;
        if (verdict.state == ReadinessVerdict::State::ready) co_return event(command, Event::Kind::ready);
        if (verdict.state == ReadinessVerdict::State::failed)
          co_return event(command, Event::Kind::not_ready, verdict.reason);
      } else {
        reason = reply.error().message;
      }
      if (!std::exchange(looked_back, true)) {
        // It runs and is not ready: perhaps it said why before anybody listened.
        const std::string invocation = status.invocation;
        const auto said = co_await machine_.units->log_tail(unit, invocation, log_lines_for_cause);
        for (const auto& line : said.value_or(std::vector<LogLine>()))
          log->take(line);
        continue;
      }
    }
    const bool stuck = signs->progress.stuck(now());
    if (stuck || signs->progress.out_of_time(now())) {
      const auto silence = signs->progress.silence(now());
      Event out = co_await explain_end(command, status, WallTime::min(), log);
      if (out.text.empty() && stuck)
        out.text = fmt::format("it did not get ready and is stuck: {}; {}", silence, reason);
      if (out.text.empty())
        out.text = fmt::format("it did not get ready within {}: {}", format_seconds(now() - began), reason);
      out.transient = false;
      co_return out;
    }
    const TimePoint verdict_at = signs->progress.next_verdict(now());
    (void)co_await wake->wait(question ? verdict_at : std::min(verdict_at, ask_at));
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
  std::pair<std::shared_ptr<Watch>, Registration> watching;
  if (loading) watching = watch_progress(machine_, *service, command);
  const auto signs = watching.first;
  std::string reason;
  bool seen_on_its_way = false;
  for (;;) {
    if (abandoned(command)) {
      Event out = event(command, Event::Kind::not_ready);
      out.abandoned = true;
      co_return out;
    }
    HttpRequest question = *request;
    if (!loading) question.timeout = std::clamp<Duration>(command.deadline - now(), 1ms, question.timeout);
    const auto reply = co_await machine_.http->request(question);
    if (!reply) {
      reason = reply.error().message;
      const std::string unit = command.unit;
      const auto status = co_await machine_.units->status(unit);
      const bool ended = status && (status->active == ActiveState::failed || status->active == ActiveState::inactive ||
                                    status->restarting());
      if (ended && command.target == Residency::unloaded)
        co_return event(command, Event::Kind::ready, "its router has ended, and the model with it");
      if (ended) co_return co_await explain_end(command, *status);
    } else if (const auto residency = engine.judge_residency(*service, *reply); !residency) {
      reason = residency.error().message;
      // A failure of an earlier load may still be shown until the router has taken up this one.
      if (loading && (seen_on_its_way || now() - began > 1s)) {
        Event out = co_await explain_end(command, router, began_wall);
        if (out.text.empty()) out.text = reason;
        co_return out;
      }
    } else {
      const bool sleeps = is_asleep(command.target) && is_asleep(*residency);
      // An unloaded model that a router reports as failed gives its memory back all the same.
      const bool gone = command.target == Residency::unloaded &&
                        (*residency == Residency::failed || *residency == Residency::stopped);
      if (*residency == command.target || sleeps || gone) co_return event(command, Event::Kind::ready);
      if (*residency == Residency::starting) seen_on_its_way = true;
      reason = fmt::format("it is {}", to_string(*residency));
      if (loading && *residency == Residency::failed && (seen_on_its_way || now() - began > 1s)) {
        Event out = co_await explain_end(command, router, began_wall);
        const auto said = engine.failure_reason(*service, *reply);
        if (out.text.empty()) out.text = said.empty() ? "the router could not load the model" : said;
        co_return out;
      }
    }
    if (reply && loading) signs->progress.answered();
    // A model that is loading may be slow or stuck like any start; to fall asleep or unload there is a fixed time.
    const bool stuck = loading && signs->progress.stuck(now());
    if (stuck || (loading ? signs->progress.out_of_time(now()) : now() >= command.deadline)) {
      const auto why = stuck ? fmt::format("it is stuck: {}; {}", signs->progress.silence(now()), reason) : reason;
      co_return event(
          command, Event::Kind::not_ready,
          fmt::format("it is not {} after {}: {}", to_string(command.target), format_seconds(now() - began), why));
    }
    (void)co_await wake.wait(now() + readiness_interval(now() - began));
  }
}

}  // namespace gpumod
