// The stand-in servers' HTTP: one coroutine a connection, requests parsed by Beast, answers written by hand.
//
// Answers are written by hand because a stream's chunks have to leave one by one, as a model would make them, and
// because that is shorter than Beast's serializer. A client that has left is noticed before each piece of a stream by
// looking at the socket without reading from it: the real servers end a generation when nobody listens, and a write
// alone would notice only the second piece. A client that half-closes counts as gone, as it does for uvicorn and
// cpp-httplib. A watcher coroutine beside each stream lost: it would have to be cancelled before the next request.
#include "sim/http_server.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <set>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <sys/socket.h>
#include <unistd.h>

namespace gpumod::sim {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Parser = http::request_parser<http::string_body>;

namespace {

constexpr std::uint64_t longest_body = 32 * 1024 * 1024;
constexpr std::uint32_t longest_header = 64 * 1024;

struct Connection {
  explicit Connection(tcp::socket taken) : socket(std::move(taken)) {}
  tcp::socket socket;
  bool chunked = true;  ///< how a stream is framed; HTTP/1.0 ends it by closing
  bool broken = false;
};

/// What the connections share; it outlives the server as long as one of them goes on.
struct Core {
  HttpServer::Handler handler;
  std::set<Connection*> connections;
};

std::string decoded(std::string_view text, bool plus_is_space) {
  const auto hex = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '%' && i + 2 < text.size() && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0;
    if (escape) {
      plain += static_cast<char>(hex(text[i + 1]) * 16 + hex(text[i + 2]));
      i += 2;
    } else {
      plain += plus_is_space && text[i] == '+' ? ' ' : text[i];
    }
  }
  return plain;
}

std::map<std::string, std::string> query_of(std::string_view text) {
  std::map<std::string, std::string> query;
  while (!text.empty()) {
    const auto entry = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), entry.size() + 1));
    if (entry.empty()) continue;
    const auto equals = entry.find('=');
    const auto value = equals == std::string_view::npos ? std::string_view() : entry.substr(equals + 1);
    query.insert_or_assign(decoded(entry.substr(0, equals), true), decoded(value, true));
  }
  return query;
}

ServerRequest request_of(http::request<http::string_body>&& message) {
  ServerRequest request;
  request.method = std::string(message.method_string());
  const std::string target(message.target());
  const auto question = target.find('?');
  request.path = decoded(std::string_view(target).substr(0, question), false);
  if (question != std::string::npos) request.query = query_of(std::string_view(target).substr(question + 1));
  for (const auto& field : message) {
    std::string name(field.name_string());
    for (auto& c : name)
      c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    request.headers.insert_or_assign(std::move(name), std::string(field.value()));
  }
  request.body = std::move(message.body());
  return request;
}

std::string head_of(const ServerReply& reply, bool keep_alive, bool chunked) {
  auto head = fmt::format("HTTP/1.1 {} {}\r\nConnection: {}\r\n", reply.status,
                          std::string(http::obsolete_reason(static_cast<http::status>(reply.status))),
                          keep_alive ? "keep-alive" : "close");
  if (!reply.content_type.empty()) head += fmt::format("Content-Type: {}\r\n", reply.content_type);
  for (const auto& [name, value] : reply.headers)
    head += fmt::format("{}: {}\r\n", name, value);
  if (!reply.stream)
    head += fmt::format("Content-Length: {}\r\n", reply.body.size());
  else if (chunked)
    head += "Transfer-Encoding: chunked\r\n";
  return head + "\r\n";
}

