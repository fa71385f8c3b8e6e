// What will happen when, in virtual time. Entries of the same moment keep the order in which they were made.
#pragma once

#include <algorithm>
#include <vector>

#include "base/time.h"

namespace gpumod::simulation {

enum class Tick : std::uint8_t {
  // the host's
  job_start,
  job_stop,
  stop_over,
  kill,
  exit,
  release,
  delist,
  grow,
  ready,
  die,
  restart,
  model_loaded,
  model_grows,
  nap,
  woken,
  foreign_moves,
  port_freed,
  gpu_back,
  hand,
  // the hands'
  poll,
  // the director's
  deliver,
  cancel,
  second_writer,
  stray,
  jump,
};

struct Entry {
  TimePoint at;
  std::uint64_t order = 0;
  Tick kind = Tick::poll;
  int a = 0;
  int b = 0;
  std::int64_t c = 0;
};

class Agenda {
 public:
  TimePoint now{};

  void add(Duration in, Tick kind, int a = 0, int b = 0, std::int64_t c = 0) {
    heap_.push_back({now + std::max(in, Duration(0)), next_++, kind, a, b, c});
    std::push_heap(heap_.begin(), heap_.end(), later);
  }
  bool empty() const { return heap_.empty(); }
  TimePoint next_at() const { return heap_.front().at; }
  Entry take() {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    Entry entry = heap_.back();
    heap_.pop_back();
    now = std::max(now, entry.at);
    return entry;
  }
  template <typename Drop>
  void drop(Drop unwanted) {
    std::erase_if(heap_, unwanted);
    std::make_heap(heap_.begin(), heap_.end(), later);
  }
  /// The clock leaps; what the world was at has not got further, deadlines have passed.
  void jump(Duration by) {
    now += by;
    for (auto& entry : heap_)
      if (entry.kind < Tick::poll) entry.at += by;
    std::make_heap(heap_.begin(), heap_.end(), later);
  }

 private:
  static bool later(const Entry& a, const Entry& b) { return a.at != b.at ? a.at > b.at : a.order > b.order; }
  std::vector<Entry> heap_;
  std::uint64_t next_ = 0;
};

}  // namespace gpumod::simulation
