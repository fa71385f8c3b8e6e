#include "host/sd_bus.h"

#include <set>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "base/paths.h"

namespace gpumod {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr const char* systemd_name = "org.freedesktop.systemd1";
constexpr const char* start_hint =
    "Log in as this user or run `loginctl enable-linger` so that its systemd manager runs, or set `unit_manager: "
    "local`.";

Error lost_error(std::string_view request) {
  return Error{
      ErrorCode::environment,
      request.empty()
          ? std::string("the connection to the systemd user manager is lost")
          : fmt::format("the connection to the systemd user manager was lost while it carried out {}", request),
      "Check `systemctl --user status`; the next command connects again.",
      {}};
}

std::string describe(sd_bus_message* request) {
  const char* member = sd_bus_message_get_member(request);
  return member ? member : "a call";
}

Error reply_error(sd_bus_message* reply, const std::string& request) {
  const sd_bus_error* error = sd_bus_message_get_error(reply);
  const std::string name = error && error->name ? error->name : "";
  const std::string text = error && error->message ? error->message : name;
  Error result{ErrorCode::failed, fmt::format("systemd refused {}: {}", request, text), {}, {}};
  if (name == "org.freedesktop.systemd1.NoSuchUnit" || name == "org.freedesktop.DBus.Error.UnknownObject")
    result.code = ErrorCode::not_found;
  // A session bus without a systemd manager behind it: the address belongs to another kind of session.
  if (name == SD_BUS_ERROR_SERVICE_UNKNOWN || name == SD_BUS_ERROR_NAME_HAS_NO_OWNER ||
      name.starts_with("org.freedesktop.DBus.Error.Spawn.")) {
    result.code = ErrorCode::environment;
    result.message = fmt::format("no systemd user manager answers on the session bus: {}", text);
    result.hint = start_hint;
  }
  result.details = boost::json::object{{"dbus", name}};
  return result;
}

}  // namespace

void BusMessageUnref::operator()(sd_bus_message* message) const {
  sd_bus_message_unref(message);
}

/// What one call_all waits for. It lives in that coroutine's frame; when the frame is destroyed, the slots go with it,
/// and sd-bus never calls back.
struct Bus::Batch {
  struct Entry {
    Batch* batch = nullptr;
    sd_bus_slot* slot = nullptr;
    std::string request;
    std::optional<Result<BusMessage>> reply;
  };

  Batch(std::shared_ptr<Io> owner, std::size_t size);
  ~Batch();
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  void finish(Entry& entry, Result<BusMessage> reply) {
    if (entry.reply) return;
    entry.reply = std::move(reply);
    if (--left == 0) done.cancel();
  }
  void fail_rest(const std::function<Error(const std::string& request)>& why) {
    for (auto& entry : entries)
      if (!entry.reply) finish(entry, fail(why(entry.request)));
  }
  static int on_reply(sd_bus_message* reply, void* entry, sd_bus_error*) noexcept;

  std::shared_ptr<Io> io;
  std::vector<Entry> entries;
  std::size_t left;
  asio::steady_timer done;
};

struct Bus::Io : std::enable_shared_from_this<Bus::Io> {
  explicit Io(Loop& loop) : descriptor(loop.context()), timer(loop.context()) {}
  ~Io() {
    sd_bus_close(bus);
    sd_bus_unref(bus);
  }
  Io(const Io&) = delete;
  Io& operator=(const Io&) = delete;

  /// Watches a connection that sd-bus has begun to open.
  Result<void> begin();
  void arm();
  void process();
  void lose();

  sd_bus* bus = nullptr;
  asio::posix::stream_descriptor descriptor;  ///< a duplicate: sd-bus closes its own when the connection is lost
  asio::steady_timer timer;
  bool reading = false;
  bool writing = false;
  bool processing = false;
  bool dead = false;
  std::set<Batch*> batches;
  std::vector<std::function<void()>> on_lost;
};

Bus::Batch::Batch(std::shared_ptr<Io> owner, std::size_t size)
    : io(std::move(owner)), entries(size), left(size), done(io->timer.get_executor()) {
  io->batches.insert(this);
  for (auto& entry : entries)
    entry.batch = this;
}

Bus::Batch::~Batch() {
  io->batches.erase(this);
  for (auto& entry : entries)
    sd_bus_slot_unref(entry.slot);
}

int Bus::Batch::on_reply(sd_bus_message* reply, void* user_data, sd_bus_error*) noexcept {
  auto& entry = *static_cast<Entry*>(user_data);
  if (!sd_bus_message_is_method_error(reply, nullptr)) {
    entry.batch->finish(entry, BusMessage(sd_bus_message_ref(reply)));
  } else if (sd_bus_is_open(entry.batch->io->bus) > 0) {
    entry.batch->finish(entry, fail(reply_error(reply, entry.request)));
  } else {
    // sd-bus answers what is pending itself ("Connection terminated"), in words that name no cause.
    entry.batch->finish(entry, fail(lost_error(entry.request)));
  }
  return 0;
}

