#include "sim/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "host/http_client.h"

namespace gpumod::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::StartsWith;

class HttpServerTest : public ::testing::Test {
 protected:
  void listen(HttpServer::Handler handler) {
    auto server = HttpServer::listen(loop_, "127.0.0.1", 0, std::move(handler));
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
  }
  Result<HttpReply> ask(std::string method, std::string target, std::string body = {}) {
    HttpRequest request;
    request.port = server_->port();
    request.method = std::move(method);
    request.target = std::move(target);
    request.body = std::move(body);
    request.timeout = 20s;
    return loop_.run_until_done(client_->request(std::move(request)));
  }
  Fd connected() const {
    Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(server_->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  void send_text(const Fd& fd, std::string_view text) const {
    EXPECT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  /// Runs the loop until the text received so far ends as wanted, or the server closes, or it takes too long.
  std::string read_until(const Fd& fd, std::string end) {
    return loop_.run_until_done([](int socket, std::string wanted) -> Task<std::string> {
      std::string text;
      const auto deadline = now() + 20s;
      while (!text.ends_with(wanted)) {
        const auto ready = co_await wait_ready(socket, Readiness::readable, deadline);
        if (!ready || !*ready) break;
        char buffer[4096];
        const auto got = ::recv(socket, buffer, sizeof buffer, MSG_DONTWAIT);
        if (got <= 0) break;
        text.append(buffer, static_cast<std::size_t>(got));
      }
      co_return text;
    }(fd.get(), std::move(end)));
  }

  Loop loop_;
  std::unique_ptr<HttpClient> client_ = make_http_client(loop_);
  std::unique_ptr<HttpServer> server_;
};

Task<ServerReply> echo(ServerRequest request) {
  co_return ServerReply::json(request.method + " " + request.path + " " + request.body);
}

TEST_F(HttpServerTest, TheHandlerSeesTheRequestAndTheClientTheReply) {
  ServerRequest seen;
  listen([&](ServerRequest request) -> Task<ServerReply> {
    seen = request;
    auto reply = ServerReply::json(R"({"detail":"teapot"})", 418);
    reply.headers["server"] = "uvicorn";
    co_return reply;
  });
  const auto reply = ask("POST", "/a%20b?level=2&tags=x+y%2Cz&flag", "hello");
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->status, 418);
  EXPECT_EQ(reply->content_type, "application/json");
  EXPECT_EQ(reply->body, R"({"detail":"teapot"})");
  EXPECT_EQ(seen.method, "POST");
  EXPECT_EQ(seen.path, "/a b");
  EXPECT_THAT(seen.query, ElementsAre(Pair("flag", ""), Pair("level", "2"), Pair("tags", "x y,z")));
  EXPECT_EQ(seen.body, "hello");
  EXPECT_EQ(seen.headers.at("content-type"), "application/json");
}

TEST_F(HttpServerTest, AConnectionTakesOneRequestAfterAnother) {
  listen(echo);
  const auto fd = connected();
  send_text(fd, "POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nAGET /two HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto text = read_until(fd, "GET /two ");
  EXPECT_THAT(text, HasSubstr("POST /one A"));
  EXPECT_THAT(text, HasSubstr("Connection: keep-alive"));
  send_text(fd, "HEAD /three HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const auto last = read_until(fd, "never said");
  EXPECT_THAT(last, HasSubstr("Content-Length: 12\r\n"));
  EXPECT_TRUE(last.ends_with("\r\n\r\n")) << last;
}

TEST_F(HttpServerTest, AStreamLeavesPieceByPiece) {
  Signal seen(loop_);
  listen([&](ServerRequest) -> Task<ServerReply> {
    ServerReply reply;
    reply.content_type = "text/event-stream; charset=utf-8";
    reply.stream = [&seen](ServerReply::Write write) -> Task<void> {
      (void)co_await write("data: 1\n\n");
      (void)co_await seen.wait();
      (void)co_await write("data: [DONE]\n\n");
    };
    co_return reply;
  });
  const auto fd = connected();
  send_text(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto first = read_until(fd, "data: 1\n\n\r\n");
  EXPECT_THAT(first, HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_THAT(first, HasSubstr("\r\n\r\n9\r\ndata: 1\n\n\r\n"));
  seen.set();
  EXPECT_EQ(read_until(fd, "0\r\n\r\n"), "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
  const auto whole = ask("GET", "/");
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->body, "data: 1\n\ndata: [DONE]\n\n");

  send_text(fd, "GET / HTTP/1.0\r\n\r\n");
  const auto old = read_until(fd, "never said");
  EXPECT_TRUE(old.ends_with("\r\n\r\ndata: 1\n\ndata: [DONE]\n\n")) << old;
}

TEST_F(HttpServerTest, AStreamLearnsAtOnceThatItsClientLeft) {
  Signal asked(loop_);
  Signal left(loop_);
  Signal over(loop_);
  std::vector<bool> heard;
  listen([&](ServerRequest) -> Task<ServerReply> {
    ServerReply reply;
    reply.stream = [&](ServerReply::Write write) -> Task<void> {
      heard.push_back(co_await write("first"));
      heard.push_back(co_await write(""));
      asked.set();
      (void)co_await left.wait();
      heard.push_back(co_await write(""));
      heard.push_back(co_await write("second"));
      over.set();
    };
    co_return reply;
  });
  auto fd = connected();
  send_text(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(read_until(fd, "first\r\n"), HasSubstr("5\r\nfirst"));
  EXPECT_TRUE(loop_.run_until_done(asked.wait(now() + 20s)));
  fd.reset();
  left.set();
  EXPECT_TRUE(loop_.run_until_done(over.wait(now() + 20s)));
  EXPECT_THAT(heard, ElementsAre(true, true, false, false));
}

TEST_F(HttpServerTest, OneThatThinksLongHoldsNobodyUp) {
  Signal never(loop_);
  listen([&](ServerRequest request) -> Task<ServerReply> {
    if (request.path == "/slow") (void)co_await never.wait();
    co_return ServerReply::json("{}");
  });
  const auto slow = connected();
  send_text(slow, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto reply = ask("GET", "/quick");
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->status, 200);
}

TEST_F(HttpServerTest, RefusesWhatIsTooLongOrNoHttp) {
  bool handled = false;
  listen([&](ServerRequest) -> Task<ServerReply> {
    handled = true;
    co_return ServerReply::json("{}");
  });
  auto fd = connected();
  send_text(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 33554433\r\n\r\n");
  EXPECT_THAT(read_until(fd, "never said"), StartsWith("HTTP/1.1 413 "));
  fd = connected();
  send_text(fd, "Hello there\r\n\r\n");
  EXPECT_THAT(read_until(fd, "never said"), StartsWith("HTTP/1.1 400 "));
  EXPECT_FALSE(handled);
}

TEST_F(HttpServerTest, ATakenPortIsSaidAndAClosedOneIsFree) {
  Signal go_on(loop_);
  listen([&](ServerRequest) -> Task<ServerReply> {
    (void)co_await go_on.wait();
    co_return ServerReply::json("late");
  });
  const auto port = server_->port();
  const auto second = HttpServer::listen(loop_, "127.0.0.1", port, echo);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("Address already in use"));
  EXPECT_THAT(second.error().message, HasSubstr(std::to_string(port)));

  const auto fd = connected();
  send_text(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  // One turn of the loop, so that the connection is accepted and not lost with the listener.
  loop_.run_until_done([]() -> Task<bool> {
    co_await wait_for(50ms);
    co_return true;
  }());
  server_->stop_listening();
  const auto third = HttpServer::listen(loop_, "127.0.0.1", port, echo);
  ASSERT_TRUE(third) << third.error().message;
  go_on.set();
  EXPECT_THAT(read_until(fd, "late"), HasSubstr("200 OK"));
}

TEST_F(HttpServerTest, SocketsDoNotLeakIntoPrograms) {
  int open = 0;
  int leaking = 0;
  listen([&](ServerRequest) -> Task<ServerReply> {
    for (int fd = 3; fd < 256; ++fd) {
      sockaddr_in own{};
      socklen_t length = sizeof own;
      const bool ours = ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length) == 0 &&
                        own.sin_family == AF_INET && ntohs(own.sin_port) == server_->port();
      if (!ours) continue;
      ++open;
      if ((::fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0) ++leaking;
    }
    co_return ServerReply::json("{}");
  });
  ASSERT_TRUE(ask("GET", "/"));
  EXPECT_EQ(open, 2);  // the listener and the accepted connection
  EXPECT_EQ(leaking, 0);
}

}  // namespace
}  // namespace gpumod::sim
