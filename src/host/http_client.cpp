// The HTTP client: one coroutine a request, one timer over all of it, and nothing kept between requests.
//
// The connection, the timer and what they write to live in one shared Exchange: the timer's handler, or a name
// resolution that nobody waits for any more, may run after the request has returned. No TLS and no connection reuse: it
// speaks to servers of this machine, and "Connection: close" makes each answer's end plain. Beast's own tcp_stream
// lost: it arms a timer for every operation.
#include "host/http_client.h"

#include <algorithm>
#include <cstring>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <boost/json/object.hpp>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"
#include "host/processes.h"

namespace gpumod {

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::uint64_t longest_body = 8 * 1024 * 1024;
constexpr std::uint32_t longest_header = 64 * 1024;
constexpr std::size_t most_arrivals = 16 * 1024;
constexpr Duration longest_timeout = std::chrono::hours(24);

enum class Stage { resolve, connect, send, receive };

std::string_view to_string(Stage stage) {
  switch (stage) {
    case Stage::resolve: return "resolve";
    case Stage::connect: return "connect";
    case Stage::send: return "send";
    case Stage::receive: break;
  }
  return "receive";
}

struct Exchange {
  explicit Exchange(const asio::any_io_executor& executor) : socket(executor), deadline(executor) {}
  tcp::socket socket;
  asio::steady_timer deadline;
  bool late = false;
  bool given_up = false;

