// HTTP as values: what an engine wants to ask, and what came back. host/ carries it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/time.h"

namespace gpumod {

struct HttpRequest {
  std::string method = "GET";
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
  std::string target = "/";
  std::string body;  ///< sent as application/json when not empty
  std::map<std::string, std::string> headers;
  std::string bearer;     ///< a key: it goes only to a listener that our own user, or root, has opened on the port
  Duration timeout = 5s;  ///< from connect to the last byte of the answer
  bool timed = false;     ///< the reply says when its pieces came
};

/// How much of a body had come, how long after the request was begun.
struct Arrival {
  std::size_t length = 0;  ///< bytes of the body, from its beginning
  Duration after{};
};

struct HttpReply {
  int status = 0;
  std::string content_type;
  std::string body;               ///< at most 8 MiB; longer answers are an error
  std::vector<Arrival> arrivals;  ///< of a timed request: the first 16384, and the whole body
};

}  // namespace gpumod
