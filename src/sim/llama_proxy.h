// A router passing a request on to its child, byte for byte, and leaving it as soon as the client leaves.
#pragma once

#include <functional>

#include "base/async.h"
#include "sim/http_server.h"

namespace gpumod::sim {

struct ProxyOrder {
  std::uint16_t port = 0;
  ServerRequest request;
  std::shared_ptr<void> ticket;  ///< held until the last byte
};

/// What the child answers, as a stream; "proxy error: …" with 500 when it does not answer, as the real router has it.
Task<ServerReply> proxy_to_child(ProxyOrder order);

}  // namespace gpumod::sim
