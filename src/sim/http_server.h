// The HTTP side of a stand-in server: requests in, replies or event streams out, on a loop's thread. Faithful where
// clients notice (status codes, content types, keep-alive, a stream that ends when the client leaves), simple
// elsewhere.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/async.h"
#include "base/result.h"

namespace gpumod::sim {

struct ServerRequest {
  std::string method;
  std::string path;                            ///< without the query
  std::map<std::string, std::string> query;    ///< decoded; a name without '=' has ""
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;                            ///< at most 32 MiB; longer ones are answered 413 before the handler
  std::function<bool()> has_left;              ///< whether the client is gone; asks the socket, valid until the answer
};

struct ServerReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::map<std::string, std::string> headers;
  /// Set: the body is a stream (chunked, no Content-Length), written by this coroutine after the head; `body` is not
  /// used. `write` gives false once the client has left.
  using Write = std::function<Task<bool>(std::string piece)>;
  std::function<Task<void>(Write write)> stream;

  static ServerReply json(std::string body, int status = 200);
};

class HttpServer {
 public:
  using Handler = std::function<Task<ServerReply>(ServerRequest request)>;
  virtual ~HttpServer() = default;
  virtual std::uint16_t port() const = 0;
  /// No new connections; the listener is closed, so the port can be taken. Connections under way go on.
  virtual void stop_listening() = 0;

  /// Listens at once; port 0 takes any. Connections are handled beside each other. Errors: failed ("Address already in
  /// use", with the port).
  static Result<std::unique_ptr<HttpServer>> listen(Loop& loop, const std::string& host, std::uint16_t port,
                                                    Handler handler);
};

}  // namespace gpumod::sim
