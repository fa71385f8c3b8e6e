#include "verbs/line_peer.h"

#include <cerrno>

#include <boost/json.hpp>
#include <fcntl.h>
#include <sys/socket.h>

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr std::size_t line_limit = 4 << 20;

}  // namespace

LinePeer::LinePeer(int fd) : fd_(fd) {
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void LinePeer::send(const json::object& message) {
  if (gone_) return;
  unsent_ += json::serialize(message);
  unsent_ += '\n';
  if (unsent_.size() > line_limit) gone_ = true;
  flush();
}

Task<void> LinePeer::drain() {
  const TimePoint deadline = now() + 5s;
  while (!gone_ && !unsent_.empty()) {
    const auto ready = co_await wait_ready(fd_, Readiness::writable, deadline);
    if (!ready || !*ready) co_return;
    flush();
  }
}

Task<std::optional<std::string>> LinePeer::line() {
  for (;;) {
    if (const auto end = received_.find('\n'); end != std::string::npos) {
      std::string text = received_.substr(0, end);
      received_.erase(0, end + 1);
      co_return text;
    }
    char buffer[4096];
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n > 0 && received_.size() < line_limit) {
      received_.append(buffer, static_cast<std::size_t>(n));
      continue;
    }
    if (n >= 0 || (errno != EAGAIN && errno != EINTR)) co_return std::nullopt;
    const auto ready = co_await wait_ready(fd_, Readiness::readable);
    if (!ready) co_return std::nullopt;
  }
}

Task<std::optional<json::object>> LinePeer::object() {
  for (;;) {
    auto text = co_await line();
    if (!text) co_return std::nullopt;
    std::error_code malformed;
    auto message = json::parse(*text, malformed);
    if (!malformed && message.is_object()) co_return std::move(message.as_object());
  }
}

void LinePeer::flush() {
  while (!gone_ && !unsent_.empty()) {
    const ssize_t n = ::send(fd_, unsent_.data(), unsent_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0)
      unsent_.erase(0, static_cast<std::size_t>(n));
    else if (errno == EAGAIN)
      return;
    else if (errno != EINTR)
      gone_ = true;
  }
}

}  // namespace gpumod
