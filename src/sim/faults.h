// What can be wrong with the simulated GPU, each as drivers of the field have it. Set at start or while it runs.
//
//   process-record=16|24|32   how long the records are that the _v3 process lists write (24 if not said)
//   na-memory                 the lists do not say how much a process uses: all ones, as under some virtualisations
//   host-pids=OFFSET          the pids are those of another namespace: so much is added to each
//   slow=DURATION             every call takes so long
//   no-memory-info            the memory question is not supported, as on unified memory
//   gpu-lost=INDEX[,INDEX…]   fallen off the bus
//   mig-unprivileged          a GPU in slices does not tell about the whole of itself, only the slices do
//   missing-process-list[=CODE]   the lists answer with this return code; without one they are empty, as in a container
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"

namespace gpumod::sim {

class Faults {
 public:
  /// "NAME" or "NAME=VALUE"; a fault that is set already gets the new value. Errors: usage, for a fault that is none or
  /// a value that does not fit it: a misspelt fault must not pass for its absence.
  Result<void> set(std::string_view text, int gpus);
  Result<void> clear(std::string_view name);

  const std::map<std::string, std::string, std::less<>>& values() const { return values_; }
  bool is_lost(int gpu) const;
  Duration slowness() const;  ///< simulated

 private:
  std::map<std::string, std::string, std::less<>> values_;
};

}  // namespace gpumod::sim
