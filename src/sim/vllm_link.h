// What the API server and its engine say to each other: JSON objects, one a line, over a socketpair. The real ones use
// ZeroMQ; what matters here is the same: they are two processes, and either can be gone.
//
//   to the engine    {"arguments": […]}                                       once, first
//                    {"op": "generate", "id": n, "prompt": "…", "max_tokens": n | null}, {"op": "abort", "id": n}
//                    {"op": "embed", "id": n, "inputs": ["…"]}
//                    {"op": "sleep" | "wake_up" | "is_sleeping" | "collective_rpc", "id": n, "level", "mode", "tags",
//                    "method"}
//   to the server    {"ready": true, "max_model_len": n}                      once, when it is up
//                    {"id": n, "text": "…", "reasoning": bool}, then {"id": n, "finish": "stop", "prompt_tokens": n, …}
//                    {"id": n, "vectors": [[…]], …}, {"id": n, "result": …}, {"id": n, "error": "…"}
#pragma once

#include <deque>
#include <optional>
#include <string>

#include <boost/json/object.hpp>

#include "base/async.h"
#include "base/fd.h"

namespace gpumod::sim {

class VllmLink {
 public:
  VllmLink(Loop& loop, Fd socket);  ///< the socket must be non-blocking

  /// Nothing once the other side has gone.
  Task<std::optional<boost::json::object>> receive();
  /// Never waits: what the socket does not take now is sent as soon as it does. To nobody, it is lost.
  void send(const boost::json::object& message);

 private:
  Task<void> flush();
  void write_some();

  Loop& loop_;
  Fd socket_;
  std::string incoming_;
  std::string outgoing_;
  bool flushing_ = false;
};

}  // namespace gpumod::sim
