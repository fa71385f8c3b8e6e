#include "control/director.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/log.h"
#include "control/observe.h"
#include "host/processes.h"
#include "model/json.h"
#include "model/recording_json.h"

namespace gpumod {

namespace json = boost::json;

namespace {

/// The VRAM curve of a switch is sampled this often: NVML signals nothing.
constexpr Duration vram_interval = 250ms;
constexpr Duration last_sample_patience = 5s;

json::value seconds_or_null(const std::optional<Duration>& took) {
  return took ? json::value(rounded_seconds(*took)) : json::value(nullptr);
}

bool runs_anything(const Goal& goal) {
  return std::any_of(goal.wanted.begin(), goal.wanted.end(), [](const auto& entry) {
    return entry.second != Residency::stopped && entry.second != Residency::unloaded &&
           entry.second != Residency::failed;
  });
}

}  // namespace

json::object to_json(const StepReport& step) {
  json::object line{
      {"step", step.step},         {"service", step.service.empty() ? json::value(nullptr) : json::value(step.service)},
      {"unit", step.unit},         {"action", to_string(step.action)},
      {"attempts", step.attempts}, {"result", step.result},
      {"undo", step.undo}};
  const bool timed = step.began && step.ended;
  line["seconds"] = timed ? json::value(rounded_seconds(*step.ended - *step.began)) : json::value(nullptr);
  if (!step.stage.empty()) line["stage"] = step.stage;
  if (!step.note.empty()) line["note"] = step.note;
  if (!step.earlier.empty()) line["earlier"] = json::value_from(step.earlier);
  if (!step.remedy.empty()) line["remedy"] = step.remedy;
  if (!step.log_line.empty()) line["log"] = step.log_line;
  return line;
}

json::object to_json(const Plan& plan) {
  json::array steps;
  for (const auto& step : plan.steps) {
    json::object claim;
    for (const auto& [gpu, bytes] : step.claim)
      claim[std::to_string(gpu)] = bytes.count();
    steps.push_back(json::object{{"step", step.index},
                                 {"service", step.service.empty() ? json::value(nullptr) : json::value(step.service)},
                                 {"unit", step.unit},
                                 {"action", to_string(step.action)},
                                 {"after", json::value_from(step.after)},
                                 {"gpus", json::value_from(step.gpus)},
                                 {"claim", std::move(claim)},
                                 {"claim_source", to_string(step.claim_source)},
                                 {"seconds", seconds_or_null(step.expected)},
                                 {"why", step.why}});
  }
  const auto per_gpu = [](const std::map<GpuIndex, Bytes>& amounts) {
    json::object out;
    for (const auto& [gpu, bytes] : amounts)
      out[std::to_string(gpu)] = bytes.count();
    return out;
  };
  std::vector<std::string> notes = plan.notes;
  notes.insert(notes.end(), plan.left_alone.begin(), plan.left_alone.end());
  return {{"steps", std::move(steps)},
          {"free", json::object{{"before", per_gpu(plan.free_before)}, {"after", per_gpu(plan.free_after)}}},
          {"seconds", seconds_or_null(plan.expected)},
          {"notes", json::value_from(notes)}};
}

json::object SwitchOutcome::to_json() const {
  json::array lines;
  for (const auto& step : steps)
    lines.push_back(gpumod::to_json(step));
  json::object body{{"id", id},
                    {"from", from.empty() ? json::value(nullptr) : json::value(from)},
                    {"to", to.empty() ? json::value(nullptr) : json::value(to)},
                    {"result", to_string(result)},
                    {"seconds", rounded_seconds(took)},
                    {"steps", std::move(lines)},
                    {"vram", json::object{{"before", bytes_or_null(vram_before)},
                                          {"after", bytes_or_null(vram_after)},
                                          {"peak", bytes_or_null(vram_peak)}}}};
  if (problem) body["problem"] = gpumod::to_json(*problem);
  return {{"switch", std::move(body)}};
}

/// What the sampling beside a switch works with. The coroutine may outlive run() by one wait: it owns this, and asks
/// `finished` after each before it touches anything else.
struct Director::Sampling {
  explicit Sampling(Loop& loop) : soon(loop) {}
  bool finished = false;
  Signal soon;  // a sample is wanted before its time
  std::map<pid_t, std::string> owners;
  std::set<pid_t> strangers;  // processes of nobody's unit: who is one once is not asked about again

