#include "verbs/qa_tour.h"

#include <algorithm>
#include <map>

namespace gpumod {

/// Hierholzer's algorithm: walk until there is no way on, then go back, and take each mode down when nothing leads out of
/// it any more.
std::vector<ModeId> every_transition(const std::vector<ModeId>& modes, const ModeId& start) {
  if (modes.size() == 1) return {start, start};
  std::map<ModeId, std::vector<ModeId>> ways;
  for (const auto& from : modes)
    for (auto to = modes.rbegin(); to != modes.rend(); ++to)
      if (*to != from) ways[from].push_back(*to);
  std::vector<ModeId> walked{start}, circuit;
  while (!walked.empty()) {
    auto& open = ways[walked.back()];
    if (open.empty()) {
      circuit.push_back(walked.back());
      walked.pop_back();
    } else {
      walked.push_back(open.back());
      open.pop_back();
    }
  }
  std::reverse(circuit.begin(), circuit.end());
  return circuit;
}

std::vector<ModeId> targets_of(const std::vector<ModeId>& sequence, const ModeId& at, int rounds) {
  std::vector<ModeId> targets;
  if (sequence.empty()) return targets;
  for (int round = 0; round < rounds; ++round) {
    const bool there = (round == 0 ? at : sequence.back()) == sequence.front();
    const bool begins_there = there && sequence.size() > 1;
    targets.insert(targets.end(), sequence.begin() + (begins_there ? 1 : 0), sequence.end());
  }
  return targets;
}

}  // namespace gpumod
