// For tests: the other end of a D-Bus connection, which answers what a test has it answer.
#pragma once

#include <systemd/sd-bus.h>
#include <systemd/sd-id128.h>

namespace gpumod {

/// Serves the connection on this socket, which becomes its own, until the client goes. Blocks: for a thread of its own.
inline void serve_bus(int socket, sd_bus_message_handler_t answer, void* data) {
  sd_bus* bus = nullptr;
  sd_id128_t id{};
  sd_id128_randomize(&id);
  sd_bus_new(&bus);
  sd_bus_set_fd(bus, socket, socket);
  sd_bus_set_server(bus, 1, id);
  sd_bus_start(bus);
  sd_bus_add_filter(bus, nullptr, answer, data);
  for (;;) {
    const int r = sd_bus_process(bus, nullptr);
    if (r < 0 || sd_bus_is_open(bus) <= 0) break;
    if (r == 0 && sd_bus_wait(bus, UINT64_MAX) < 0) break;
  }
  sd_bus_flush_close_unref(bus);
}

}  // namespace gpumod