bool has_left(Connection& connection) {
  char byte;
  const auto seen = ::recv(connection.socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return seen == 0 || (seen < 0 && errno != EAGAIN && errno != EINTR);
}

Task<bool> send_text(std::shared_ptr<Connection> connection, std::string text) {
  if (connection->broken) co_return false;
  error_code problem;
  co_await asio::async_write(connection->socket, asio::buffer(text),
                             asio::redirect_error(asio::use_awaitable, problem));
  connection->broken = bool(problem);
  co_return !connection->broken;
}

/// One piece of a stream. An empty one only asks whether the client is still there: as a chunk it would end the body.
Task<bool> send_piece(std::shared_ptr<Connection> connection, std::string piece) {
  if (!connection->broken && has_left(*connection)) connection->broken = true;
  if (connection->broken) co_return false;
  if (piece.empty()) co_return true;
  if (connection->chunked) piece = fmt::format("{:x}\r\n{}\r\n", piece.size(), piece);
  const bool sent = co_await send_text(connection, std::move(piece));
  co_return sent;
}

/// True: the connection can take another request.
Task<bool> answer(std::shared_ptr<Connection> connection, ServerReply reply, bool head_only, bool keep_alive) {
  const bool streams = bool(reply.stream);
  if (streams && !connection->chunked) keep_alive = false;
  auto text = head_of(reply, keep_alive, connection->chunked);
  if (!streams && !head_only) text += reply.body;
  const bool sent = co_await send_text(connection, std::move(text));
  if (!sent) co_return false;
  if (!streams || head_only) co_return keep_alive;

  ServerReply::Write write = [connection](std::string piece) { return send_piece(connection, std::move(piece)); };
  auto streaming = reply.stream(std::move(write));
  co_await std::move(streaming);
  if (connection->chunked) (void)co_await send_text(connection, "0\r\n\r\n");
  co_return keep_alive && !connection->broken;
}

/// A request, or the status that refuses it, or nothing when the client is done.
struct Incoming {
  std::optional<ServerRequest> request;
  int refusal = 0;
  bool keep_alive = false;
};

Task<Incoming> receive(std::shared_ptr<Connection> connection, std::shared_ptr<boost::beast::flat_buffer> buffer) {
  Incoming incoming;
  Parser parser;
  parser.body_limit(longest_body);
  parser.header_limit(longest_header);
  error_code problem;
  co_await http::async_read_header(connection->socket, *buffer, parser,
                                   asio::redirect_error(asio::use_awaitable, problem));
  if (!problem && parser.get()[http::field::expect] == "100-continue" && !parser.is_done())
    (void)co_await send_text(connection, "HTTP/1.1 100 Continue\r\n\r\n");
  if (!problem && !parser.is_done())
    co_await http::async_read(connection->socket, *buffer, parser, asio::redirect_error(asio::use_awaitable, problem));
  if (problem) {
    if (problem == http::error::body_limit)
      incoming.refusal = 413;
    else if (problem == http::error::header_limit || problem == http::error::buffer_overflow)
      incoming.refusal = 431;
    else if (problem.category() == make_error_code(http::error::bad_version).category() &&
             problem != http::error::end_of_stream && problem != http::error::partial_message)
      incoming.refusal = 400;
    co_return incoming;
  }
  connection->chunked = parser.get().version() >= 11;
  incoming.keep_alive = parser.get().keep_alive();
  incoming.request = request_of(parser.release());
  co_return incoming;
}

Task<void> serve(std::shared_ptr<Core> core, std::shared_ptr<Connection> connection) {
  core->connections.insert(connection.get());
  const Registration forget([core, key = connection.get()] { core->connections.erase(key); });
  const auto buffer = std::make_shared<boost::beast::flat_buffer>(longest_header + 64 * 1024);
  for (bool more = true; more;) {
    auto incoming = co_await receive(connection, buffer);
    if (incoming.refusal != 0) {
      ServerReply refused;
      refused.status = incoming.refusal;
      refused.content_type = "text/plain; charset=utf-8";
      refused.body = incoming.refusal == 413 ? "the body is longer than 32 MiB" : "this is no HTTP request";
      (void)co_await answer(connection, std::move(refused), false, false);
    }
    if (!incoming.request) break;
    const bool head_only = incoming.request->method == "HEAD";
    incoming.request->has_left = [connection] { return has_left(*connection); };
    auto deciding = core->handler(std::move(*incoming.request));
    auto reply = co_await std::move(deciding);
    auto answering = answer(connection, std::move(reply), head_only, incoming.keep_alive);
    more = co_await std::move(answering);
  }
  error_code ignored;
  connection->socket.shutdown(tcp::socket::shutdown_send, ignored);
}

/// Asio's accept leaves descriptors open across exec, and the stand-ins start programs.
Task<void> accept_all(std::shared_ptr<tcp::acceptor> acceptor, std::shared_ptr<Core> core, Loop& loop) {
  while (acceptor->is_open()) {
    error_code problem;
    co_await acceptor->async_wait(tcp::acceptor::wait_read, asio::redirect_error(asio::use_awaitable, problem));
    if (problem || !acceptor->is_open()) co_return;
    const int fd = ::accept4(acceptor->native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      // Out of descriptors: nothing signals that there is one again, and the client waits in the queue meanwhile.
      if (errno == EMFILE || errno == ENFILE) co_await wait_for(20ms);
      continue;
    }
    tcp::socket socket(co_await asio::this_coro::executor);
    socket.assign(acceptor->local_endpoint(problem).protocol(), fd, problem);
    if (problem) {
      ::close(fd);
      continue;
    }
    socket.set_option(tcp::no_delay(true), problem);
    loop.spawn(serve(core, std::make_shared<Connection>(std::move(socket))));
  }
}

class AsioServer final : public HttpServer {
 public:
  AsioServer(std::shared_ptr<tcp::acceptor> acceptor, std::shared_ptr<Core> core, std::uint16_t port)
      : acceptor_(std::move(acceptor)), core_(std::move(core)), port_(port) {}
  ~AsioServer() override {
    stop_listening();
    for (auto* connection : core_->connections) {
      connection->broken = true;
      error_code ignored;
      connection->socket.close(ignored);
    }
  }
  std::uint16_t port() const override { return port_; }
  void stop_listening() override {
    error_code ignored;
    acceptor_->close(ignored);
  }

 private:
  std::shared_ptr<tcp::acceptor> acceptor_;
  std::shared_ptr<Core> core_;
  std::uint16_t port_;
};

Result<tcp::endpoint> endpoint_of(const std::string& host, std::uint16_t port) {
  if (host.empty()) return tcp::endpoint(asio::ip::address_v4::any(), port);
  if (host == "localhost") return tcp::endpoint(asio::ip::address_v4::loopback(), port);
  error_code problem;
  const auto address = asio::ip::make_address(host, problem);
  if (problem) return fail(ErrorCode::failed, fmt::format("listen on {}: it is no address", host));
  return tcp::endpoint(address, port);
}

}  // namespace

