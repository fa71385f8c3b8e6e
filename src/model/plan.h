// A plan: the steps of a switch, what each waits for, and what it does to memory.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "model/footprint.h"
#include "model/snapshot.h"

namespace gpumod {

enum class Action { start, stop, load, unload, sleep, wake, verify };
std::string_view to_string(Action action);

/// stop, unload and sleep give memory back; start, load and wake take it.
bool frees(Action action);
bool allocates(Action action);

struct Step {
  int index = 0;
  Action action = Action::verify;
  ServiceId service;  ///< empty for an orphan unit, and for a router's own start and stop
  std::string unit;
  std::vector<int> after;                           ///< indexes of steps that must be done first
  std::vector<GpuIndex> gpus;                       ///< the GPUs it allocates on or frees
  std::map<GpuIndex, Bytes> claim;                  ///< what it takes at its peak; empty: nothing, or unknown
  ClaimSource claim_source = ClaimSource::unknown;  ///< of `claim`; with several GPUs, of the last
  /// What is thought to come back when it frees. Missing for a GPU where its unit holds nothing, or nobody knows how much.
  std::map<GpuIndex, Bytes> gives;
  /// Of a sleep or an unload: the most that its unit may hold afterwards. Empty: NVML does not say what it holds now.
  std::map<GpuIndex, Bytes> ceiling;
  Residency target = Residency::running;
  std::optional<Duration> expected;  ///< how long it took before; unset: it was never seen
  std::string why;                   ///< for people: "outside the mode", "does not answer"

  /// What people call it: the service, or the unit.
  const std::string& subject() const { return service.empty() ? unit : service; }
};

struct Plan {
  std::vector<Step> steps;
  std::map<GpuIndex, Bytes> free_before;
  std::map<GpuIndex, Bytes> free_after;  ///< predicted
  std::optional<Duration> expected;      ///< until the last step is done; unset: of some step it is not known
  std::vector<std::string> notes;        ///< things a person should know before: "vram of 'x' is unknown"
  std::vector<std::string> left_alone;   ///< what runs, is not as a file of people's says, and stays so: in words

  /// True when nothing has to change: everything wanted runs, nothing else does.
  bool only_verifies() const;
};

}  // namespace gpumod
