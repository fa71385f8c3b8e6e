// The other end of a socket that carries newline-delimited JSON. It may leave at any time, or not read: that is no error
// to whoever works, and holds nothing up.
#pragma once

#include <optional>
#include <string>

#include <boost/json/object.hpp>

#include "base/async.h"

namespace gpumod {

class LinePeer {
 public:
  /// The descriptor stays the caller's; it is made non-blocking.
  explicit LinePeer(int fd);

  void send(const boost::json::object& message);
  /// Before ending: gives a slow reader a moment for the rest.
  Task<void> drain();
  /// The next line that is a JSON object, or nothing when the other end has closed.
  Task<std::optional<boost::json::object>> object();
  /// The next line, or nothing when the other end has closed.
  Task<std::optional<std::string>> line();

 private:
  void flush();

  int fd_;
  bool gone_ = false;
  std::string unsent_;
  std::string received_;
};

}  // namespace gpumod
