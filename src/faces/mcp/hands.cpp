#include "faces/mcp/hands.h"

#include <boost/json.hpp>
#include <sys/wait.h>

#include "catalog/catalog.h"
#include "model/json.h"
#include "verbs/change_record.h"
#include "verbs/context.h"
#include "verbs/line_peer.h"
#include "verbs/worker.h"

namespace gpumod::mcp {

namespace json = boost::json;

namespace {

struct Apart {
  Result<json::value> answer;
  std::vector<json::object> events;
  std::set<std::string> secrets;
  bool knows_secrets = false;  ///< before the verb is run: of an earlier one
};

void run_verb(Apart& apart, const Paths& paths, const Verb& verb, json::object request) {
  Loop loop;
  Context context(loop, paths, [&apart](json::object event) { apart.events.push_back(std::move(event)); });
  apart.answer = loop.run_until_done(verb.handler(context, std::move(request)));
  // Most verbs have read the catalogue; for one that has not it is read once, so that the first answer is clean, too.
  if (!apart.knows_secrets) (void)context.catalog();
  if (const auto* catalog = context.catalog_read()) {
    apart.secrets = catalog->secrets;
    apart.knows_secrets = true;
  }
}

Error died() {
  return Error{ErrorCode::failed,
               "the worker that carried this out died before it was done",
               "gpumod status shows what it left; gpumod repair puts it in order.",
               {}};
}

Task<void> follow(std::shared_ptr<StartedWorker> worker, Hands::OnEvent on_event, Hands::Done if_it_died,
                  Hands::Done done) {
  LinePeer peer(worker->socket.get());
  Result<json::value> answer = fail(died());
  bool died_silent = true;
  for (;;) {
    const auto message = co_await peer.object();
    if (!message) break;
    if (const auto* given = message->if_contains("answer")) {
      answer = *given;
      died_silent = false;
      break;
    }
    if (const auto* error = message->if_contains("error")) {
      answer = fail(error_from_json(*error));
      died_silent = false;
      break;
    }
    on_event(*message);
  }
  // With it its lock is gone: what is asked next finds nobody at work.
  std::function<void()> reap = [pid = worker->pid] { ::waitpid(pid, nullptr, 0); };
  co_await run_blocking(std::move(reap));
  if (died_silent) if_it_died(answer);
  done(std::move(answer));
}

}  // namespace

VerbHands::VerbHands(Loop& loop, Paths paths)
    : loop_(loop), paths_(std::move(paths)), secrets_{environment_variable("HF_TOKEN")} {}

void VerbHands::run(const Verb& verb, json::object request, OnEvent on_event, Done done) {
  auto& lane = takes_its_time(verb) ? slow_ : quick_;
  lane.waiting.push_back({&verb, std::move(request), std::move(on_event), std::move(done)});
  begin_next(lane);
}

void VerbHands::begin_next(Lane& lane) {
  if (lane.waiting.empty() || lane.running >= lane.most_at_once) return;
  auto next = std::move(lane.waiting.front());
  lane.waiting.pop_front();
  ++lane.running;
  loop_.spawn(run_apart(&lane, std::move(next)));
}

Task<void> VerbHands::run_apart(Lane* lane, Waiting what) {
  const auto apart = std::make_shared<Apart>();
  apart->knows_secrets = knows_secrets_;
  std::function<void()> work = [apart, paths = paths_, verb = what.verb, request = std::move(what.request)] {
    run_verb(*apart, paths, *verb, request);
  };
  co_await run_on_own_thread(std::move(work));
  --lane->running;
  secrets_.merge(apart->secrets);
  knows_secrets_ = apart->knows_secrets;
  begin_next(*lane);
  if (what.on_event)
    for (const auto& event : apart->events)
      what.on_event(event);
  what.done(std::move(apart->answer));
}

std::function<void()> VerbHands::run_in_worker(const Verb& verb, json::object request, json::object record,
                                               OnEvent on_event, Done done) {
  // The end that no worker could write is written here.
  auto ended = [this, record](const Result<json::value>& answer) { (void)this->record(record_of_end(record, answer)); };
  auto started = start_worker(paths_, verb.name, request, record);
  if (!started) {
    const Result<json::value> answer = fail(std::move(started).error());
    ended(answer);
    done(answer);
    return nullptr;
  }
  const auto worker = std::make_shared<StartedWorker>(std::move(*started));
  loop_.spawn(follow(worker, std::move(on_event), std::move(ended), std::move(done)));
  return [worker] { cancel_worker(*worker); };
}

McpSettings VerbHands::settings() {
  return load_settings(paths_).mcp;
}

Result<void> VerbHands::record(const json::object& line) {
  return append_record(change_record_of(paths_), line);
}

}  // namespace gpumod::mcp
