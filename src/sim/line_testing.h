// For tests: a client of the broker that may say anything.
#pragma once

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"

namespace gpumod::sim::testing {

class LineClient {
 public:
  explicit LineClient(const std::filesystem::path& path) : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) socket_.reset();
  }
  bool connected() const { return static_cast<bool>(socket_); }
  /// False when the other side has closed.
  bool send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  void say_no_more() { ::shutdown(socket_.get(), SHUT_WR); }
  /// "" when the other side has closed.
  std::string read_line() {
    std::string line;
    char c = 0;
    while (::recv(socket_.get(), &c, 1, 0) == 1 && c != '\n')
      line += c;
    return line;
  }

 private:
  Fd socket_;
};

}  // namespace gpumod::sim::testing
