// The worker: gpumod itself, detached from whoever asked, doing one mutation under the lock. Its caller follows over a
// socket, line by line, and may be gone at any time: the mutation goes on.
//
// The conversation is newline-delimited JSON over a socketpair, the worker's end being its descriptor 3:
//   caller → worker   {"verb": "mode switch", "request": {…}}   once, first; with "record": {…} where it is for an
//                                                               assistant: its end is written there (change_record.h)
//                     {"cancel": true}                          take it back
//   worker → caller   {"event": …, …}                           progress, see ProgressSink
//                     {"answer": …} or {"error": …}             once, last
// Others reach it at its door (door.h).
#pragma once

#include <functional>

#include <boost/json/object.hpp>

#include "base/fd.h"
#include "base/paths.h"
#include "base/result.h"

namespace gpumod {

/// `gpumod worker`: what the detached process runs. Returns its exit code.
int worker_main();

/// Starts a worker for one request. Errors: environment when no process can be started.
struct StartedWorker {
  Fd socket;  ///< the caller's end, blocking
  pid_t pid = 0;
};
Result<StartedWorker> start_worker(const Paths& paths, std::string_view verb, const boost::json::object& request,
                                   const boost::json::object& record = {});

/// Asks it to take back what it does.
void cancel_worker(const StartedWorker& worker);

/// Reads until the answer. `on_event` sees the progress; `interrupted` is polled whenever a signal wakes us, and ends
/// the following when it returns true: then the result is nothing. Errors: what the worker answered; failed when it
/// died without an answer. With an answer or an error the worker is gone, and its lock with it.
Result<std::optional<boost::json::value>> follow_worker(const StartedWorker& worker,
                                                        const std::function<void(const boost::json::object&)>& on_event,
                                                        const std::function<bool()>& interrupted);

}  // namespace gpumod
