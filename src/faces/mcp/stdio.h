// MCP on standard input and output: newline-delimited JSON, the end of the input is the end.
#pragma once

#include "base/async.h"
#include "base/paths.h"
#include "faces/mcp/session.h"

namespace gpumod::mcp {

/// Carries the messages of one session between two descriptors, until the input ends. A client that does not read holds
/// nothing up: progress is dropped for it, and beyond a few MiB of answers it is not listened to until it has read.
class Stdio {
 public:
  /// The descriptors stay the caller's. They are not made non-blocking: a terminal's are shared with others.
  Stdio(Loop& loop, Session& session, int in, int out);
  /// Called after each message.
  std::function<void()> on_message;

  /// Until the input has ended and what was asked for before is answered, or has had a few seconds to be.
  Task<void> run();

 private:
  Task<void> write_rest();
  void send(const boost::json::object& message);
  void flush();
  void take_lines();
  void take(std::string_view line);

  Loop& loop_;
  Session& session_;
  int in_, out_;
  bool waits_for_input_, waits_for_output_;
  bool gone_ = false;
  bool skipping_ = false;  ///< within a line that is too long
  std::string received_, unsent_;
  Signal more_, less_;
};

/// `gpumod mcp`. Never returns before its input has ended: the exit code.
int serve_stdio(const Paths& paths);

}  // namespace gpumod::mcp
