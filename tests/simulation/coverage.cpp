#include "coverage.h"

#include <algorithm>

#include <fmt/format.h>

namespace gpumod::simulation {

namespace {

constexpr std::array<std::string_view, 6> phase_names{"looking",      "preflighting",    "acting",
                                                      "looking back", "looking to undo", "undoing"};
constexpr std::array<std::string_view, 5> phase_event_names{"observed", "not observed", "preflight_ok",
                                                            "preflight_failed", "cancel"};
constexpr std::array<std::string_view, 4> point_names{"before the journal", "in the journal", "before acting",
                                                      "after acting"};

}  // namespace

void Coverage::merge(const Coverage& other) {
  const auto add = [](auto& into, const auto& from) {
    for (std::size_t i = 0; i < into.size(); ++i)
      for (std::size_t j = 0; j < into[i].size(); ++j)
        into[i][j] += from[i][j];
  };
  add(stages, other.stages);
  add(phases, other.phases);
  add(faults, other.faults);
  add(crashes, other.crashes);
  add(power_cuts, other.power_cuts);
  for (std::size_t i = 0; i < results.size(); ++i)
    results[i] += other.results[i];
  switches += other.switches;
  events += other.events;
  commands += other.commands;
  recoveries += other.recoveries;
}

namespace {

struct Excuse {
  Fault fault;
  std::vector<Action> actions;
  const char* because;
};

const std::vector<Excuse>& excuses() {
  using enum Action;
  static const std::vector<Excuse> all{
      {Fault::lying_health, {stop, unload, sleep}, "nobody asks a server that goes whether it is well"},
      {Fault::wrong_model, {stop, unload, sleep}, "nor what it serves"},
      {Fault::port_taken, {stop, unload, sleep}, "nor who listens on its port"},
      {Fault::never_ready, {stop, unload, sleep}, "nor waits for it to get ready"},
      {Fault::start_job_fails, {stop, load, unload, sleep, wake, verify}, "only a start has a start job"},
      {Fault::foreign_grabs, {stop, unload, sleep, verify}, "only who takes memory looks for it first"},
      {Fault::request_fails,
       {start, stop, verify},
       "units are not started, stopped or proven by the server's requests"},
      {Fault::journal_silent, {stop, unload}, "why a process ended matters to nobody who wanted it to end"},
      {Fault::journal_write_fails, {verify}, "a verification changes nothing and is not journaled"},
      {Fault::disk_full, {verify}, "for the same reason"},
      {Fault::gpu_unreadable, {verify}, "a verification does not look at the GPUs"},
      {Fault::observe_fails,
       {start, stop, load, unload, sleep, wake, verify},
       "no step is under way while the machine is looked at; it is counted with the phases"},
      {Fault::preflight_fails,
       {start, stop, load, unload, sleep, wake, verify},
       "nor while is asked what could be started"},
  };
  return all;
}

const char* excused(Fault fault, Action action) {
  for (const auto& excuse : excuses())
    if (excuse.fault == fault &&
        std::find(excuse.actions.begin(), excuse.actions.end(), action) != excuse.actions.end())
      return excuse.because;
  return nullptr;
}

const char* excused(Switch::Stage stage, int column) {
  using enum Switch::Stage;
  const bool of_freeing = stage == proving || stage == killing || stage == proving_kill || stage == falling;
  if (column == event_count && of_freeing) return "what frees is not tried again: there is no earlier attempt";
  return nullptr;
}

const char* excused(CrashPoint point, Command::Kind kind) {
  Command command;
  command.kind = kind;
  using Kind = Command::Kind;
  if (kind == Kind::finish || kind == Kind::abandon) return "nothing is carried out";
  if (point != CrashPoint::after_acting) return command.mutates() ? nullptr : "what changes nothing is not journaled";
  return kind == Kind::record_failure ? "it is written, and nothing is carried out" : nullptr;
}

}  // namespace

std::vector<std::string> Coverage::faults_in_coverage() const {
  std::vector<std::string> found;
  const auto judge = [&](Count count, const char* excuse, auto what) {
    if (count == 0 && !excuse) found.push_back(fmt::format("not reached: {}", what()));
    if (count > 0 && excuse) found.push_back(fmt::format("reached {} times: {}, although {}", count, what(), excuse));
  };
  for (int s = 0; s < stage_count; ++s)
    for (int e = first_step_event; e <= event_count; ++e) {
      if (e > last_step_event && e != event_count) continue;
      const auto stage = static_cast<Switch::Stage>(s);
      judge(stages[static_cast<std::size_t>(s)][static_cast<std::size_t>(e)], excused(stage, e), [&] {
        return fmt::format("stage {} × {}", to_string(stage),
                           e == event_count ? "an earlier attempt" : to_string(static_cast<Event::Kind>(e)));
      });
    }
  for (std::size_t p = 0; p < phases.size(); ++p)
    for (std::size_t e = 0; e < phases[p].size(); ++e)
      judge(phases[p][e], nullptr, [&] { return fmt::format("{} × {}", phase_names[p], phase_event_names[e]); });
  for (int f = 0; f < fault_count; ++f)
    for (int a = 0; a < action_count; ++a) {
      const auto fault = static_cast<Fault>(f);
      const auto action = static_cast<Action>(a);
      judge(faults[static_cast<std::size_t>(f)][static_cast<std::size_t>(a)], excused(fault, action),
            [&] { return fmt::format("{} × {}", to_string(fault), to_string(action)); });
    }
  for (const bool cut : {false, true})
    for (std::size_t p = 0; p < crashes.size(); ++p)
      for (int c = 0; c < command_count; ++c) {
        const auto kind = static_cast<Command::Kind>(c);
        judge((cut ? power_cuts : crashes)[p][static_cast<std::size_t>(c)], excused(static_cast<CrashPoint>(p), kind),
              [&] {
                return fmt::format("{} {} × {}", cut ? "a power cut" : "a crash", point_names[p], to_string(kind));
              });
      }
  return found;
}

void Coverage::print() const {
  fmt::print("stage × event (the last column: of an earlier attempt)\n");
  for (int s = 0; s < stage_count; ++s) {
    fmt::print("  {:<20}", to_string(static_cast<Switch::Stage>(s)));
    for (const auto count : stages[static_cast<std::size_t>(s)])
      fmt::print(" {:>8}", count);
    fmt::print("\n");
  }
  fmt::print("phase × event\n");
  for (std::size_t p = 0; p < phases.size(); ++p) {
    fmt::print("  {:<20}", phase_names[p]);
    for (const auto count : phases[p])
      fmt::print(" {:>8}", count);
    fmt::print("\n");
  }
  fmt::print("fault × step\n  {:<20}", "");
  for (int a = 0; a < action_count; ++a)
    fmt::print(" {:>8}", to_string(static_cast<Action>(a)));
  fmt::print("\n");
  for (int f = 0; f < fault_count; ++f) {
    fmt::print("  {:<20}", to_string(static_cast<Fault>(f)));
    for (const auto count : faults[static_cast<std::size_t>(f)])
      fmt::print(" {:>8}", count);
    fmt::print("\n");
  }
  fmt::print("gpumod's end (crash / power cut) × command\n");
  for (int c = 0; c < command_count; ++c) {
    fmt::print("  {:<20}", to_string(static_cast<Command::Kind>(c)));
    for (std::size_t p = 0; p < crashes.size(); ++p)
      fmt::print(" {:>7}/{:<7}", crashes[p][static_cast<std::size_t>(c)], power_cuts[p][static_cast<std::size_t>(c)]);
    fmt::print("\n");
  }
}

}  // namespace gpumod::simulation
