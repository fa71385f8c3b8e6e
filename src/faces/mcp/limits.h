// How often one client may do something, and the record of what was done.
#pragma once

#include <deque>
#include <filesystem>
#include <map>
#include <string>

#include <boost/json/object.hpp>

#include "base/result.h"
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

/// One JSON object a line, only ever added to, 0600. Errors: as of writing a file.
Result<void> append_record(const std::filesystem::path& file, const boost::json::object& record);

}  // namespace gpumod::mcp
