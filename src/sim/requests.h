// What the broker answers: one line of the protocol (protocol.h) in, an answer or a wait out. Pure: no socket, no
// clock, no /proc; who asks, when, and what processes are called is passed in.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"
#include "base/time.h"
#include "sim/faults.h"
#include "sim/ledger.h"

namespace gpumod::sim {

/// A question whose answer is not known yet: is so much free, does somebody hold that, what comes after that event.
struct ForFree {
  int gpu = 0;
  Bytes amount;
};
struct ForLabel {
  int gpu = 0;
  std::string label;
};
struct ForEvent {
  std::uint64_t after = 0;
};
struct Waiting {
  std::variant<ForFree, ForLabel, ForEvent> what;
  TimePoint deadline;
};

class Requests {
 public:
  struct Setup {
    std::vector<Card> cards;
    std::string driver_version = "580.65.06";
    Faults faults;
    ReleaseCurve curve;  ///< by the clock
    /// The name (comm) of a process, as far as it is known.
    std::function<std::string(HolderId)> command_of;
  };
  explicit Requests(Setup setup);

  /// The answer with its line ends, or what it waits for.
  using Answer = std::variant<std::string, Waiting>;
  Answer answer(HolderId asker, std::string_view line, TimePoint now);
  /// The answer to an earlier question, once it is known or its deadline has come.
  std::optional<std::string> answer_now(const Waiting& waiting, TimePoint now) const;

  void ended(HolderId holder, TimePoint now) { ledger_.ended(holder, now); }
  const Ledger& ledger() const { return ledger_; }

 private:
  struct GpuEvent {
    std::uint64_t number = 0;
    int gpu = 0;
    std::uint64_t type = 0;
    std::uint64_t data = 0;
  };
  class Words;

  Result<Answer> carry_out(HolderId asker, std::string_view verb, Words& words, TimePoint now);
  Result<int> gpu_in(Words& words) const;
  Result<void> set_curve(Words& words);
  Result<void> set_fault(std::string_view text);
  void happened(int gpu, std::uint64_t type, std::uint64_t data);
  std::string look(TimePoint now) const;
  std::string state(TimePoint now) const;

  Ledger ledger_;
  std::string driver_version_;
  Faults faults_;
  ReleaseCurve curve_;
  std::function<std::string(HolderId)> command_of_;
  std::deque<GpuEvent> events_;
  std::uint64_t events_so_far_ = 0;
};

}  // namespace gpumod::sim
