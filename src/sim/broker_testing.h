// For tests: a real broker process at a socket of its own, which GPUMOD_SIM_GPU names while it lives, and other
// processes on its GPUs.
#pragma once

#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "host/local_testing.h"
#include "host/processes.h"
#include "sim/gpu.h"
#include "sim/line_testing.h"
#include "sim/protocol.h"

namespace gpumod::sim::testing {

using gpumod::TestFolder;
using gpumod::testing::ChildProcess;
using gpumod::testing::patience;

/// For what nothing signals. False: it did not come about in a time that only a defect needs.
template <typename Condition>
bool until(Condition condition) {
  for (const auto deadline = now() + patience; now() < deadline; std::this_thread::sleep_for(2ms))
    if (condition()) return true;
  return false;
}

class BrokerProcess {
 public:
  explicit BrokerProcess(const std::filesystem::path& socket, std::vector<std::string> more = {},
                         std::vector<std::string> environment = {})
      : process_(arguments(socket, std::move(more)), std::move(environment)), socket_(socket) {
    EXPECT_EQ(process_.read_line(), "ready");
    ::setenv(socket_variable, socket.c_str(), 1);
  }
  ~BrokerProcess() { ::unsetenv(socket_variable); }

  static std::vector<std::string> arguments(const std::filesystem::path& socket, std::vector<std::string> more) {
    std::vector<std::string> argv{GPUMOD_SIM, "broker", "--socket",  socket.string(), "--with-parent", "--reserved",
                                  "512MiB",   "--gpu",  "Big=24GiB", "--gpu",         "Small=8GiB"};
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
  }
  /// One line asked over a connection of its own: the answer without its end.
  std::string ask(const std::string& line) const {
    LineClient client(socket_);
    client.send(line + "\n");
    return client.read_line();
  }
  void kill(int signal = SIGKILL) {
    ::kill(process_.pid(), signal);
    process_.wait();
  }
  pid_t pid() const { return process_.pid(); }

 private:
  ChildProcess process_;
  std::filesystem::path socket_;
};

/// Somebody on the GPU who can be killed.
class Holder : public ChildProcess {
 public:
  explicit Holder(std::vector<std::string> more) : ChildProcess(arguments(std::move(more))) {
    EXPECT_EQ(read_line(), "ready");
  }
  /// Returns when it is dead and reaped.
  void kill() {
    ::kill(pid(), SIGKILL);
    wait();
  }

 private:
  static std::vector<std::string> arguments(std::vector<std::string> more) {
    std::vector<std::string> argv{GPUMOD_SIM, "desktop"};
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
  }
};

}  // namespace gpumod::sim::testing
