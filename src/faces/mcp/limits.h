// How often one client may do something.
#pragma once

#include <deque>
#include <string>

#include "base/time.h"

namespace gpumod::mcp {

/// So many in any minute of one client. Clients name themselves, so all of them together get four times as many, under
/// however many names.
class RateLimit {
 public:
  bool take(const std::string& client, int per_minute, TimePoint now);

 private:
  std::deque<std::pair<TimePoint, std::string>> taken_;
};

}  // namespace gpumod::mcp
