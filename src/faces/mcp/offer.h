// What a server has on offer, as the protocol sees it: tools to call, resources to read. The protocol (session.h) knows
// how to speak of them and with whom, in every revision; an Offer knows what they are and does the work. One is gpumod's
// own (gpumod_offer.h); tests bring others.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "faces/mcp/message.h"

namespace gpumod::mcp {

/// Who asks. What a client says of itself is for display and for the audit; it grants nothing.
struct Caller {
  std::string name;      ///< printable; "unknown" when it did not say
  std::string version;   ///< printable; may be empty
  std::string protocol;  ///< the revision it speaks
  bool elicits = false;  ///< it can ask its person by a form
};

/// A request under way. It ends with exactly one of finish(), refuse() and ask(); what comes after the end, or after the
/// client has taken the request back, is dropped.
class Call {
 public:
  virtual ~Call() = default;

  const Caller& caller() const { return caller_; }
  const std::string& subject() const { return subject_; }              ///< the tool's name, or the resource's URI
  const boost::json::object& params() const { return params_; }        ///< as they came
  const boost::json::object& arguments() const { return arguments_; }  ///< of a tool
  /// What the person answered to ask(), by key: {"action", "content"}. Empty on the first round.
  const boost::json::object& inputs() const { return inputs_; }
  const std::string& state() const { return state_; }  ///< what ask() left with the client
  bool wants_progress() const { return wants_progress_; }

  virtual void finish(boost::json::object result) = 0;
  virtual void refuse(Fault fault) = 0;
  /// Has the client answer `requests` ({key: {"method", "params"}}) and makes the call again with what came back. Only
  /// for a caller that can.
  virtual void ask(boost::json::object requests, std::string state) = 0;
  /// Sent only when wanted, and only when `done` has grown.
  virtual void progress(double done, double total, const std::string& message) = 0;
  /// Another notification that belongs to this request.
  virtual void notify(std::string_view method, boost::json::object params) = 0;

  /// Set by whoever does the work: called once when the client takes the request back.
  std::function<void()> on_cancel;

 protected:
  Caller caller_;
  std::string subject_;
  boost::json::object params_, arguments_, inputs_;
  std::string state_;
  bool wants_progress_ = false;
};
using CallRef = std::shared_ptr<Call>;

class Offer {
 public:
  virtual ~Offer() = default;
  virtual boost::json::object server_info() = 0;  ///< {"name","title","version"}
  virtual std::string instructions() = 0;
  /// {"tools":{}, …}
  virtual boost::json::object capabilities() = 0;
  /// Declarations, in a stable order.
  virtual boost::json::array tools() = 0;
  virtual boost::json::array resources() = 0;
  virtual boost::json::array resource_templates() = 0;
  virtual bool has_resource(const std::string& uri) = 0;
  virtual void call_tool(CallRef call) = 0;
  virtual void read_resource(CallRef call) = 0;
  /// A request of another method. False: there is no such method.
  virtual bool other(const std::string& method, CallRef call) = 0;
  /// Somebody has begun or ended to follow resources: whoever looks for changes may have more or less to do.
  virtual void subscriptions_changed() = 0;
};

}  // namespace gpumod::mcp
