// D-Bus inside our Loop: libsystemd's sd-bus, driven by the descriptor, events and timeout it asks for.
//
// sd-bus does nothing by itself: after each call made outside its own dispatch, output may be pending and its timeout
// may have moved. Everything here therefore ends in arming the waits anew; nobody else touches the sd_bus object.
//
// The user manager is reached on its own socket ($XDG_RUNTIME_DIR/systemd/private, what systemctl itself uses) and only
// without that over the session bus: half the hops, no dependence on a DBUS_SESSION_BUS_ADDRESS that an X11 or ssh
// session pointed elsewhere, and it works on machines without dbus-user-session.
//
// Callbacks from C never throw: what a callback of ours throws is a defect and ends the process with a message.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/async.h"
#include "base/fd.h"

struct sd_bus_message;

namespace gpumod {

struct BusMessageUnref {
  void operator()(sd_bus_message* message) const;
};
using BusMessage = std::unique_ptr<sd_bus_message, BusMessageUnref>;

/// One connection. It is either alive or lost for ever; whoever needs another one connects again.
class Bus {
 public:
  /// The user manager's own socket, or the session bus. Errors: environment, with a hint.
  static Result<std::shared_ptr<Bus>> connect_user_manager(Loop& loop);
  /// Speaks over a connected socket, without a message bus between.
  static Result<std::shared_ptr<Bus>> over_socket(Loop& loop, Fd socket);
  ~Bus();
  Bus(const Bus&) = delete;
  Bus& operator=(const Bus&) = delete;

  bool alive() const;
  /// Calls back once when the connection is lost, after every pending call has failed.
  void on_lost(std::function<void()> callback);

  /// A call to org.freedesktop.systemd1; arguments are appended by the caller with sd_bus_message_append.
  Result<BusMessage> method(const std::string& path, const char* interface, const char* member);

  /// Sends a call whose answer nobody needs.
  void send(BusMessage request);

  /// Calls back for every signal of that path ("" for any), interface and member. The callback must copy what it needs.
  Result<Registration> on_signal(const std::string& path, const char* interface, const char* member,
                                 std::function<void(sd_bus_message*)> callback);

 private:
  struct Io;
  struct Batch;
  friend Task<std::vector<Result<BusMessage>>> call_all(std::shared_ptr<Bus> bus, std::vector<BusMessage> requests,
                                                        Duration timeout);
  Bus();
  std::shared_ptr<Io> io_;
};

/// Sends all requests at once and returns their replies in the same order, when the last is there. An error reply, a
/// lost connection and the end of the timeout are errors of the single reply; D-Bus's own name of an error is kept.
Task<std::vector<Result<BusMessage>>> call_all(std::shared_ptr<Bus> bus, std::vector<BusMessage> requests,
                                               Duration timeout);
Task<Result<BusMessage>> call(std::shared_ptr<Bus> bus, BusMessage request, Duration timeout);

/// "org.freedesktop.systemd1.NoSuchUnit", or "" when the error did not come from D-Bus.
std::string_view bus_error_name(const Error& error);

/// The first socket to try: below $XDG_RUNTIME_DIR, or /run/user/UID where the variable is unset (cron, sudo -u).
std::string user_manager_socket();

}  // namespace gpumod
