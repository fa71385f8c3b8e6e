#include "verbs/worker.h"

#include <boost/json.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/async.h"
#include "base/log.h"
#include "control/lock.h"
#include "model/json.h"
#include "verbs/change_record.h"
#include "verbs/context.h"
#include "verbs/door.h"
#include "verbs/line_peer.h"
#include "verbs/verb.h"

extern char** environ;

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr int caller_fd = 3;

/// The caller, for as long as it is there: the work goes on without it.
Task<void> listen_for_cancel(LinePeer& caller, Context& context) {
  for (;;) {
    const auto message = co_await caller.object();
    if (!message) co_return;
    if (message->contains("cancel")) context.cancel();
  }
}

Task<Result<json::value>> perform(Context& context, const Paths& paths, std::string line, std::unique_ptr<Door>& door) {
  std::error_code malformed;
  const auto message = json::parse(line, malformed);
  if (malformed || !message.is_object()) co_return fail(ErrorCode::usage, "the request is not JSON");
  const auto* body = message.as_object().if_contains("request");
  json::object request = body && body->is_object() ? body->as_object() : json::object();
  const auto verb = find_verb(text_of(message.as_object(), "verb"));
  if (!verb) co_return fail(verb.error());
  if (const auto checked = check_request(**verb, request); !checked) co_return fail(checked.error());
  std::string about = (*verb)->name;
  for (const auto& parameter : (*verb)->parameters)
    if (parameter.positional) about += " " + text_of(request, parameter.name);
  const auto lock = MutationLock::acquire(paths, about);
  if (!lock) co_return fail(lock.error());
  auto opened = Door::open(context.loop(), paths, about, [&context] { context.cancel(); });
  if (opened)
    door = std::move(*opened);
  else
    log_warning("nobody can follow this worker: {}", opened.error().message);
  const auto remembered = co_await context.remember_what_runs();
  Result<json::value> answer = json::value();
  if (remembered)
    answer = co_await (*verb)->handler(context, std::move(request));
  else
    answer = fail(remembered.error());
  if (door) door->shut();
  co_return answer;
}

json::object record_in(const std::string& line) {
  std::error_code malformed;
  const auto message = json::parse(line, malformed);
  const auto* record = malformed || !message.is_object() ? nullptr : message.get_object().if_contains("record");
  return record && record->is_object() ? record->get_object() : json::object();
}

Task<bool> serve_one(Loop& loop, LinePeer& caller, const Paths& paths) {
  std::unique_ptr<Door> door;  // of the lock's holder
  Context context(loop, paths, [&](json::object event) {
    caller.send(event);
    if (door) door->tell(event);
  });
  auto line = co_await caller.line();
  if (!line) co_return false;
  // Both may outlive each other: the listener ends with the process.
  loop.spawn(listen_for_cancel(caller, context));
  const auto record = record_in(*line);
  auto answer = co_await perform(context, paths, std::move(*line), door);
  // Before anybody is told of the end: who was told finds it there.
  if (!record.empty())
    if (const auto written = append_record(change_record_of(paths), record_of_end(record, answer)); !written)
      log_warning("the end of a change could not be recorded: {}", written.error().message);
  json::object last;
  if (answer)
    last["answer"] = std::move(*answer);
  else
    last["error"] = to_json(answer.error());
  caller.send(last);
  if (door) co_await door->close(last);
  co_await caller.drain();
  // The context's destructors need the loop, the listener needs the context: the process ends here and now instead.
  ::_exit(answer ? 0 : static_cast<int>(answer.error().code));
}

}  // namespace

int worker_main() {
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  ::signal(SIGINT, SIG_IGN);
  const auto paths = Paths::from_environment();
  if (!paths) return static_cast<int>(paths.error().code);
  if (make_directories(paths->state, 0700)) (void)log_to_file(paths->state / "worker.log");
  Loop loop;
  LinePeer caller(caller_fd);
  return loop.run_until_done(serve_one(loop, caller, *paths)) ? 0 : 1;
}

Result<StartedWorker> start_worker(const Paths& paths, std::string_view verb, const json::object& request,
                                   const json::object& record) {
  const auto program = TRY(own_executable());
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return fail(system_error("create a socket pair", errno, ErrorCode::environment));
  StartedWorker worker;
  worker.socket.reset(ends[0]);
  const Fd theirs(ends[1]);
  TRY(make_own_directory(paths.state, "GPUMOD_STATE_DIR"));
  const auto crash_log = (paths.state / "worker.stderr").string();
  const Fd last_words(::open(crash_log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!last_words) return fail(or_elsewhere(unwritable(fmt::format("open {}", crash_log), errno), "GPUMOD_STATE_DIR"));

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, last_words.get(), 2);
  ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), caller_fd);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t nothing;
  ::sigemptyset(&nothing);
  ::posix_spawnattr_setsigmask(&attributes, &nothing);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);  // no terminal can hang it up
  std::string name = program.string(), word = "worker";
  char* argv[] = {name.data(), word.data(), nullptr};
  const int problem = ::posix_spawn(&worker.pid, name.c_str(), &actions, &attributes, argv, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (problem != 0) return fail(system_error("start the worker", problem, ErrorCode::environment));

  json::object message{{"verb", verb}, {"request", request}};
  if (!record.empty()) message["record"] = record;
  const auto line = json::serialize(message) + "\n";
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t n = ::send(worker.socket.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(system_error("talk to the worker", errno, ErrorCode::environment));
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  return worker;
}

void cancel_worker(const StartedWorker& worker) {
  const std::string_view line = "{\"cancel\":true}\n";
  (void)::send(worker.socket.get(), line.data(), line.size(), MSG_NOSIGNAL);
}

Result<std::optional<json::value>> follow_worker(const StartedWorker& worker,
                                                 const std::function<void(const json::object&)>& on_event,
                                                 const std::function<bool()>& interrupted) {
  std::string received;
  for (;;) {
    if (const auto end = received.find('\n'); end != std::string::npos) {
      std::error_code malformed;
      const auto message = json::parse(received.substr(0, end), malformed);
      received.erase(0, end + 1);
      if (malformed || !message.is_object()) continue;
      const auto& object = message.as_object();
      if (const auto* answer = object.if_contains("answer")) {
        ::waitpid(worker.pid, nullptr, 0);
        return std::optional<json::value>(*answer);
      }
      if (const auto* error = object.if_contains("error")) {
        ::waitpid(worker.pid, nullptr, 0);
        return fail(error_from_json(*error));
      }
      on_event(object);
      continue;
    }
    if (interrupted()) return std::optional<json::value>();
    pollfd waiting{worker.socket.get(), POLLIN, 0};
    // A signal that arrives between the check and the poll would be missed: wake up now and then to look again.
    const int ready = ::poll(&waiting, 1, 200);
    if (ready < 0 && errno != EINTR) return fail(system_error("wait for the worker", errno));
    if (ready <= 0) continue;
    char buffer[64 * 1024];
    const ssize_t n = ::recv(worker.socket.get(), buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      // Its socket closes a little before its lock: whoever runs gpumod right after us must not find it held.
      ::waitpid(worker.pid, nullptr, 0);
      return fail(ErrorCode::failed, "the worker that carried this out died before it was done",
                  "gpumod status shows what it left; gpumod repair puts it in order.");
    }
    received.append(buffer, static_cast<std::size_t>(n));
  }
}

}  // namespace gpumod
