// gpumod's own offer: each tool runs a verb. What it decides is who may do what: the person's setting, their word where
// the client can ask for it, the rate, and the record of every change. The work itself is done by Hands.
//
//   a read         the verb, in this process
//   a dry run      the same, of a verb that changes; always allowed
//   a change       allowed by mcp.allow? → within the rate? → the person agrees, seeing the plan → recorded → the verb in
//                  a worker, with progress → recorded → what is there now is looked at, and told
#pragma once

#include <list>
#include <map>
#include <set>

#include "faces/mcp/limits.h"
#include "faces/mcp/meter.h"
#include "faces/mcp/offer.h"
#include "faces/mcp/scrub.h"
#include "faces/mcp/tools.h"

namespace gpumod::mcp {

/// Runs verbs. Answers come later, on the same thread.
class Hands {
 public:
  using Done = std::function<void(Result<boost::json::value> answer)>;
  using OnEvent = std::function<void(const boost::json::object& event)>;
  virtual ~Hands() = default;
  virtual void run(const Verb& verb, boost::json::object request, OnEvent on_event, Done done) = 0;
  /// In a worker, which writes the end of `record` itself, as it may outlive this process. What it returns takes the
  /// change back.
  virtual std::function<void()> run_in_worker(const Verb& verb, boost::json::object request, boost::json::object record,
                                              OnEvent on_event, Done done) = 0;
  /// As they are now: a person may have changed them since.
  virtual McpSettings settings() = 0;
  /// Values that are known to be secret; they become more, never fewer.
  virtual const std::set<std::string>& secrets() = 0;
  virtual Result<void> record(const boost::json::object& line) = 0;
  virtual TimePoint now() = 0;
};

class GpumodOffer : public Offer {
 public:
  GpumodOffer(Hands& hands, Scrubber scrub, std::string version);

  boost::json::object server_info() override;
  std::string instructions() override;
  boost::json::object capabilities() override;
  boost::json::array tools() override;
  boost::json::array resources() override;
  boost::json::array resource_templates() override;
  bool has_resource(const std::string& uri) override;
  void call_tool(CallRef call) override;
  void read_resource(CallRef call) override;
  bool other(const std::string&, CallRef) override { return false; }
  void subscriptions_changed() override { look_for_changes(); }

  /// Now and then, a second or two apart: progress of what goes on, and what has become of resources that somebody
  /// follows. Nothing signals when memory of a GPU or a unit of somebody else's changes, so it is asked for.
  void tick();
  bool has_to_tick() const;
  /// Which resources are followed, and whom to tell.
  std::function<std::set<std::string>()> followed;
  std::function<void(const std::string& uri)> on_changed;

 private:
  struct Change;
  struct Consent {
    std::string of;  ///< tool and request
    TimePoint until;
  };

  void read(const CallRef& call, const Tool& tool, boost::json::object request);
  void change(const CallRef& call, const Tool& tool, boost::json::object request);
  void ask_first(const CallRef& call, const Tool& tool, const boost::json::object& request);
  void ask(const CallRef& call, const Tool& tool, const boost::json::object& request, const std::string& plan);
  void carry_out(const CallRef& call, const Tool& tool, boost::json::object request);
  void tell_end(const std::shared_ptr<Change>& change, const Result<boost::json::value>& answer);
  void conclude(const CallRef& call, const Tool& tool, const Result<boost::json::value>& answer,
                const std::string& notes, boost::json::value now);
  void look_for_changes();
  /// With all that is known to be secret by now.
  const Scrubber& scrub();

  Hands& hands_;
  Scrubber scrub_;
  std::string version_;
  RateLimit calls_, changes_;
  std::map<std::string, Consent> consents_;
  std::list<std::shared_ptr<Change>> under_way_;
  std::map<std::string, std::string> last_seen_;  ///< of followed resources
  std::set<std::string> being_read_;
};

}  // namespace gpumod::mcp