Result<void> Bus::Io::begin() {
  const int fd = sd_bus_get_fd(bus);
  const int duplicate = fd < 0 ? -1 : ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (duplicate < 0) return fail(system_error("watch the connection to the systemd user manager", errno));
  error_code problem;
  descriptor.assign(duplicate, problem);
  if (problem) {
    ::close(duplicate);
    return fail(ErrorCode::failed, fmt::format("watch the connection to systemd: {}", problem.message()));
  }
  arm();
  return {};
}

void Bus::Io::arm() {
  if (dead || processing) return;
  const int events = sd_bus_get_events(bus);
  std::uint64_t wake_us = UINT64_MAX;
  if (events < 0 || sd_bus_get_timeout(bus, &wake_us) < 0) return lose();

  const auto wait = [this](bool Io::*waiting, asio::posix::stream_descriptor::wait_type kind) {
    if (this->*waiting) return;
    this->*waiting = true;
    descriptor.async_wait(kind, [weak = weak_from_this(), waiting](error_code problem) {
      const auto self = weak.lock();
      if (!self) return;
      (*self).*waiting = false;
      if (!problem) self->process();
    });
  };
  wait(&Io::reading, asio::posix::stream_descriptor::wait_read);
  if (events & POLLOUT) wait(&Io::writing, asio::posix::stream_descriptor::wait_write);

  if (wake_us == UINT64_MAX) {
    timer.cancel();
    return;
  }
  timer.expires_at(asio::steady_timer::time_point(std::chrono::microseconds(wake_us)));
  timer.async_wait([weak = weak_from_this()](error_code cancelled) {
    if (const auto self = weak.lock(); self && !cancelled) self->process();
  });
}

void Bus::Io::process() {
  if (dead || processing) return;
  processing = true;
  int r = 1;
  // Bounded, so that a flood of signals cannot starve the rest of the loop; what is left makes the timeout zero.
  for (int round = 0; round < 512 && r > 0; ++round)
    r = sd_bus_process(bus, nullptr);
  processing = false;
  if (r < 0 || sd_bus_is_open(bus) <= 0) return lose();
  arm();
}

void Bus::Io::lose() {
  if (dead) return;
  dead = true;
  error_code ignored;
  descriptor.close(ignored);
  timer.cancel();
  sd_bus_close(bus);
  for (auto* batch : batches)
    batch->fail_rest(lost_error);
  for (const auto& callback : std::exchange(on_lost, {}))
    callback();
}

Bus::Bus() = default;
Bus::~Bus() = default;

bool Bus::alive() const {
  return !io_->dead;
}

void Bus::on_lost(std::function<void()> callback) {
  io_->on_lost.push_back(std::move(callback));
}

Result<BusMessage> Bus::method(const std::string& path, const char* interface, const char* member) {
  if (io_->dead) return fail(lost_error({}));
  sd_bus_message* message = nullptr;
  const int r = sd_bus_message_new_method_call(io_->bus, &message, systemd_name, path.c_str(), interface, member);
  if (r < 0) return fail(ErrorCode::failed, fmt::format("prepare {} for systemd: {}", member, ::strerror(-r)));
  return BusMessage(message);
}

void Bus::send(BusMessage request) {
  if (io_->dead) return;
  sd_bus_message_set_expect_reply(request.get(), 0);
  sd_bus_send(io_->bus, request.get(), nullptr);
  io_->arm();
}

Result<Registration> Bus::on_signal(const std::string& path, const char* interface, const char* member,
                                    std::function<void(sd_bus_message*)> callback) {
  if (io_->dead) return fail(lost_error({}));
  struct Listener {
    std::function<void(sd_bus_message*)> callback;
    bool running = false;
    bool released = false;
  };
  auto* listener = new Listener{std::move(callback)};
  const auto deliver = [](sd_bus_message* message, void* user_data, sd_bus_error*) noexcept {
    auto* self = static_cast<Listener*>(user_data);
    self->running = true;
    self->callback(message);
    self->running = false;
    if (self->released) delete self;  // the callback let go of its own registration
    return 0;
  };
  // A reply callback is needed only so that sd-bus does not close the connection when a bus refuses the match.
  const auto installed = [](sd_bus_message*, void*, sd_bus_error*) noexcept { return 0; };
  sd_bus_slot* slot = nullptr;
  // On the manager's own socket messages carry no sender.
  const char* sender = sd_bus_is_bus_client(io_->bus) > 0 ? systemd_name : nullptr;
  const int r = sd_bus_match_signal_async(io_->bus, &slot, sender, path.empty() ? nullptr : path.c_str(), interface,
                                          member, deliver, installed, listener);
  if (r < 0) {
    delete listener;
    return fail(ErrorCode::failed, fmt::format("listen to systemd's {}: {}", member, ::strerror(-r)));
  }
  io_->arm();
  return Registration([slot, listener] {
    sd_bus_slot_unref(slot);
    if (listener->running)
      listener->released = true;
    else
      delete listener;
  });
}

