// Streamable HTTP, as far as it is protocol: which requests are let in, what their headers have to say, which status an
// answer has, and whether it is one JSON object or a stream of events. It opens no socket: whoever does hands it requests.
//
//   modern  each request stands for itself. Its headers repeat what its body says, for whoever stands between; where they
//           differ it is refused. A client that leaves has taken its request back.
//   legacy  `initialize` opens a session, which later requests name. A client that leaves has only stopped listening.
//
// Nothing but the machine itself is let in by name (Host, Origin), so that no web page can reach it through a name of its
// own. Who the person is has to be proven to whoever opens the socket.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>

#include "faces/mcp/session.h"

namespace gpumod::mcp {

struct HttpRequest {
  std::string method;
  std::map<std::string, std::string> headers;  ///< names in small letters
  std::string body;
};

/// The way back of one request. Either whole() once, or event() some times and then end().
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  virtual void whole(int status, std::map<std::string, std::string> headers, std::string body) = 0;
  /// Status 200, text/event-stream, from the first on.
  virtual void event(const boost::json::object& message) = 0;
  virtual void end() = 0;
};
using HttpReplyRef = std::shared_ptr<HttpReply>;

class HttpDoor {
 public:
  explicit HttpDoor(Offer& offer);
  ~HttpDoor();
  HttpDoor(const HttpDoor&) = delete;
  HttpDoor& operator=(const HttpDoor&) = delete;

  /// What is returned is to be called when the client leaves before the end; it may be empty.
  std::function<void()> handle(HttpRequest request, HttpReplyRef reply);
  /// To all sessions.
  void changed(const std::string& uri);
  std::set<std::string> followed() const;

 private:
  using SessionRef = std::shared_ptr<Session>;
  std::function<void()> handle_modern(const HttpRequest& request, Message message, HttpReplyRef reply);
  void handle_legacy(const HttpRequest& request, Message message, HttpReplyRef reply);
  SessionRef open_session(std::string& id);
  void forget_ended();

  Offer& offer_;
  std::deque<std::pair<std::string, SessionRef>> sessions_;  ///< legacy, oldest first
  std::deque<SessionRef> lone_;                              ///< modern, one a request
};

}  // namespace gpumod::mcp
