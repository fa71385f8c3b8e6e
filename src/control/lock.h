// The mutation lock: one writer at a time, across processes. The kernel lets go of it when its holder dies, however it
// dies, so there is no stale lock to clean up.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/paths.h"

namespace gpumod {

class MutationLock {
 public:
  /// `about`: what it is held for, in words. Errors: busy, naming the holder and what it does.
  static Result<MutationLock> acquire(const Paths& paths, const std::string& about);

 private:
  explicit MutationLock(Fd file) : file_(std::move(file)) {}
  Fd file_;
};

/// The pid that holds the lock now, if anybody does.
std::optional<pid_t> mutation_holder(const Paths& paths);

}  // namespace gpumod
