// How far a switch has come, for whoever asked for progress: percent by the time that its steps are expected to take,
// what goes on, and how long it may take yet. It never goes back: what is undone is more work, not less done.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "base/time.h"

namespace gpumod::mcp {

class Meter {
 public:
  struct Reading {
    double percent = 0;
    std::string words;  ///< "start chat: under way, 40 %, about 12 s left"
  };
  /// An event of a worker (verbs/worker.h). Nothing when it is not worth telling.
  std::optional<Reading> on_event(const boost::json::object& event, TimePoint now);
  /// While no event comes: the same step, further on.
  std::optional<Reading> on_tick(TimePoint now);

 private:
  struct Step {
    std::int64_t index = 0;
    double expected = 1;  ///< seconds
    bool over = false;
    std::optional<TimePoint> began;
  };
  Step& step_of(std::int64_t index);
  std::optional<Reading> reading(TimePoint now);

  std::vector<Step> steps_;
  std::optional<TimePoint> expected_end_;
  std::string doing_;
  double shown_ = 0;
};

}  // namespace gpumod::mcp
