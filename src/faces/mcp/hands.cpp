#include "faces/mcp/hands.h"

#include <boost/json.hpp>
#include <sys/wait.h>

#include "model/json.h"
#include "verbs/context.h"
#include "verbs/line_peer.h"
#include "verbs/worker.h"

namespace gpumod::mcp {

namespace json = boost::json;

namespace {

/// Fewer than there are helper threads: each of these may need some itself.
constexpr std::size_t most_at_once = 3;

struct Apart {
  Result<json::value> answer;
  std::vector<json::object> events;
};

void run_verb(Apart& apart, const Paths& paths, const Verb& verb, json::object request) {
  Loop loop;
  Context context(loop, paths, [&apart](json::object event) { apart.events.push_back(std::move(event)); });
  apart.answer = loop.run_until_done(verb.handler(context, std::move(request)));
}

Error died() {
  return Error{ErrorCode::failed,
               "the worker that carried this out died before it was done",
               "gpumod status shows what it left; gpumod repair puts it in order.",
               {}};
}

Task<void> follow(std::shared_ptr<StartedWorker> worker, Hands::OnEvent on_event, Hands::Done done) {
  LinePeer peer(worker->socket.get());
  Result<json::value> answer = fail(died());
  for (;;) {
    const auto message = co_await peer.object();
    if (!message) break;
    if (const auto* given = message->if_contains("answer")) {
      answer = *given;
      break;
    }
    if (const auto* error = message->if_contains("error")) {
      answer = fail(error_from_json(*error));
      break;
    }
    on_event(*message);
  }
  // With it its lock is gone: what is asked next finds nobody at work.
  std::function<void()> reap = [pid = worker->pid] { ::waitpid(pid, nullptr, 0); };
  co_await run_blocking(std::move(reap));
  done(std::move(answer));
}

}  // namespace

VerbHands::VerbHands(Loop& loop, Paths paths) : loop_(loop), paths_(std::move(paths)) {}

void VerbHands::run(const Verb& verb, json::object request, OnEvent on_event, Done done) {
  waiting_.push_back({&verb, std::move(request), std::move(on_event), std::move(done)});
  begin_next();
}

void VerbHands::begin_next() {
  if (waiting_.empty() || running_ >= most_at_once) return;
  auto next = std::move(waiting_.front());
  waiting_.pop_front();
  ++running_;
  loop_.spawn(run_apart(next.verb, std::move(next.request), std::move(next.on_event), std::move(next.done)));
}

Task<void> VerbHands::run_apart(const Verb* verb, json::object request, OnEvent on_event, Done done) {
  const auto apart = std::make_shared<Apart>();
  std::function<void()> work = [apart, paths = paths_, verb, request = std::move(request)] {
    run_verb(*apart, paths, *verb, request);
  };
  co_await run_blocking(std::move(work));
  --running_;
  begin_next();
  if (on_event)
    for (const auto& event : apart->events)
      on_event(event);
  done(std::move(apart->answer));
}

std::function<void()> VerbHands::run_in_worker(const Verb& verb, json::object request, OnEvent on_event, Done done) {
  auto started = start_worker(paths_, verb.name, request);
  if (!started) {
    done(fail(std::move(started).error()));
    return nullptr;
  }
  const auto worker = std::make_shared<StartedWorker>(std::move(*started));
  loop_.spawn(follow(worker, std::move(on_event), std::move(done)));
  return [worker] { cancel_worker(*worker); };
}

McpSettings VerbHands::settings() {
  return load_settings(paths_).mcp;
}

Result<void> VerbHands::record(const json::object& line) {
  return append_record(paths_.state / "mcp.log", line);
}

}  // namespace gpumod::mcp
