// What has been exercised: every stage of a step with every event, every phase of the switch with every event of its
// own, every fault with every kind of step, every way to end gpumod with every command. A pair that cannot be reached
// stands in a table with the reason; one that is reached although it stands there is as wrong as one that is missing.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "faults.h"
#include "model/switching.h"
#include "switching/switch.h"

namespace gpumod::simulation {

/// What the switch as a whole waits for.
enum class Phase { looking, preflighting, acting, looking_back, looking_to_undo, undoing, count };
enum class PhaseEvent { observed, not_observed, preflight_ok, preflight_failed, cancel, count };
enum class CrashPoint { before_journal, in_journal, before_acting, after_acting, count };

inline constexpr int stage_count = static_cast<int>(Switch::Stage::failed) + 1;
inline constexpr int event_count = static_cast<int>(Event::Kind::cancel_requested) + 1;
/// Those that are about a step.
inline constexpr int first_step_event = static_cast<int>(Event::Kind::memory_ok);
inline constexpr int last_step_event = static_cast<int>(Event::Kind::not_journaled);
inline constexpr int action_count = static_cast<int>(Action::verify) + 1;
inline constexpr int command_count = static_cast<int>(Command::Kind::finish) + 1;

struct Coverage {
  using Count = std::uint64_t;
  std::array<std::array<Count, event_count + 1>, stage_count> stages{};  // the last column: of an earlier attempt
  std::array<std::array<Count, static_cast<int>(PhaseEvent::count)>, static_cast<int>(Phase::count)> phases{};
  std::array<std::array<Count, action_count>, fault_count> faults{};
  std::array<std::array<Count, command_count>, static_cast<int>(CrashPoint::count)> crashes{};
  std::array<std::array<Count, command_count>, static_cast<int>(CrashPoint::count)> power_cuts{};
  std::array<Count, 7> results{};
  Count switches = 0;
  Count events = 0;
  Count commands = 0;
  Count recoveries = 0;

  void merge(const Coverage& other);
  /// What is missing, and what was reached although it cannot be. Empty: all is as it should be.
  std::vector<std::string> faults_in_coverage() const;
  void print() const;
};

}  // namespace gpumod::simulation
