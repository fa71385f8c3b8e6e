#include "sim/llama_proxy.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include <arpa/inet.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/text.h"
#include "sim/llama_log.h"
#include "sim/llama_replies.h"

namespace gpumod::sim {

namespace {

constexpr Duration look_interval = 50ms;  // how often a waiting proxy looks whether its client is still there
constexpr std::string_view lost = "proxy error: Failed to read connection";
constexpr std::string_view unreachable = "proxy error: Could not establish connection";

ServerReply proxy_error(std::string_view text) {
  llama_log('E', fmt::format("srv    operator(): http client error: {}", text.substr(sizeof "proxy error:")));
  ServerReply reply;
  reply.status = 500;
  reply.content_type = llama_json_type;  // plain text, and labelled so: the real one does the same
  reply.headers["X-Accel-Buffering"] = "no";
  reply.body = text;
  return reply;
}

std::string encoded(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' || c == '/';
    safe += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return safe;
}

std::string request_text(const ProxyOrder& order) {
  auto target = encoded(order.request.path);
  char separator = '?';
  for (const auto& [name, value] : order.request.query) {
    target += separator + encoded(name) + "=" + encoded(value);
    separator = '&';
  }
  return fmt::format(
      "{} {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nConnection: "
      "close\r\nContent-Length: {}\r\n\r\n{}",
      order.request.method, target, order.port, order.request.body.size(), order.request.body);
}

/// The connection to the child and what has come of it so far.
struct Upstream {
  Fd socket;
  std::string text;
  std::function<bool()> client_left;
};

Task<bool> connect_to(std::shared_ptr<Upstream> upstream, std::uint16_t port) {
  upstream->socket.reset(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  const int done = ::connect(upstream->socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (done != 0 && errno != EINPROGRESS) co_return false;
  (void)co_await wait_ready(upstream->socket.get(), Readiness::writable);
  int problem = 0;
  socklen_t size = sizeof problem;
  ::getsockopt(upstream->socket.get(), SOL_SOCKET, SO_ERROR, &problem, &size);
  co_return problem == 0;
}

Task<bool> send_all(std::shared_ptr<Upstream> upstream, std::string text) {
  for (std::size_t sent = 0; sent < text.size();) {
    const auto count = ::send(upstream->socket.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (count > 0) {
      sent += static_cast<std::size_t>(count);
    } else if (errno == EAGAIN) {
      (void)co_await wait_ready(upstream->socket.get(), Readiness::writable);
    } else if (errno != EINTR) {
      co_return false;
    }
  }
  co_return true;
}

/// Appends what comes next. False at the end, and when the client has left.
Task<bool> receive_more(std::shared_ptr<Upstream> upstream) {
  for (;;) {
    char buffer[16384];
    const auto count = ::recv(upstream->socket.get(), buffer, sizeof buffer, 0);
    if (count > 0) {
      upstream->text.append(buffer, static_cast<std::size_t>(count));
      co_return true;
    }
    if (count == 0 || (errno != EAGAIN && errno != EINTR)) co_return false;
    const auto deadline = now() + look_interval;
    (void)co_await wait_ready(upstream->socket.get(), Readiness::readable, deadline);
    if (upstream->client_left && upstream->client_left()) co_return false;
  }
}

struct Head {
  int status = 0;
  std::string content_type;
  bool chunked = false;
  std::size_t length = 0;
};

Head parse_head(std::string_view text) {
  Head head;
  std::from_chars(text.data() + std::min<std::size_t>(text.size(), 9), text.data() + text.size(), head.status);
  for (const auto line : split_lines(text)) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    std::string name(line.substr(0, colon));
    for (auto& c : name)
      c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const auto value = trim(line.substr(colon + 1));
    if (name == "content-type") head.content_type = value;
    if (name == "transfer-encoding") head.chunked = value == "chunked";
    if (name == "content-length") std::from_chars(value.data(), value.data() + value.size(), head.length);
  }
  return head;
}

/// The next piece of a chunked body from `text`: nothing when more has to come, an empty one at its end.
std::optional<std::string> take_chunk(std::string& text) {
  const auto line = text.find("\r\n");
  if (line == std::string::npos) return std::nullopt;
  std::size_t size = 0;
  std::from_chars(text.data(), text.data() + line, size, 16);
  if (text.size() < line + 2 + size + 2) return std::nullopt;
  auto piece = text.substr(line + 2, size);
  text.erase(0, line + 2 + size + 2);
  return piece;
}

Task<void> relay(std::shared_ptr<Upstream> upstream, Head head, std::shared_ptr<void> ticket,
                 ServerReply::Write write) {
  std::size_t left = head.length;
  bool complete = !head.chunked && left == 0;
  while (!complete) {
    std::optional<std::string> piece;
    if (head.chunked) {
      piece = take_chunk(upstream->text);
      complete = piece && piece->empty();
    } else if (!upstream->text.empty()) {
      piece = std::exchange(upstream->text, {});
      left -= std::min(left, piece->size());
      complete = left == 0;
    }
    if (piece) {
      if (piece->empty()) break;
      auto writing = write(std::move(*piece));
      const bool sent = co_await std::move(writing);
      if (!sent) break;
      continue;
    }
    auto receiving = receive_more(upstream);
    const bool more = co_await std::move(receiving);
    if (more) continue;
    llama_log('E', "srv    operator(): http client error: Failed to read connection");
    auto writing = write(std::string(lost));
    (void)co_await std::move(writing);
    break;
  }
  ticket.reset();
}

}  // namespace

Task<ServerReply> proxy_to_child(ProxyOrder order) {
  auto upstream = std::make_shared<Upstream>();
  upstream->client_left = order.request.has_left;
  auto connecting = connect_to(upstream, order.port);
  const bool connected = co_await std::move(connecting);
  if (!connected) co_return proxy_error(unreachable);
  auto sending = send_all(upstream, request_text(order));
  bool well = co_await std::move(sending);
  std::size_t end = std::string::npos;
  while (well && end == std::string::npos) {
    auto receiving = receive_more(upstream);
    well = co_await std::move(receiving);
    end = upstream->text.find("\r\n\r\n");
  }
  if (end == std::string::npos) co_return proxy_error(lost);
  const auto head = parse_head(std::string_view(upstream->text).substr(0, end));
  upstream->text.erase(0, end + 4);
  ServerReply reply;
  reply.status = head.status;
  reply.content_type = head.content_type;
  reply.headers["X-Accel-Buffering"] = "no";
  reply.stream = [upstream, head, ticket = order.ticket](ServerReply::Write write) {
    return relay(upstream, head, ticket, std::move(write));
  };
  co_return reply;
}

}  // namespace gpumod::sim