  bool knows_all(const std::vector<GpuSample>& gpus) const {
    for (const auto& gpu : gpus)
      for (const auto& process : gpu.processes)
        if (!owners.contains(process.pid) && !strangers.contains(process.pid)) return false;
    return true;
  }
  void learn(const std::vector<GpuSample>& gpus, const Result<std::map<pid_t, std::string>>& found) {
    if (!found) return;
    for (const auto& [pid, unit] : *found)
      owners[pid] = unit;
    for (const auto& gpu : gpus)
      for (const auto& process : gpu.processes)
        if (!owners.contains(process.pid)) strangers.insert(process.pid);
  }
};

Director::Director(Machine& machine, const Catalog& catalog, Store& store, ProgressSink progress)
    : machine_(machine),
      catalog_(catalog),
      store_(store),
      progress_(std::move(progress)),
      actor_(machine, catalog),
      wake_(*machine.loop) {}

void Director::cancel() {
  Event event;
  event.kind = Event::Kind::cancel_requested;
  post(std::move(event));
}

void Director::post(Event event) {
  inbox_.push_back(std::move(event));
  wake_.set();
}

Task<Result<SwitchOutcome>> Director::run(SwitchOrder order) {
  const TimePoint began = now();
  const auto id = store_.next_switch_id();
  if (!id) co_return fail(id.error());
  journal_ = StoredSwitch{};
  journal_.id = *id;
  journal_.kind = order.kind;
  journal_.goal = order.request.goal;
  journal_.from = order.from;
  journal_.boot_id = boot_id().value_or("");
  journal_.began = wall_now();
  if (order.request.previous) journal_.previous = *order.request.previous;
  shown_.clear();
  plan_shown_ = false;

  recorder_ = std::make_unique<Recorder>(std::move(order.footprint_keys), order.request.knowledge, began);
  const auto sampling = std::make_shared<Sampling>(*machine_.loop);
  actor_.on_gpus([this, sampling](const std::vector<GpuSample>& gpus) {
    recorder_->note_gpus(placeable(gpus), sampling->owners, now());
  });
  switch_ = std::make_unique<Switch>(std::move(order.request));
  std::optional<Bytes> vram_before;
  if (machine_.gpus) machine_.loop->spawn(sample_vram(sampling));
  dispatch(switch_->begin(began));
  while (!switch_->finished()) {
    (void)co_await wake_.wait();
    wake_.reset();
    for (auto& event : std::exchange(inbox_, {})) {
      if (event.kind == Event::Kind::observed && !vram_before) vram_before = actor_.used_now();
      const TimePoint at = now();  // writing the journal belongs to what follows
      recorder_->note_event(event, at);
      dispatch(switch_->on(event, at));
      recorder_->note_steps(*switch_, at);
      if (recorder_->wants_a_sample()) sampling->soon.set();
      show_progress();
    }
  }
  sampling->finished = true;
  sampling->soon.set();
  if (machine_.gpus) co_await sample_last(sampling);
  SwitchOutcome outcome;
  outcome.id = journal_.id;
  outcome.from = order.from;
  outcome.to = journal_.goal.mode;
  outcome.result = switch_->result();
  outcome.problem = switch_->problem();
  outcome.took = now() - began;
  outcome.steps = switch_->reports();
  outcome.mutated = journal_.mutated;
  outcome.nothing_before = switch_->first_snapshot() && !runs_anything(switch_->previous());
  if (switch_->first_plan()) outcome.left_alone = switch_->first_plan()->left_alone;
  outcome.vram_before = vram_before;
  outcome.vram_after = actor_.used_now();
  outcome.vram_peak = actor_.used_peak();

  journal_.result = to_string(outcome.result);
  journal_.ended = wall_now();
  journal_.report = json::serialize(outcome.to_json());
  const bool reached = outcome.result == SwitchResult::committed || outcome.result == SwitchResult::unchanged;
  // What an earlier, interrupted switch left is dealt with once this one has brought the machine to a state it wanted.
  const bool restored =
      outcome.mutated && (outcome.result == SwitchResult::rolled_back || outcome.result == SwitchResult::cancelled);
  const auto ended = store_.end_switch(journal_, reached ? order.goal_after : std::nullopt, reached || restored);
  if (!ended && reached) {
    outcome.result = SwitchResult::failed;
    outcome.problem =
        Error{ended.error().code,
              fmt::format("everything runs as asked, but the goal could not be stored: {}", ended.error().message),
              ended.error().hint,
              {}};
  }
  if (!ended && !reached) log_warning("switch {}: {}", journal_.id, ended.error().message);
  if (const auto kept = store_.remember(recorder_->learned(*switch_, journal_.ended.value_or(wall_now()))); !kept)
    log_warning("switch {}: {}", journal_.id, kept.error().message);
  keep_recording(outcome);
  co_return outcome;
}

/// A memory for people: what it fails of is logged, and no switch.
void Director::keep_recording(const SwitchOutcome& outcome) {
  Recording head;
  head.id = journal_.id;
  head.kind = journal_.kind;
  head.from = outcome.from;
  head.to = outcome.to;
  head.began = journal_.began;
  head.took = outcome.took;
  head.result = outcome.result;
  const auto text = json::serialize(gpumod::to_json(recorder_->recording(*switch_, std::move(head))));
  if (const auto kept = store_.keep_recording(journal_.id, text); !kept)
    log_warning("switch {}: {}", journal_.id, kept.error().message);
}

/// May outlive run() by one wait.
Task<void> Director::sample_vram(std::shared_ptr<Sampling> sampling) {
  auto& machine = machine_;
  const auto& catalog = catalog_;
  while (!sampling->finished) {
    sampling->soon.reset();
    const auto gpus = co_await machine.gpus->sample();
    if (sampling->finished) co_return;
    if (gpus && !sampling->knows_all(*gpus)) {
      std::vector<GpuSample> seen = *gpus;
      const auto owners = co_await units_of_processes(machine, catalog, std::move(seen));
      if (sampling->finished) co_return;
      sampling->learn(*gpus, owners);
    }
    if (gpus) {
      actor_.note_gpus(*gpus);
      show_vram(*gpus);
    }
    (void)co_await sampling->soon.wait(now() + vram_interval);
  }
}

/// How it has become. A driver that hangs now is no reason to wait.
Task<void> Director::sample_last(std::shared_ptr<Sampling> sampling) {
  const TimePoint deadline = now() + last_sample_patience;
  const auto gpus = co_await within(*machine_.loop, deadline, machine_.gpus->sample());
  if (!gpus || !*gpus) co_return;
  if (!sampling->knows_all(**gpus)) {
    std::vector<GpuSample> seen = **gpus;
    const auto owners =
        co_await within(*machine_.loop, deadline, units_of_processes(machine_, catalog_, std::move(seen)));
    if (owners) sampling->learn(**gpus, *owners);
  }
  actor_.note_gpus(**gpus);
}

void Director::dispatch(const std::vector<Command>& commands) {
  std::vector<Command> mutating;
  for (const auto& command : commands)
    if (command.mutates()) mutating.push_back(command);
  std::optional<Error> unwritten;
  if (!mutating.empty()) {
    if (!journal_.mutated && switch_->first_snapshot()) journal_.previous = switch_->previous();
    for (const auto& command : mutating)
      if (command.kind == Command::Kind::record_failure)
        journal_.failure = command.text.empty() ? "unknown" : command.text;
    StoredSwitch row = journal_;
    row.mutated = true;
    if (const auto recorded = store_.record_commands(row, mutating); recorded)
      journal_.mutated = true;
    else
      unwritten = recorded.error();
    if (unwritten) log_warning("switch {}: {}", journal_.id, unwritten->message);
  }
  for (const auto& command : commands) {
    if (command.kind == Command::Kind::finish || command.kind == Command::Kind::record_failure) continue;
    if (command.kind == Command::Kind::abandon) {
      actor_.abandon(command.step);
      continue;
    }
    if (unwritten && command.mutates()) {  // no command before its journal row is durable
      Event event;
      event.kind = Event::Kind::not_journaled;
      event.step = command.step;
      event.attempt = command.attempt;
      event.text = unwritten->message;
      event.remedy = unwritten->hint;
      event.error = unwritten;
      post(std::move(event));
      continue;
    }
    machine_.loop->spawn(carry_out(command));
  }
}

Task<void> Director::carry_out(Command command) {
  log_info("switch {}: {} step {} attempt {} {} {}", journal_.id, to_string(command.kind), command.step,
           command.attempt, command.service, command.unit);
  Event event = co_await actor_.carry_out(std::move(command));
  log_info("switch {}: {} step {} attempt {} {}", journal_.id, to_string(event.kind), event.step, event.attempt,
           event.text);
  post(std::move(event));
}

void Director::show_vram(const std::vector<GpuSample>& gpus) {
  if (!progress_) return;
  json::array shown;
  for (const auto& gpu : gpus)
    if (gpu.total && gpu.free)
      shown.push_back(json::object{{"index", gpu.index},
                                   {"name", gpu.name},
                                   {"total", gpu.total->count()},
                                   {"used", (*gpu.total - *gpu.free).count()}});
  if (shown.empty() || shown == vram_shown_) return;
  vram_shown_ = shown;
  progress_({{"event", "vram"}, {"gpus", std::move(shown)}});
}

void Director::show_progress() {
  if (!progress_) return;
  if (!plan_shown_ && switch_->first_plan()) {
    plan_shown_ = true;
    progress_({{"event", "plan"},
               {"id", journal_.id},
               {"from", journal_.from},
               {"to", journal_.goal.mode},
               {"plan", to_json(*switch_->first_plan())}});
  }
  if (!plan_shown_) return;
  const auto& reports = switch_->reports();
  shown_.resize(reports.size());
  for (std::size_t i = 0; i < reports.size(); ++i) {
    auto state = fmt::format("{}/{}/{}", reports[i].result, reports[i].stage, reports[i].attempts);
    if (state == shown_[i]) continue;
    shown_[i] = std::move(state);
    auto line = to_json(reports[i]);
    line["event"] = "step";
    line["subject"] = reports[i].subject;
    progress_(std::move(line));
  }
}

}  // namespace gpumod
