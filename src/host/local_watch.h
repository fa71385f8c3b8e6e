// Watches directories and processes for the local supervisor: inotify and pidfds behind one descriptor, read by one
// coroutine that lives only as long as somebody watches.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>

#include "base/async.h"
#include "base/fd.h"

namespace gpumod::local {

class Watcher {
 public:
  /// Errors: environment, when the machine's inotify limits are reached.
  static Result<std::unique_ptr<Watcher>> create(Loop& loop);
  ~Watcher();

  /// Calls back with the name of each file in the directory that was written, replaced or removed; with "" when events
  /// were lost and anything may have changed. The directory must exist.
  Result<Registration> directory(const std::filesystem::path& path, std::function<void(std::string_view)> callback);
  /// Calls back once, when the process has ended.
  Registration process(Fd pidfd, std::function<void()> callback);

 private:
  struct State;
  explicit Watcher(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace gpumod::local
