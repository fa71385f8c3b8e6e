// Who holds how much of each simulated GPU's memory, and how it comes back. Pure: time is passed in, processes are
// names.
//
// Memory that is given back need not be free at once. A release curve says how long the driver still counts it, and
// whether it is still listed under the process meanwhile. Both are seen on real machines: a killed process that the
// driver lists for a while, and memory that nobody is listed for and that is not free either.
//
// A ramp comes in steps (`ramp_steps`), so the ledger is constant between known moments and whoever waits for free
// memory can sleep until the next one. A line that falls smoothly would have to be sampled, and would prove no more.
#pragma once

#include <compare>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/result.h"
#include "base/time.h"
#include "base/units.h"

namespace gpumod::sim {

/// One process for ever: a pid comes again, with another start time.
struct HolderId {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;
  auto operator<=>(const HolderId&) const = default;
};

/// A MIG device: a card of its own, whose memory is a part of another's. It stands behind all that are none.
struct Slice {
  int parent = 0;
  int gpu_instance = 0;  ///< each has one of its own: devices that share an instance are not simulated
};

struct Card {
  std::string name;
  std::string uuid;
  Bytes total;
  Bytes reserved;  ///< the driver's own; nobody can allocate it
  std::optional<Slice> slice = {};
};

struct ReleaseCurve {
  Duration delay{};    ///< nothing comes back so long
  Duration ramp{};     ///< then it comes back bit by bit; zero: all at once
  bool listed = true;  ///< meanwhile still shown under the process
  /// Not only at a process's end: also for what a living one gives back. Off unless asked for: whoever frees and takes
  /// all the time (a browser) would soon have filled the GPU with what is on its way back.
  bool always = false;
};

/// Which of NVML's process lists shows a holder. A browser stands among the graphics processes, some games in both.
enum class Listing { compute, graphics, mps, both };
std::string_view to_string(Listing listing);
std::optional<Listing> listing_named(std::string_view name);

class Ledger {
 public:
  static constexpr int ramp_steps = 32;

  explicit Ledger(std::vector<Card> cards) : cards_(std::move(cards)) {}

  const std::vector<Card>& cards() const { return cards_; }
  bool has_gpu(int gpu) const { return gpu >= 0 && gpu < static_cast<int>(cards_.size()); }
  /// Counts for what is given back from now on.
  void set_curve(ReleaseCurve curve) { curve_ = curve; }

  /// total = reserved + used + free.
  struct Memory {
    Bytes total;
    Bytes reserved;
    Bytes used;
    Bytes free;
  };
  Memory memory(int gpu, TimePoint now) const;

  /// Amounts under one label add up. Errors: failed when less is free, usage when the amount is negative.
  Result<void> allocate(int gpu, HolderId holder, const std::string& label, Bytes amount, TimePoint now);
  void release(int gpu, HolderId holder, const std::string& label, TimePoint now);
  /// The process is no more: all it had on every GPU starts to come back.
  void ended(HolderId holder, TimePoint now);
  void list_as(int gpu, HolderId holder, Listing listing) { listings_[{gpu, holder}] = listing; }
  /// True while the holder has anything or is still listed.
  bool knows(HolderId holder, TimePoint now) const;

  struct Entry {
    HolderId holder;
    Listing listing = Listing::compute;
    Bytes bytes;      ///< what the driver shows: allocated, and returning while listed
    Bytes returning;  ///< of it, given back already
    std::map<std::string, Bytes> allocations;
  };
  /// Who is listed on a GPU, by pid.
  std::vector<Entry> entries(int gpu, TimePoint now) const;
  /// What is neither free nor listed under anybody.
  Bytes unlisted(int gpu, TimePoint now) const;

  /// The next moment after `now` at which memory comes back by itself.
  std::optional<TimePoint> next_change(TimePoint now) const;

 private:
  struct Returning {
    int gpu = 0;
    HolderId holder;
    Bytes amount;
    TimePoint since;  ///< when the delay is over
    Duration ramp{};
    bool listed = true;
    Listing listing = Listing::compute;

    Bytes remaining(TimePoint now) const;
    std::optional<TimePoint> next_change(TimePoint now) const;
  };
  using Key = std::pair<int, HolderId>;

  Listing listing_of(int gpu, HolderId holder) const;
  void return_slowly(int gpu, HolderId holder, Bytes amount, TimePoint now);

  std::vector<Card> cards_;
  ReleaseCurve curve_;
  std::map<Key, std::map<std::string, Bytes>> allocations_;
  std::map<Key, Listing> listings_;
  std::vector<Returning> returning_;
};

}  // namespace gpumod::sim
