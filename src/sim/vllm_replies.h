// The pieces that the simulated vLLM's replies are made of: error bodies, request bodies, ids.
#pragma once

#include <string>
#include <variant>

#include <boost/json/object.hpp>

#include "sim/http_server.h"

namespace gpumod::sim {

/// {"error": {"message", "type", "param", "code"}}
ServerReply error_reply(int status, std::string message, std::string type, boost::json::value parameter = nullptr);
ServerReply bad_request(std::string message, boost::json::value parameter = nullptr);
ServerReply detail_reply(int status, const char* detail);  ///< {"detail": …}: the web framework's own
ServerReply empty_reply(int status = 200);

/// The body as an object, or the reply that refuses it.
std::variant<boost::json::object, ServerReply> object_in(const ServerRequest& request);

std::string random_hex();  ///< 32 digits, for ids

/// Counts a request as running as long as it lives.
class Counted {
 public:
  explicit Counted(std::int64_t& count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::int64_t& count_;
};

}  // namespace gpumod::sim