Task<std::vector<Result<BusMessage>>> call_all(std::shared_ptr<Bus> bus, std::vector<BusMessage> requests,
                                               Duration timeout) {
  std::vector<Result<BusMessage>> replies;
  if (requests.empty()) co_return replies;
  const auto io = bus->io_;
  Bus::Batch batch(io, requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    auto& entry = batch.entries[i];
    entry.request = describe(requests[i].get());
    int r = -ECONNRESET;
    if (!io->dead)
      r = sd_bus_call_async(io->bus, &entry.slot, requests[i].get(), Bus::Batch::on_reply, &entry, UINT64_MAX);
    if (r < 0) {
      const bool lost = r == -ECONNRESET || r == -ENOTCONN || r == -EPIPE || r == -ESHUTDOWN;
      batch.finish(entry, fail(lost ? lost_error(entry.request)
                                    : Error{ErrorCode::failed,
                                            fmt::format("send {} to systemd: {}", entry.request, ::strerror(-r)),
                                            {},
                                            {}}));
    }
  }
  requests.clear();
  io->arm();
  if (batch.left > 0) {
    // Our own deadline over everything: sd-bus counts a call's timeout only once the connection is authenticated.
    batch.done.expires_at(std::chrono::time_point_cast<asio::steady_timer::duration>(now() + timeout));
    error_code ignored;
    co_await batch.done.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  batch.fail_rest([timeout](const std::string& request) {
    return Error{ErrorCode::environment,
                 fmt::format("the systemd user manager did not answer {} within {}", request, format_seconds(timeout)),
                 "It may be stopped or overloaded: check `systemctl --user status`.",
                 {}};
  });
  replies.reserve(batch.entries.size());
  for (auto& entry : batch.entries)
    replies.push_back(std::move(*entry.reply));
  co_return replies;
}

Task<Result<BusMessage>> call(std::shared_ptr<Bus> bus, BusMessage request, Duration timeout) {
  std::vector<BusMessage> one;
  one.push_back(std::move(request));
  auto replies = co_await call_all(std::move(bus), std::move(one), timeout);
  co_return std::move(replies.front());
}

std::string_view bus_error_name(const Error& error) {
  if (!error.details.is_object()) return {};
  const auto* name = error.details.as_object().if_contains("dbus");
  return name && name->is_string() ? std::string_view(name->as_string()) : std::string_view();
}

std::string user_manager_socket() {
  const auto runtime = user_runtime_directory();
  return (runtime.empty() ? fmt::format("/run/user/{}", ::getuid()) : runtime.string()) + "/systemd/private";
}

namespace {

/// Errors name the step; ENOENT and ECONNREFUSED both mean that no manager runs.
Result<Fd> connect_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return fail(ErrorCode::environment, fmt::format("the socket path {} is too long", path));
  ::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail(system_error("create a socket", errno));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) < 0)
    return fail(system_error("connect " + path, errno, ErrorCode::environment));
  return socket;
}

}  // namespace

Result<std::shared_ptr<Bus>> Bus::over_socket(Loop& loop, Fd socket) {
  std::shared_ptr<Bus> result(new Bus());
  result->io_ = std::make_shared<Io>(loop);
  if (sd_bus_new(&result->io_->bus) < 0) return fail(ErrorCode::failed, "out of memory while preparing D-Bus");
  const int fd = socket.release();
  if (const int r = sd_bus_set_fd(result->io_->bus, fd, fd); r < 0) {
    ::close(fd);
    return fail(ErrorCode::environment, fmt::format("use the connection to systemd: {}", ::strerror(-r)));
  }
  if (const int r = sd_bus_start(result->io_->bus); r < 0)
    return fail(ErrorCode::environment, fmt::format("start talking to the systemd user manager: {}", ::strerror(-r)),
                start_hint);
  if (auto begun = result->io_->begin(); !begun) return fail(std::move(begun).error());
  return result;
}

Result<std::shared_ptr<Bus>> Bus::connect_user_manager(Loop& loop) {
  auto socket = connect_unix(user_manager_socket());
  if (socket) return over_socket(loop, std::move(*socket));

  std::shared_ptr<Bus> result(new Bus());
  result->io_ = std::make_shared<Io>(loop);
  if (const int r = sd_bus_open_user(&result->io_->bus); r < 0)
    return fail(ErrorCode::environment,
                fmt::format("no systemd user manager runs for this user ({}; session bus: {})", socket.error().message,
                            r == -ENOMEDIUM ? "no address is set" : ::strerror(-r)),
                start_hint);
  if (auto begun = result->io_->begin(); !begun) return fail(std::move(begun).error());
  return result;
}

}  // namespace gpumod
