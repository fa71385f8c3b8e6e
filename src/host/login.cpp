#include "host/login.h"

#include <memory>

#include <fmt/format.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

namespace gpumod {

namespace {

struct CloseBus {
  void operator()(sd_bus* bus) const { sd_bus_flush_close_unref(bus); }
};
using OpenBus = std::unique_ptr<sd_bus, CloseBus>;

int open_bus(const std::string& address, OpenBus& opened) {
  sd_bus* bus = nullptr;
  int r = 0;
  if (address.empty()) {
    r = sd_bus_open_system(&bus);
    opened.reset(bus);
    return r;
  }
  r = sd_bus_new(&bus);
  opened.reset(bus);
  if (r >= 0) r = sd_bus_set_address(bus, address.c_str());
  if (r >= 0) r = sd_bus_set_bus_client(bus, 1);
  if (r >= 0) r = sd_bus_start(bus);
  return r;
}

}  // namespace

Result<void> enable_linger(const std::string& address, Duration timeout) {
  constexpr const char* by_hand = "As root: loginctl enable-linger USER";
  OpenBus bus;
  if (const int r = open_bus(address, bus); r < 0)
    return fail(ErrorCode::environment, fmt::format("the system bus cannot be reached: {}", ::strerror(-r)), by_hand);
  const auto limit = std::chrono::duration_cast<std::chrono::microseconds>(timeout).count();
  sd_bus_set_method_call_timeout(bus.get(), static_cast<std::uint64_t>(limit));
  sd_bus_error error = SD_BUS_ERROR_NULL;
  // UID, on or off, and whether somebody may be asked for a password.
  const int r = sd_bus_call_method(bus.get(), "org.freedesktop.login1", "/org/freedesktop/login1",
                                   "org.freedesktop.login1.Manager", "SetUserLinger", &error, nullptr, "ubb",
                                   static_cast<std::uint32_t>(::geteuid()), 1, 0);
  const std::string words = error.message ? error.message : ::strerror(r < 0 ? -r : 0);
  sd_bus_error_free(&error);
  if (r < 0)
    return fail(ErrorCode::environment, fmt::format("logind does not let this user linger: {}", words), by_hand);
  return {};
}

}  // namespace gpumod
