#include "sim/nvml/link.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sim/protocol.h"

namespace gpumod::sim::nvml {

namespace {

bool ends_with_line(const std::string& text, const std::string& line) {
  const std::string end = line + '\n';
  if (text.size() < end.size() || text.compare(text.size() - end.size(), end.size(), end) != 0) return false;
  return text.size() == end.size() || text[text.size() - end.size() - 1] == '\n';
}

std::string rest_of(std::istringstream& words) {
  std::string rest;
  words >> std::ws;
  std::getline(words, rest);
  return rest;
}

}  // namespace

long long World::number(const std::string& fault, long long otherwise) const {
  const auto found = faults.find(fault);
  return found == faults.end() || found->second.empty() ? otherwise : std::atoll(found->second.c_str());
}

bool Link::open() {
  close();
  const char* path = std::getenv(socket_variable);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (!path || std::strlen(path) >= sizeof address.sun_path) return false;
  std::strcpy(address.sun_path, path);
  socket_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_ >= 0 && ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return true;
  close();
  return false;
}

void Link::close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

/// Sends a line, and reads until the answer is whole: until it ends with this line, or with any when it is empty.
bool Link::exchange(const std::string& request, const std::string& last_line, std::string& answer) {
  answer.clear();
  const std::string line = request + '\n';
  for (std::size_t sent = 0; socket_ >= 0 && sent < line.size();) {
    const ssize_t n = ::send(socket_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (n > 0) sent += static_cast<std::size_t>(n);
    if (n < 0 && errno != EINTR) close();
  }
  while (socket_ >= 0) {
    char buffer[4096];
    const ssize_t n = ::recv(socket_, buffer, sizeof buffer, 0);
    if (n == 0 || (n < 0 && errno != EINTR)) close();
    if (n > 0) answer.append(buffer, static_cast<std::size_t>(n));
    if (last_line.empty() ? !answer.empty() && answer.back() == '\n' : ends_with_line(answer, last_line)) return true;
  }
  return false;
}

bool Link::ask(const std::string& request, std::string& answer) {
  if (!exchange(request, "", answer)) return false;
  answer.pop_back();
  return true;
}

bool Link::look(World& world) {
  std::string text;
  if (!exchange("look", "end", text)) return false;
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string what;
    words >> what;
    if (what == "driver") {
      world.driver = rest_of(words);
    } else if (what == "gpu") {
      Gpu gpu;
      std::size_t index = 0;
      words >> index >> gpu.total >> gpu.reserved >> gpu.used >> gpu.free >> gpu.lost >> gpu.uuid;
      gpu.name = rest_of(words);
      world.gpus.push_back(gpu);
    } else if (what == "slice") {
      std::size_t index = 0;
      int parent = 0;
      unsigned instance = 0;
      words >> index >> parent >> instance;
      if (index >= world.gpus.size()) continue;
      world.gpus[index].parent = parent;
      world.gpus[index].instance = instance;
    } else if (what == "process") {
      Process process;
      words >> process.gpu >> process.list >> process.pid >> process.used;
      process.command = rest_of(words);
      world.processes.push_back(process);
    } else if (what == "fault") {
      std::string name;
      words >> name;
      world.faults[name] = rest_of(words);
    }
  }
  return true;
}

}  // namespace gpumod::sim::nvml
