#include "verbs/door.h"

#include <cstring>

#include <boost/json.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "control/lock.h"
#include "model/json.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr auto socket_name = "worker.sock";

/// An address holds 107 bytes, a directory's path may be longer: the directory is reached through its descriptor.
struct Address {
  Fd directory;
  sockaddr_un name{};
};

Result<Address> address_in(const std::filesystem::path& runtime) {
  Address address;
  address.directory.reset(::open(runtime.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!address.directory) return fail(system_error(fmt::format("open {}", runtime.string()), errno));
  const auto path = fmt::format("/proc/self/fd/{}/{}", address.directory.get(), socket_name);
  address.name.sun_family = AF_UNIX;
  std::memcpy(address.name.sun_path, path.c_str(), path.size() + 1);
  return address;
}

bool is_of_our_user(int peer) {
  ucred who{};
  socklen_t size = sizeof who;
  return ::getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && (who.uid == ::geteuid() || who.uid == 0);
}

}  // namespace

struct Door::State {
  struct Visitor {
    explicit Visitor(Fd fd) : socket(std::move(fd)), peer(socket.get()) {}
    Fd socket;
    LinePeer peer;
  };

  Loop* loop = nullptr;
  Fd directory;
  Fd listener;
  std::string working;
  std::function<void()> on_cancel;
  std::list<std::shared_ptr<Visitor>> visitors;
  bool closed = false;
};

namespace {

template <typename State, typename Visitor>
Task<void> attend(std::shared_ptr<State> state, std::shared_ptr<Visitor> visitor) {
  for (;;) {
    const auto message = co_await visitor->peer.object();
    if (!message || state->closed) break;
    const auto* cancel = message->if_contains("cancel");
    if (cancel && cancel->is_bool() && cancel->as_bool()) state->on_cancel();
  }
  state->visitors.remove(visitor);
}

template <typename State>
Task<void> receive(std::shared_ptr<State> state) {
  while (!state->closed) {
    const auto ready = co_await wait_ready(state->listener.get(), Readiness::readable);
    if (!ready || state->closed) co_return;
    Fd peer(::accept4(state->listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!peer) continue;  // it left again
    if (!is_of_our_user(peer.get())) {
      log_warning("somebody of another user knocked, and was not let in");
      continue;
    }
    auto visitor = std::make_shared<typename State::Visitor>(std::move(peer));
    visitor->peer.send(json::object{{"working", state->working}, {"pid", ::getpid()}});
    state->visitors.push_back(visitor);
    state->loop->spawn(attend(state, visitor));
  }
}

}  // namespace

Result<std::unique_ptr<Door>> Door::open(Loop& loop, const Paths& paths, std::string working,
                                         std::function<void()> on_cancel) {
  auto address = TRY(address_in(paths.runtime));
  auto state = std::make_shared<State>();
  state->loop = &loop;
  state->working = std::move(working);
  state->on_cancel = std::move(on_cancel);
  state->listener.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!state->listener) return fail(system_error("create a socket", errno, ErrorCode::environment));
  // A worker that was killed leaves its socket behind; whoever holds the lock may take its place.
  ::unlinkat(address.directory.get(), socket_name, 0);
  const auto old_mask = ::umask(0077);
  const int bound =
      ::bind(state->listener.get(), reinterpret_cast<const sockaddr*>(&address.name), sizeof address.name);
  const int problem = errno;
  ::umask(old_mask);
  if (bound != 0 || ::listen(state->listener.get(), 16) != 0)
    return fail(system_error(fmt::format("listen at {}", (paths.runtime / socket_name).string()),
                             bound != 0 ? problem : errno, ErrorCode::environment));
  state->directory = std::move(address.directory);
  loop.spawn(receive(state));
  return std::unique_ptr<Door>(new Door(std::move(state)));
}

Door::~Door() {
  shut();
}

void Door::tell(const json::object& event) {
  for (const auto& visitor : state_->visitors)
    visitor->peer.send(event);
}

