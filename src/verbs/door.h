// The door of the worker that holds the mutation lock: a socket in the runtime directory at which another gpumod of the
// same user can follow what goes on, and ask for it to be taken back. Everyone who knocks is told how it ends.
//
//   worker → visitor   {"working": "mode switch code", "pid": 4242}    once, first
//   visitor → worker   {"cancel": true}                  take it back
//                      {"event": …, …}                   progress, from then on
//                      {"answer": …} or {"error": …}     once, last
//
// A signal lost against it: it can be sent to whoever got the pid meanwhile, needs a second channel for the outcome, and
// tells the worker nothing about who asks. The runtime directory (0700) keeps other users out; that the visitor is of
// the same user, or root, is asked of the kernel all the same.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "base/async.h"
#include "base/fd.h"
#include "base/paths.h"
#include "verbs/line_peer.h"

namespace gpumod {

class Door {
 public:
  /// Only for the holder of the mutation lock: what an earlier worker left of its socket is replaced. `working`: what
  /// goes on, in words. Errors: environment when the socket cannot be made.
  static Result<std::unique_ptr<Door>> open(Loop& loop, const Paths& paths, std::string working,
                                            std::function<void()> on_cancel);
  ~Door();

  /// Progress, for everyone who follows.
  void tell(const boost::json::object& event);
  /// Nobody is let in any more. Before the lock is given back: then the place belongs to whoever takes it next.
  void shut();
  /// The last word, to everyone who was let in.
  Task<void> close(boost::json::object last);

 private:
  struct State;
  explicit Door(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

struct Knocked {
  std::string working;
  pid_t pid = 0;
  Result<boost::json::value> outcome;  ///< as the worker's own caller gets it
};

/// Asks the worker `meant`, or without one the worker that holds the lock when this begins, to take back what it does,
/// and waits for how that ends. Never another one that has begun since: whoever asked cannot have meant that.
/// Errors: not_found when nothing is under way; refused when what was meant has ended and something else is under way;
/// failed when the worker died or does not open.
Task<Result<Knocked>> knock_and_cancel(Paths paths, std::optional<pid_t> meant = {});

}  // namespace gpumod
