// Verbs run for assistants. A read gets a loop on a helper thread, as a command line of its own would have one, so that a
// slow one holds nothing up; a change is carried out by a worker, the same as any other face's.
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
  std::function<void()> run_in_worker(const Verb& verb, boost::json::object request, OnEvent on_event,
                                      Done done) override;
  McpSettings settings() override;
  Result<void> record(const boost::json::object& line) override;
  TimePoint now() override { return gpumod::now(); }

 private:
  Task<void> run_apart(const Verb* verb, boost::json::object request, OnEvent on_event, Done done);
  void begin_next();

  Loop& loop_;
  Paths paths_;
  struct Waiting {
    const Verb* verb;
    boost::json::object request;
    OnEvent on_event;
    Done done;
  };
  std::deque<Waiting> waiting_;
  std::size_t running_ = 0;
};

}  // namespace gpumod::mcp
