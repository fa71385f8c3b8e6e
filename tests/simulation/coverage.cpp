#include "coverage.h"

#include <fmt/format.h>

namespace gpumod::simulation {

namespace {

constexpr std::array<std::string_view, 6> phase_names{"looking",      "preflighting",    "acting",
                                                      "looking back", "looking to undo", "undoing"};
constexpr std::array<std::string_view, 5> phase_event_names{"observed", "not observed", "preflight_ok",
                                                            "preflight_failed", "cancel"};
constexpr std::array<std::string_view, 4> point_names{"before the journal", "in the journal", "before acting", "after acting"};

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

std::vector<std::string> Coverage::faults_in_coverage() const {
  std::vector<std::string> found;
  (void)phase_names, (void)phase_event_names, (void)point_names;
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
