// How often one client may do something, and the record of what was done.
#pragma once

#include <deque>
#include <filesystem>
#include <map>
#include <string>

#include <boost/json/object.hpp>

#include "base/result.h"
#include "base/time.h"
#include "base/units.h"

namespace gpumod::mcp {

/// So many in any minute of one client. Clients name themselves, so all of them together get four times as many, under
/// however many names.
class RateLimit {
 public:
  bool take(const std::string& client, int per_minute, TimePoint now);

 private:
  std::deque<std::pair<TimePoint, std::string>> taken_;
};

/// One JSON object a line, only ever added to, 0600. A file that would grow beyond `most` is put away first, as FILE.1 in
/// the place of the one before. Any number of processes may write at once: the file itself is the lock (flock).
/// Errors: as of writing a file.
Result<void> append_record(const std::filesystem::path& file, const boost::json::object& record,
                           Bytes most = Bytes::mib(4));

}  // namespace gpumod::mcp
