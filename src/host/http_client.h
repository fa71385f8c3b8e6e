// One HTTP/1.1 request with a deadline over everything: connect, send, receive. For control and probes, not for relay.
#pragma once

#include "base/async.h"
#include "model/http.h"

namespace gpumod {

class HttpClient {
 public:
  virtual ~HttpClient() = default;
  /// Errors: failed, with the stage in the message ("connect 127.0.0.1:7070: Connection refused", "no answer within 5
  /// s"); cancelled, when `given_up` is set meanwhile: the connection is closed at once, so that the server need not go
  /// on. Every HTTP status is a reply, not an error. Handles Content-Length, chunked and read-until-close bodies.
  virtual Task<Result<HttpReply>> request(HttpRequest request, Signal* given_up = nullptr) = 0;
};

std::unique_ptr<HttpClient> make_http_client(Loop& loop);

}  // namespace gpumod
