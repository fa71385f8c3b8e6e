// Slow or stuck? A start is slow as long as it shows any sign of life: a line in its log, a new process, CPU time in any
// of its processes, bytes read or written, VRAM taken. One that shows none for long enough will not come up, and nobody
// needs to wait for its deadline. One that does show signs when its deadline comes gets more time: a first start may
// compile kernels for many minutes without a word.
//
//   stuck        no sign for half of startup_timeout, at most two minutes
//   out of time  startup_timeout when it shows no signs any more; three times that at the latest
//
// Pure: what was seen and when goes in. A CPU threshold alone lost: compilers are children that come and go between two
// looks. Trusting the log alone lost: nvcc and torch.compile say nothing for minutes.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/units.h"
#include "host/usage.h"

namespace gpumod {

class Progress {
 public:
  /// `patience`: startup_timeout.
  Progress(Duration patience, TimePoint began);

  /// What was seen of the unit's processes at one moment.
  struct Look {
    std::map<pid_t, ProcessUsage> processes;
    std::optional<Bytes> vram;  ///< unset: not known
  };
  void look(Look seen, TimePoint at);
  void line(TimePoint at) { sign(at); }
  /// The server has answered a question of ours: what that cost it is no sign of progress.
  void answered() { ++answers_; }
  /// Its processes are not to be seen (a container's): it is never called stuck.
  void blindfold() { blind_ = true; }

  bool stuck(TimePoint at) const { return !blind_ && at - last_sign_ >= stall_limit_; }
  bool out_of_time(TimePoint at) const;
  /// The next moment at which one of the two may become true.
  TimePoint next_verdict(TimePoint at) const;
  /// How often to look: nothing signals CPU time or bytes read. A tenth of the stall limit bounds how late the verdict
  /// is; more often than ten times or more seldom than once in two seconds helps nobody.
  Duration look_interval() const;
  /// "for 30 s it wrote no log line, started no process, used no CPU, read nothing and took no VRAM"
  std::string silence(TimePoint at) const;

 private:
  void sign(TimePoint at) { last_sign_ = std::max(last_sign_, at); }

  Duration patience_;
  Duration stall_limit_;
  TimePoint began_;
  TimePoint last_sign_;
  std::optional<Look> last_;
  TimePoint last_at_{};
  int answers_ = 0;
  bool blind_ = false;
};

/// A start that shows signs of life may take so many times its startup_timeout.
constexpr int slow_start_factor = 3;

}  // namespace gpumod
