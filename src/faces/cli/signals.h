// What people do to a command that takes its time: Ctrl-C, Ctrl-Z, a closed terminal. Signal handlers reach nothing but
// variables of the process, so there is one set of them.
#pragma once

#include <array>

#include <signal.h>

namespace gpumod::cli {

/// Our handlers, for as long as it lives. A signal that our caller made us ignore stays ignored.
class Signals {
 public:
  /// `live`: lines are redrawn in place, so a suspended process has to give the cursor back.
  explicit Signals(bool live);
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  static int interrupts();        ///< how often Ctrl-C was pressed
  static int ended_by();          ///< SIGTERM, SIGHUP or SIGQUIT, if one came; 0 otherwise
  static bool take_suspension();  ///< true once after each time that it was suspended

 private:
  static constexpr std::array<int, 5> numbers{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
  std::array<struct sigaction, numbers.size()> before_{};
  std::array<bool, numbers.size()> installed_{};
};

}  // namespace gpumod::cli
