// A router's child: this very program once more, with one model, a port of its own and three pipes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/async.h"
#include "base/fd.h"

namespace gpumod::sim {

class LlamaChild {
 public:
  /// `words` begins with the program's name as it is shown. Errors: failed.
  static Result<std::shared_ptr<LlamaChild>> start(const std::vector<std::string>& words, std::uint16_t router_port);

  pid_t pid() const { return pid_; }
  int output() const { return output_.get(); }  ///< what it says, both of its outputs
  /// Asks it to end; it may not.
  void order_to_end();
  void kill();
  /// Its exit code once it has ended; 1 for a death by signal, as the real router has it.
  Task<int> end();

 private:
  LlamaChild() = default;
  pid_t pid_ = -1;
  Fd pidfd_;
  Fd input_;
  Fd output_;
};

/// By which name this process can be started again: as it was called, made absolute.
std::string own_program();
/// A port that was free a moment ago.
Result<std::uint16_t> free_port();

}  // namespace gpumod::sim
