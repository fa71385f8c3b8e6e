#include "host/containers.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/fd.h"
#include "base/paths.h"

namespace gpumod {

namespace {

constexpr std::size_t id_length = 64;
constexpr std::size_t longest_answer = 1 << 20;

bool is_hexadecimal(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::vector<std::string> sockets() {
  constexpr std::string_view unix_scheme = "unix://";
  if (const auto host = environment_variable("DOCKER_HOST"); !host.empty())
    return host.starts_with(unix_scheme) ? std::vector{host.substr(unix_scheme.size())} : std::vector<std::string>();
  std::vector<std::string> paths{"/run/docker.sock", "/run/podman/podman.sock"};
  if (const auto runtime = user_runtime_directory(); !runtime.empty())
    paths.insert(paths.end(), {runtime / "docker.sock", runtime / "podman/podman.sock"});
  return paths;
}

Fd connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return {};
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // A Unix socket connects at once or not at all: with a full queue it says EAGAIN, and a runtime that busy is left be.
  if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
  return socket;
}

/// The whole answer to a request; what came so far when the time is over.
Task<std::string> exchange(Fd socket, std::string request, TimePoint deadline) {
  std::string answer;
  if (::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size()))
    co_return answer;
  while (answer.size() < longest_answer) {
    char buffer[8192];
    const ssize_t n = ::recv(socket.get(), buffer, sizeof buffer, 0);
    if (n > 0) answer.append(buffer, static_cast<std::size_t>(n));
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) break;
    if (n >= 0 || errno == EINTR) continue;
    const auto ready = co_await wait_ready(socket.get(), Readiness::readable, deadline);
    if (!ready || !*ready) break;
  }
  co_return answer;
}

std::optional<std::string> id_in(std::string_view answer) {
  const auto head_end = answer.find("\r\n\r\n");
  const auto status = answer.substr(0, answer.find("\r\n"));
  if (head_end == std::string_view::npos || status.find(" 200") == std::string_view::npos) return std::nullopt;
  boost::system::error_code problem;
  const auto body = boost::json::parse(answer.substr(head_end + 4), problem);
  const auto* object = problem ? nullptr : body.if_object();
  const auto* id = object ? object->if_contains("Id") : nullptr;
  if (!id || !id->is_string()) return std::nullopt;
  return std::string(id->as_string());
}

}  // namespace

std::string container_of_cgroup(const std::string& control_group) {
  std::string_view left = control_group;
  while (!left.empty()) {
    const auto slash = left.rfind('/');
    auto name = slash == std::string_view::npos ? left : left.substr(slash + 1);
    constexpr std::string_view suffix = ".scope";
    if (name.ends_with(suffix)) name.remove_suffix(suffix.size());
    name = name.substr(name.rfind('-') + 1);  // all of it when there is none
    if (name.size() == id_length && is_hexadecimal(name)) return std::string(name);
    if (slash == std::string_view::npos) break;
    left = left.substr(0, slash);
  }
  return {};
}

namespace {

Task<void> ask(Fd socket, std::string request, TimePoint deadline, std::optional<std::string>& id) {
  const auto answer = co_await exchange(std::move(socket), std::move(request), deadline);
  id = id_in(answer);
}

}  // namespace

Task<std::optional<std::string>> container_id(std::string name, Duration timeout) {
  const TimePoint deadline = now() + timeout;
  // HTTP/1.0: the answer comes in one piece, and its end is the end of the connection.
  const auto request = fmt::format("GET /containers/{}/json HTTP/1.0\r\nHost: localhost\r\n\r\n", name);
  // Beside each other: one that hangs takes nobody else's time.
  std::deque<std::optional<std::string>> ids;
  std::vector<Task<void>> asking;
  for (const auto& path : sockets()) {
    Fd socket = connect_to(path);
    if (!socket) continue;
    ids.emplace_back();
    asking.push_back(ask(std::move(socket), request, deadline, ids.back()));
  }
  co_await run_all(std::move(asking));
  for (auto& id : ids)
    if (id) co_return std::move(id);
  co_return std::nullopt;
}

}  // namespace gpumod
