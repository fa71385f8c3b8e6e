// Verbs run for assistants. A read gets a loop on a thread of its own, as a command line of its own would have one; a
// change is carried out by a worker, the same as any other face's. Few reads run at once, in two lanes: a look at what
// runs never waits for one that may take its time (tools.h).
#pragma once

#include <deque>

#include "base/async.h"
#include "base/paths.h"
#include "faces/mcp/gpumod_offer.h"

namespace gpumod::mcp {

class VerbHands : public Hands {
 public:
  /// Both must outlive whatever was begun.
  VerbHands(Loop& loop, Paths paths);

  void run(const Verb& verb, boost::json::object request, OnEvent on_event, Done done) override;
  std::function<void()> run_in_worker(const Verb& verb, boost::json::object request, boost::json::object record,
                                      OnEvent on_event, Done done) override;
  McpSettings settings() override;
  const std::set<std::string>& secrets() override { return secrets_; }
  Result<void> record(const boost::json::object& line) override;
  TimePoint now() override { return gpumod::now(); }

 private:
  struct Waiting {
    const Verb* verb;
    boost::json::object request;
    OnEvent on_event;
    Done done;
  };
  struct Lane {
    std::size_t most_at_once;
    std::deque<Waiting> waiting;
    std::size_t running = 0;
  };

  Task<void> run_apart(Lane* lane, Waiting what);
  void begin_next(Lane& lane);

  Loop& loop_;
  Paths paths_;
  /// Of every catalogue that a verb has read: a value that was a secret stays one, for logs keep it.
  std::set<std::string> secrets_;
  bool knows_secrets_ = false;
  // Together fewer than there are helper threads (base/async.h), of which each may need one: a lane that is stuck leaves
  // the other some.
  Lane quick_{3, {}};
  Lane slow_{2, {}};
};

}  // namespace gpumod::mcp
