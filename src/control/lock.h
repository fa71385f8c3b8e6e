// The mutation lock: one writer at a time, across processes. The kernel lets go of it when its holder dies, however it
// dies, so there is no stale lock to clean up.
#pragma once

#include <optional>
#include <string>

#include <sys/types.h>

#include "base/fd.h"
#include "base/paths.h"
#include "base/time.h"

namespace gpumod {

class MutationLock {
 public:
  /// `about`: what it is held for, in words. Errors: busy, naming the holder and what it does.
  static Result<MutationLock> acquire(const Paths& paths, const std::string& about);

 private:
  explicit MutationLock(Fd file) : file_(std::move(file)) {}
  Fd file_;
};

/// Who holds the lock now.
struct MutationHolder {
  pid_t pid = 0;      ///< 0 in the moment between taking the lock and saying so
  std::string about;  ///< what it is held for, in words
  WallTime since;
};
std::optional<MutationHolder> mutation_holder(const Paths& paths);

}  // namespace gpumod
