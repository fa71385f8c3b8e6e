// The protocol of one client: messages in, messages out, in both eras. It knows no transport: whoever carries messages
// gives each of them to receive(), with the way back for what belongs to it.
//
//   modern (2026-07-28)            every request says in its _meta which revision it speaks and what its client can do;
//                                  nothing is remembered between requests. What needs a person's word is answered with
//                                  "input_required", and the client sends the request again with the answer.
//   legacy (2024-11-05 … 2025-11-25)  `initialize` says so once, for all requests after it. What needs a person's word is
//                                  asked by a request of ours on the way back.
//
// A request with the modern _meta is modern whatever came before. Otherwise it is legacy, and has to come after
// `initialize` (a ping may come before). A request that is taken back gets no answer.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "faces/mcp/offer.h"

namespace gpumod::mcp {

constexpr std::string_view modern_version = "2026-07-28";
/// Oldest first.
const std::vector<std::string>& legacy_versions();
bool is_legacy_version(std::string_view version);

/// Keys of a request's _meta.
constexpr std::string_view meta_version = "io.modelcontextprotocol/protocolVersion";
constexpr std::string_view meta_client = "io.modelcontextprotocol/clientInfo";
constexpr std::string_view meta_capabilities = "io.modelcontextprotocol/clientCapabilities";
constexpr std::string_view meta_server = "io.modelcontextprotocol/serverInfo";
constexpr std::string_view meta_subscription = "io.modelcontextprotocol/subscriptionId";

/// Whether it is of the modern era: it says so in its _meta.
bool is_modern(const Message& message);
/// What is wrong with the _meta of a modern request; nothing when it says all that it has to.
std::optional<Fault> fault_of_meta(const Message& message);

class Session {
 public:
  using Send = std::function<void(const boost::json::object& message)>;

  explicit Session(Offer& offer);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// One message, which may be anything. What answers it goes to `send`, at once or later, until close().
  void receive(std::string_view bytes, const Send& send);
  /// The same, read already.
  void receive(Message message, const Send& send);
  /// A resource is no longer what it was: whoever follows it is told.
  void changed(const std::string& uri);
  /// The resources that are followed.
  std::set<std::string> followed() const;
  std::size_t under_way() const;
  /// The client has gone. With `cancel`, what it asked for is taken back.
  void close(bool cancel);

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace gpumod::mcp