ServerReply ServerReply::json(std::string body, int status) {
  ServerReply reply;
  reply.status = status;
  reply.body = std::move(body);
  return reply;
}

Result<std::unique_ptr<HttpServer>> HttpServer::listen(Loop& loop, const std::string& host, std::uint16_t port,
                                                       Handler handler) {
  const auto endpoint = TRY(endpoint_of(host, port));
  const auto place = fmt::format("listen on {}:{}", host, port);
  const int fd = ::socket(endpoint.protocol().family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fail(system_error(place, errno));
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd, endpoint.data(), static_cast<socklen_t>(endpoint.size())) != 0 || ::listen(fd, 512) != 0) {
    const int reason = errno;
    ::close(fd);
    return fail(system_error(place, reason));
  }
  const auto acceptor = std::make_shared<tcp::acceptor>(loop.context());
  error_code problem;
  acceptor->assign(endpoint.protocol(), fd, problem);
  if (problem) {
    ::close(fd);
    return fail(ErrorCode::failed, fmt::format("{}: {}", place, problem.message()));
  }
  const auto bound = acceptor->local_endpoint(problem).port();
  const auto core = std::make_shared<Core>();
  core->handler = std::move(handler);
  loop.spawn(accept_all(acceptor, core, loop));
  return std::make_unique<AsioServer>(acceptor, core, bound);
}

}  // namespace gpumod::sim