void Door::shut() {
  state_->closed = true;
  if (state_->directory) ::unlinkat(state_->directory.get(), socket_name, 0);
  state_->directory.reset();
}

Task<void> Door::close(json::object last) {
  shut();
  const auto state = state_;
  const auto visitors = state->visitors;
  for (const auto& visitor : visitors) {
    visitor->peer.send(last);
    co_await visitor->peer.drain();
  }
}

namespace {

/// A worker that has just taken the lock opens its door a moment later: nothing tells when, so it is tried again.
constexpr Duration opening_patience = 5s;
constexpr Duration between_tries = 20ms;

tl::unexpected<Error> nothing_under_way() {
  return fail(ErrorCode::not_found, "nothing is under way, so there is nothing to cancel",
              "gpumod status shows how things are.");
}

tl::unexpected<Error> another_is_under_way(pid_t meant, pid_t pid, const std::string& working) {
  return fail(ErrorCode::refused,
              fmt::format("what pid {} did has ended, and was not taken back; now '{}' (pid {}) is under way", meant,
                          working, pid),
              fmt::format("To take that back: gpumod mode cancel --pid {}", pid));
}

struct Reached {
  Fd socket;
  pid_t meant = 0;  ///< 0: whoever opens
};

Task<Result<Reached>> reach(Paths paths, pid_t meant) {
  const TimePoint deadline = now() + opening_patience;
  for (;;) {
    const auto holder = mutation_holder(paths);
    if (!holder) co_return nothing_under_way();
    if (meant == 0) meant = holder->pid;
    if (holder->pid != 0 && holder->pid != meant) co_return another_is_under_way(meant, holder->pid, holder->about);
    auto address = address_in(paths.runtime);
    if (!address) co_return fail(std::move(address).error());
    Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket) co_return fail(system_error("create a socket", errno, ErrorCode::environment));
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address->name), sizeof address->name) == 0) {
      if (!is_of_our_user(socket.get()))
        co_return fail(ErrorCode::environment, "another user's process listens in our runtime directory",
                       fmt::format("See who may write to {}.", paths.runtime.string()));
      Reached reached{std::move(socket), meant};
      co_return reached;
    }
    if (now() >= deadline)
      co_return fail(ErrorCode::failed, fmt::format("the worker (pid {}) cannot be reached", holder->pid),
                     "gpumod status shows how it goes.");
    co_await wait_for(between_tries);
  }
}

}  // namespace

Task<Result<Knocked>> knock_and_cancel(Paths paths, std::optional<pid_t> meant) {
  const auto reached = co_await reach(std::move(paths), meant.value_or(0));
  if (!reached) co_return fail(reached.error());
  LinePeer worker(reached->socket.get());
  std::string working;
  pid_t pid = 0;
  for (;;) {
    auto message = co_await worker.object();
    if (!message) {
      // It was at its end when we came: it has told its own caller.
      if (working.empty()) co_return nothing_under_way();
      co_return fail(ErrorCode::failed, fmt::format("the worker of '{}' died before it was done", working),
                     "gpumod status shows what it left; gpumod repair puts it in order.");
    }
    if (const auto* what = message->if_contains("working"); what && what->is_string()) {
      working = std::string(what->as_string());
      if (const auto* number = message->if_contains("pid"); number && number->is_int64())
        pid = static_cast<pid_t>(number->as_int64());
      // The one that was looked at may have died since, and the next have opened its door in the same place.
      if (reached->meant != 0 && pid != reached->meant) co_return another_is_under_way(reached->meant, pid, working);
      worker.send(json::object{{"cancel", true}});
    }
    if (auto* answer = message->if_contains("answer")) {
      Knocked knocked{working, pid, std::move(*answer)};
      co_return knocked;
    }
    if (const auto* error = message->if_contains("error")) {
      Knocked knocked{working, pid, fail(error_from_json(*error))};
      co_return knocked;
    }
  }
}

}  // namespace gpumod