  bool over() const { return late || given_up; }
};

std::string authority(const std::string& host, std::uint16_t port) {
  const bool needs_brackets = host.find(':') != std::string::npos && host.front() != '[';
  return needs_brackets ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

/// What the caller sees: the stage in words for people, and in `details` for programs.
class Failures {
 public:
  Failures(const HttpRequest& request, const Exchange& exchange)
      : place_(authority(printable(request.host), request.port)),
        target_(printable(request.target.substr(0, 120))),
        timeout_(request.timeout),
        exchange_(exchange) {}

  Error at(Stage stage, const std::string& what) const {
    const bool late = exchange_.late;
    Error error;
    if (exchange_.given_up) error.code = ErrorCode::cancelled;
    error.message = exchange_.given_up ? fmt::format("{}{}: given up", place_, target_)
                    : late             ? late_at(stage)
                    : stage == Stage::receive || stage == Stage::send
                        ? fmt::format("{}{}: {}", place_, target_, what)
                        : fmt::format("{} {}: {}", to_string(stage), place_, what);
    boost::json::object details;
    details["stage"] = to_string(stage);
    details["timed_out"] = late;
    error.details = std::move(details);
    return error;
  }
  Error at(Stage stage, error_code problem) const { return at(stage, problem.message()); }

 private:
  std::string late_at(Stage stage) const {
    const auto limit = format_seconds(timeout_);
    if (stage == Stage::resolve) return fmt::format("resolve {}: no address within {}", place_, limit);
    if (stage == Stage::connect) return fmt::format("connect {}: no connection within {}", place_, limit);
    return fmt::format("{}{}: no answer within {}", place_, target_, limit);
  }

  std::string place_;
  std::string target_;
  Duration timeout_;
  const Exchange& exchange_;
};

bool is_one_line(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

bool is_token(std::string_view text) {
  const auto allowed = [](char c) { return c > 0x20 && c < 0x7F && std::strchr("()<>@,;:\\\"/[]?={}", c) == nullptr; };
  return !text.empty() && std::all_of(text.begin(), text.end(), allowed);
}

/// What would become two requests, or none, on the wire.
std::optional<std::string> defect_of(const HttpRequest& request) {
  if (!is_token(request.method)) return "its method is malformed";
  if (request.port == 0) return "it has no port";
  if (request.host.empty() || !is_one_line(request.host)) return "its host is malformed";
  const bool blank_free = request.target.find(' ') == std::string::npos && is_one_line(request.target);
  if (!blank_free || !request.target.starts_with("/")) return "its path is malformed";
  for (const auto& [name, value] : request.headers)
    if (!is_token(name) || !is_one_line(value)) return "a header is malformed";
  if (!is_one_line(request.bearer)) return "its key is malformed";
  return std::nullopt;
}

/// Asio's own open() leaves the descriptor open across exec, and this process starts programs.
error_code open_close_on_exec(tcp::socket& socket, const tcp::endpoint& peer) {
  error_code problem;
  socket.close(problem);
  const int fd = ::socket(peer.protocol().family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return {errno, boost::system::system_category()};
  socket.assign(peer.protocol(), fd, problem);
  if (problem) ::close(fd);
  return problem;
}

std::vector<tcp::endpoint> addresses_without_asking(const std::string& host, std::uint16_t port) {
  std::string bare = host;
  if (bare.size() > 2 && bare.front() == '[' && bare.back() == ']') bare = bare.substr(1, bare.size() - 2);
  if (bare == "localhost") return {{asio::ip::address_v4::loopback(), port}, {asio::ip::address_v6::loopback(), port}};
  error_code not_numeric;
  const auto address = asio::ip::make_address(bare, not_numeric);
  if (not_numeric) return {};
  return {{address, port}};
}

/// A resolution cannot be cancelled while the system looks for the name: it is left behind when the deadline comes.
struct Resolution {
  explicit Resolution(const asio::any_io_executor& executor) : resolver(executor), done(executor) {}
  tcp::resolver resolver;
  asio::steady_timer done;
  bool finished = false;
  error_code problem;
  std::vector<tcp::endpoint> endpoints;
};

Task<Result<std::vector<tcp::endpoint>>> resolve(HttpRequest request, std::shared_ptr<Exchange> exchange,
                                                 TimePoint deadline, Signal* given_up) {
  const auto executor = co_await asio::this_coro::executor;
  const auto resolution = std::make_shared<Resolution>(executor);
  resolution->done.expires_at(std::chrono::time_point_cast<asio::steady_timer::duration>(deadline));
  resolution->resolver.async_resolve(request.host, std::to_string(request.port),
                                     [resolution](error_code problem, tcp::resolver::results_type results) {
                                       resolution->finished = true;
                                       resolution->problem = problem;
                                       for (const auto& entry : results)
                                         resolution->endpoints.push_back(entry.endpoint());
                                       resolution->done.cancel();
                                     });
  const auto waking = given_up ? given_up->on_set([resolution] { resolution->done.cancel(); }) : Registration();
  error_code ignored;
  if (!exchange->given_up) co_await resolution->done.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  if (!resolution->finished && !exchange->given_up) exchange->late = true;
  const Failures failures(request, *exchange);
  if (!resolution->finished || resolution->problem) co_return fail(failures.at(Stage::resolve, resolution->problem));
  co_return std::move(resolution->endpoints);
}

/// Begins or asks after a connection: done, failed, or in_progress. Asked again, connect(2) says how it went.
error_code connect_now(tcp::socket& socket, const tcp::endpoint& peer) {
  if (::connect(socket.native_handle(), peer.data(), static_cast<socklen_t>(peer.size())) == 0 || errno == EISCONN)
    return {};
  if (errno == EALREADY || errno == EINTR) return asio::error::in_progress;
  return {errno, boost::system::system_category()};
}

/// A server of this machine is connected to when connect(2) returns, although that says "in progress": so it gets its
/// question before the next server's connection is begun, and works on it meanwhile.
Task<error_code> connect(std::shared_ptr<Exchange> exchange, std::vector<tcp::endpoint> endpoints) {
  auto& socket = exchange->socket;
  error_code problem = asio::error::host_not_found;
  for (const auto& endpoint : endpoints) {
    if (exchange->over()) break;
    problem = open_close_on_exec(socket, endpoint);
    if (problem) continue;
    problem = connect_now(socket, endpoint);
    if (problem == asio::error::in_progress) problem = connect_now(socket, endpoint);
    while (problem == asio::error::in_progress) {
      co_await socket.async_wait(tcp::socket::wait_write, asio::redirect_error(asio::use_awaitable, problem));
      if (!problem) problem = connect_now(socket, endpoint);
    }
    if (!problem) break;
  }
  if (!problem) {
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
  }
  co_return problem;
}

/// A key of ours is no stranger's: whoever got the port before our server could read it.
bool may_have_the_key(std::uint16_t port) {
  const auto listeners = listeners_on({port});
  // Nobody listens yet: who comes next may be anybody.
  return !listeners.empty() && std::all_of(listeners.begin(), listeners.end(),
                                           [](const Listener& one) { return one.uid == ::geteuid() || one.uid == 0; });
}

http::request<http::string_body> message_of(const HttpRequest& request) {
  http::request<http::string_body> message;
  message.version(11);
  message.method_string(request.method);
  message.target(request.target);
  message.set(http::field::host, authority(request.host, request.port));
  message.set(http::field::user_agent, "gpumod");
  message.set(http::field::accept, "*/*");
  if (!request.body.empty()) message.set(http::field::content_type, "application/json");
  for (const auto& [name, value] : request.headers)
    message.set(name, value);
  if (!request.bearer.empty() && may_have_the_key(request.port))
    message.set(http::field::authorization, "Bearer " + request.bearer);
  message.set(http::field::connection, "close");
  message.body() = request.body;
  message.prepare_payload();
  return message;
}

/// The reply, past any number of 1xx: the deadline bounds them.
Task<error_code> receive(std::shared_ptr<Exchange> exchange, bool without_body, std::optional<TimePoint> timed_from,
                         HttpReply& reply) {
  boost::beast::flat_buffer buffer(longest_header + 64 * 1024);
  error_code problem;
  std::optional<http::response_parser<http::string_body>> parser;
  for (;;) {
    parser.emplace();
    parser->body_limit(longest_body);
    parser->header_limit(longest_header);
    parser->skip(without_body);
    co_await http::async_read_header(exchange->socket, buffer, *parser,
                                     asio::redirect_error(asio::use_awaitable, problem));
    if (problem) co_return problem;
    const int status = parser->get().result_int();
    if (status < 100 || status >= 200 || status == 101) break;
  }
  const auto& body = parser->get().body();
  const auto note_arrival = [&] {
    const std::size_t seen = reply.arrivals.empty() ? 0 : reply.arrivals.back().length;
    if (body.size() == seen) return;
    if (reply.arrivals.size() == most_arrivals) reply.arrivals.pop_back();
    reply.arrivals.push_back({body.size(), now() - *timed_from});
  };
  while (timed_from && !problem && !parser->is_done()) {
    co_await http::async_read_some(exchange->socket, buffer, *parser,
                                   asio::redirect_error(asio::use_awaitable, problem));
    note_arrival();
  }
  if (!problem && !parser->is_done())
    co_await http::async_read(exchange->socket, buffer, *parser, asio::redirect_error(asio::use_awaitable, problem));
  // A server that closes with a reset after the whole answer has answered.
  if (problem && !parser->is_done()) co_return problem;
  reply.status = parser->get().result_int();
  reply.content_type = std::string(parser->get()[http::field::content_type]);
  reply.body = std::move(parser->get().body());
  co_return error_code();
}

std::string words_for(error_code problem) {
  if (problem == http::error::body_limit) return "the answer is longer than 8 MiB";
  if (problem == http::error::header_limit || problem == http::error::buffer_overflow)
    return "the answer's header is too long";
  if (problem == http::error::end_of_stream || problem == asio::error::eof)
    return "the server closed the connection without an answer";
  if (problem == http::error::partial_message) return "the answer breaks off";
  if (problem.category() == make_error_code(http::error::bad_version).category())
    return fmt::format("the answer is not HTTP ({})", problem.message());
  return problem.message();
}

class BeastClient final : public HttpClient {
 public:
  Task<Result<HttpReply>> request(HttpRequest request, Signal* given_up) override;
};

Task<Result<HttpReply>> BeastClient::request(HttpRequest request, Signal* given_up) {
  if (const auto defect = defect_of(request))
    co_return fail(ErrorCode::failed, fmt::format("the request cannot be sent: {}", *defect));
  const auto executor = co_await asio::this_coro::executor;
  const auto exchange = std::make_shared<Exchange>(executor);
  const Failures failures(request, *exchange);
  const TimePoint began = now();
  // A far deadline must not overflow the clock.
  const TimePoint deadline = began + std::min(request.timeout, longest_timeout);
  exchange->deadline.expires_at(std::chrono::time_point_cast<asio::steady_timer::duration>(deadline));
  exchange->deadline.async_wait([exchange](error_code cancelled) {
    if (cancelled) return;
    exchange->late = true;
    error_code ignored;
    exchange->socket.close(ignored);
  });
  // Also when this coroutine is destroyed in the middle: a forgotten timer would keep the loop and the socket.
  const Registration stop_clock([exchange] {
    exchange->deadline.cancel();
    error_code ignored;
    exchange->socket.close(ignored);
  });

  const auto ending = given_up ? given_up->on_set([exchange] {
    exchange->given_up = true;
    error_code ignored;
    exchange->socket.close(ignored);
  })
                               : Registration();

  auto endpoints = addresses_without_asking(request.host, request.port);
  if (endpoints.empty()) {
    auto resolved = co_await resolve(request, exchange, deadline, given_up);
    if (!resolved) co_return fail(std::move(resolved.error()));
    endpoints = std::move(*resolved);
  }

  const error_code unconnected = co_await connect(exchange, std::move(endpoints));
  if (unconnected || exchange->over()) co_return fail(failures.at(Stage::connect, unconnected));

  const auto message = message_of(request);
  error_code unsent;
  co_await http::async_write(exchange->socket, message, asio::redirect_error(asio::use_awaitable, unsent));
  if (exchange->over()) co_return fail(failures.at(Stage::send, unsent));

  // A server may refuse a long request, answer and close before having read it: its answer says more than our error.
  HttpReply reply;
  const bool without_body = request.method == "HEAD";
  const error_code unread =
      co_await receive(exchange, without_body, request.timed ? std::optional(began) : std::nullopt, reply);
  if (unread && unsent) co_return fail(failures.at(Stage::send, unsent));
  if (unread) co_return fail(failures.at(Stage::receive, words_for(unread)));
  co_return reply;
}

}  // namespace

std::unique_ptr<HttpClient> make_http_client(Loop&) {
  return std::make_unique<BeastClient>();
}

}  // namespace gpumod
