#include "host/http_client.h"

#include <atomic>
#include <future>
#include <thread>

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

namespace gpumod {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

/// A server for one connection after another, whose behaviour is a function of the accepted socket.
class LittleServer {
 public:
  using Behaviour = std::function<void(int connection)>;

  explicit LittleServer(Behaviour behaviour, int backlog = 16)
      : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listener_.get(), backlog), 0);
    EXPECT_EQ(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    port_ = ntohs(address.sin_port);
    if (!behaviour) return;  // listens, and never accepts
    thread_ = std::thread([this, behaviour = std::move(behaviour)] {
      for (;;) {
        const Fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!connection || stopping_) return;
        behaviour(connection.get());
      }
    });
  }
  ~LittleServer() {
    stopping_ = true;
    ::shutdown(listener_.get(), SHUT_RDWR);
    if (thread_.joinable()) thread_.join();
  }
  std::uint16_t port() const { return port_; }

 private:
  Fd listener_;
  std::uint16_t port_ = 0;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

void send_text(int connection, std::string_view text) {
  while (!text.empty()) {
    const auto sent = ::send(connection, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
}

/// Reads a request's head, and the body that its Content-Length announces.
std::string read_request(int connection) {
  std::string text;
  char buffer[4096];
  for (;;) {
    const auto end = text.find("\r\n\r\n");
    if (end != std::string::npos) {
      const auto announced = text.find("Content-Length: ");
      const std::size_t body = announced < end ? std::stoul(text.substr(announced + 16)) : 0;
      if (text.size() >= end + 4 + body) return text;
    }
    const auto got = ::recv(connection, buffer, sizeof buffer, 0);
    if (got <= 0) return text;
    text.append(buffer, static_cast<std::size_t>(got));
  }
}

/// Holds the connection open until the client leaves it.
void wait_for_end(int connection) {
  char byte;
  while (::recv(connection, &byte, 1, 0) > 0) {
  }
}

void reset(int connection) {
  const linger at_once{1, 0};
  ::setsockopt(connection, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

LittleServer::Behaviour answering(std::string answer) {
  return [answer = std::move(answer)](int connection) {
    read_request(connection);
    send_text(connection, answer);
  };
}

class HttpClientTest : public ::testing::Test {
 protected:
  Result<HttpReply> ask(HttpRequest request) { return loop_.run_until_done(client_->request(std::move(request))); }
  static HttpRequest to(std::uint16_t port, Duration timeout = 20s) {
    HttpRequest request;
    request.port = port;
    request.timeout = timeout;
    return request;
  }

  Loop loop_;
  std::unique_ptr<HttpClient> client_ = make_http_client(loop_);
};

TEST_F(HttpClientTest, ReadsABodyOfAnnouncedLength) {
  LittleServer server(
      answering("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}trailing"));
  const auto reply = ask(to(server.port()));
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->status, 200);
  EXPECT_EQ(reply->content_type, "application/json");
  EXPECT_EQ(reply->body, "{}");
}

TEST_F(HttpClientTest, ReadsAChunkedBody) {
  LittleServer server(answering(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nHall\r\n3;x=y\r\no W\r\n0\r\nTrailer: t\r\n\r\n"));
  const auto reply = ask(to(server.port()));
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->body, "Hallo W");
}

TEST_F(HttpClientTest, ATimedAnswerSaysWhenItsPiecesCame) {
  LittleServer server([&](int connection) {
    read_request(connection);
    send_text(connection, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nHall\r\n");
    std::this_thread::sleep_for(60ms);  // what the server takes for the rest is what is measured
    send_text(connection, "1\r\no\r\n0\r\n\r\n");
  });
  auto request = to(server.port());
  request.timed = true;
  const auto timed = ask(request);
  ASSERT_TRUE(timed) << timed.error().message;
  EXPECT_EQ(timed->body, "Hallo");
  ASSERT_EQ(timed->arrivals.size(), 2U);
  EXPECT_EQ(timed->arrivals[0].length, 4U);
  EXPECT_EQ(timed->arrivals[1].length, 5U);
  EXPECT_GE(timed->arrivals[1].after - timed->arrivals[0].after, 30ms);
  request.timed = false;
  const auto plain = ask(request);
  ASSERT_TRUE(plain);
  EXPECT_TRUE(plain->arrivals.empty());
}

TEST_F(HttpClientTest, ATimedAnswerMayEndWithTheConnectionOrBreakOff) {
  LittleServer whole(answering("HTTP/1.1 200 OK\r\n\r\nall of it"));
  auto request = to(whole.port());
  request.timed = true;
  const auto read = ask(request);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->arrivals.back().length, 9U);
  LittleServer broken(answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"));
  request.port = broken.port();
  EXPECT_FALSE(ask(request));
}

TEST_F(HttpClientTest, ReadsABodyThatEndsWithTheConnection) {
  LittleServer server(answering("HTTP/1.0 200 OK\r\n\r\nuntil the end"));
  const auto reply = ask(to(server.port()));
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->body, "until the end");
}

TEST_F(HttpClientTest, PassesOverInterimAnswers) {
  LittleServer server(
      answering("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                "HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx"));
  const auto reply = ask(to(server.port()));
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->status, 201);
  EXPECT_EQ(reply->body, "x");
}

TEST_F(HttpClientTest, EveryStatusIsAReply) {
  for (const int status : {204, 304, 404, 503}) {
    const auto head = fmt::format("HTTP/1.1 {} Words\r\n", status);
    LittleServer server(answering(status < 400 ? head + "\r\n" : head + "Content-Length: 4\r\n\r\nbusy"));
    const auto reply = ask(to(server.port()));
    ASSERT_TRUE(reply) << reply.error().message;
    EXPECT_EQ(reply->status, status);
    EXPECT_EQ(reply->body, status < 400 ? "" : "busy");
  }
}

TEST_F(HttpClientTest, SendsWhatWasAsked) {
  std::promise<std::string> seen;
  LittleServer server([&](int connection) {
    seen.set_value(read_request(connection));
    send_text(connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  });
  auto request = to(server.port());
  request.method = "POST";
  request.target = "/models/load?x=1";
  request.body = R"({"model":"a"})";
  request.headers["X-Test"] = "yes";
  request.bearer = "of-ours";  // the listener is our own: it may have it
  ASSERT_TRUE(ask(request));
  const auto text = seen.get_future().get();
  EXPECT_THAT(text, StartsWith("POST /models/load?x=1 HTTP/1.1\r\n"));
  EXPECT_THAT(text, HasSubstr(fmt::format("Host: 127.0.0.1:{}\r\n", server.port())));
  EXPECT_THAT(text, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(text, HasSubstr("Content-Type: application/json\r\n"));
  EXPECT_THAT(text, HasSubstr("Content-Length: 13\r\n"));
  EXPECT_THAT(text, HasSubstr("X-Test: yes\r\n"));
  EXPECT_THAT(text, HasSubstr("Authorization: Bearer of-ours\r\n"));
  EXPECT_TRUE(text.ends_with("\r\n\r\n{\"model\":\"a\"}"));
}

TEST_F(HttpClientTest, APostWithoutBodySaysSo) {
  std::promise<std::string> seen;
  LittleServer server([&](int connection) {
    seen.set_value(read_request(connection));
    send_text(connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  });
  auto request = to(server.port());
  request.method = "POST";
  ASSERT_TRUE(ask(request));
  EXPECT_THAT(seen.get_future().get(), HasSubstr("Content-Length: 0\r\n"));
}

TEST_F(HttpClientTest, LocalhostNeedsNoResolver) {
  LittleServer server(answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
  auto request = to(server.port());
  request.host = "localhost";
  const auto reply = ask(request);
  ASSERT_TRUE(reply) << reply.error().message;
}

TEST_F(HttpClientTest, ARefusedConnectionNamesPlaceAndCause) {
  std::uint16_t port = 0;
  { port = LittleServer(nullptr).port(); }
  const auto reply = ask(to(port));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::failed);
  EXPECT_EQ(reply.error().message, fmt::format("connect 127.0.0.1:{}: Connection refused", port));
  EXPECT_EQ(reply.error().details.at("stage"), "connect");
  EXPECT_EQ(reply.error().details.at("timed_out"), false);
}

TEST_F(HttpClientTest, AServerThatNeverAnswersCostsTheDeadline) {
  LittleServer server(wait_for_end);
  const auto before = now();
  const auto reply = ask(to(server.port(), 150ms));
  ASSERT_FALSE(reply);
  EXPECT_GE(now() - before, 150ms);
  EXPECT_THAT(reply.error().message, HasSubstr("no answer within 0.1"));
  EXPECT_EQ(reply.error().details.at("timed_out"), true);
}

TEST_F(HttpClientTest, AQuestionThatIsGivenUpEndsAtOnceAndLeavesTheServer) {
  Signal given_up(loop_);
  std::promise<void> left;
  auto server_side = left.get_future();
  LittleServer server([&](int connection) {
    read_request(connection);
    loop_.post([&] { given_up.set(); });
    wait_for_end(connection);
    left.set_value();
  });
  auto reply = loop_.run_until_done(client_->request(to(server.port(), 600s), &given_up));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::cancelled);
  EXPECT_THAT(reply.error().message, HasSubstr("given up"));
  EXPECT_EQ(server_side.wait_for(20s), std::future_status::ready) << "the connection is closed";

  reply = loop_.run_until_done(client_->request(to(server.port(), 600s), &given_up));
  ASSERT_FALSE(reply) << "given up before it was begun";
  EXPECT_EQ(reply.error().code, ErrorCode::cancelled);
}

TEST_F(HttpClientTest, TheDeadlineCoversAnAnswerThatTrickles) {
  LittleServer server([](int connection) {
    read_request(connection);
    send_text(connection, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    const std::string_view chunk = "1\r\nx\r\n";
    while (::send(connection, chunk.data(), chunk.size(), MSG_NOSIGNAL) > 0)
      ::usleep(5'000);  // it trickles: an answer that never stops and never ends
  });
  const auto reply = ask(to(server.port(), 200ms));
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error().message, HasSubstr("no answer within 0.2 s"));
}

TEST_F(HttpClientTest, AListenerThatNeverAcceptsCostsTheDeadline) {
  LittleServer server(nullptr);
  const auto reply = ask(to(server.port(), 100ms));
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error().message, HasSubstr("within 0.1 s"));
}

TEST_F(HttpClientTest, AResetIsAnErrorInWords) {
  LittleServer server([](int connection) {
    read_request(connection);
    reset(connection);
  });
  const auto reply = ask(to(server.port()));
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error().message, HasSubstr("Connection reset by peer"));
  EXPECT_EQ(reply.error().details.at("stage"), "receive");
}

TEST_F(HttpClientTest, AConnectionClosedWithoutAnAnswerIsSaidPlainly) {
  LittleServer server([](int connection) { read_request(connection); });
  const auto reply = ask(to(server.port()));
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error().message, HasSubstr("closed the connection without an answer"));
}

TEST_F(HttpClientTest, ABodyThatBreaksOffIsNoReply) {
  for (const char* head : {"Content-Length: 100\r\n\r\nshort", "Transfer-Encoding: chunked\r\n\r\n5\r\nab"}) {
    LittleServer server(answering(std::string("HTTP/1.1 200 OK\r\n") + head));
    const auto reply = ask(to(server.port()));
    ASSERT_FALSE(reply) << head;
    EXPECT_THAT(reply.error().message, HasSubstr("breaks off"));
  }
}

TEST_F(HttpClientTest, GarbageIsNotHttp) {
  for (const char* garbage :
       {"SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "\x16\x03\x01\x02\x02\x01\xfe\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nmore\r\n\r\n"}) {
    LittleServer server(answering(garbage));
    const auto reply = ask(to(server.port()));
    ASSERT_FALSE(reply) << garbage;
    EXPECT_THAT(reply.error().message, HasSubstr("not HTTP"));
  }
}

TEST_F(HttpClientTest, AnEndlessBodyIsCutOff) {
  for (const char* framing : {"", "Content-Length: 9000000\r\n"}) {
    LittleServer server([framing](int connection) {
      read_request(connection);
      send_text(connection, fmt::format("HTTP/1.1 200 OK\r\n{}\r\n", framing));
      const std::string block(65536, 'x');
      for (int i = 0; i < 200; ++i)
        if (::send(connection, block.data(), block.size(), MSG_NOSIGNAL) <= 0) return;
    });
    const auto reply = ask(to(server.port()));
    ASSERT_FALSE(reply);
    EXPECT_THAT(reply.error().message, HasSubstr("longer than 8 MiB"));
  }
}

TEST_F(HttpClientTest, AnEndlessHeaderIsCutOff) {
  LittleServer server([](int connection) {
    read_request(connection);
    send_text(connection, "HTTP/1.1 200 OK\r\n");
    const std::string line = "X-Filler: " + std::string(1000, 'x') + "\r\n";
    for (int i = 0; i < 2000; ++i)
      if (::send(connection, line.data(), line.size(), MSG_NOSIGNAL) <= 0) return;
  });
  const auto reply = ask(to(server.port()));
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error().message, HasSubstr("header"));
}

TEST_F(HttpClientTest, AServerThatRefusesALongRequestIsHeard) {
  LittleServer server([](int connection) {
    char byte;
    (void)::recv(connection, &byte, 1, 0);
    send_text(connection, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    ::shutdown(connection, SHUT_WR);
    std::string sink(1 << 20, 0);
    while (::recv(connection, sink.data(), sink.size(), 0) > 0) {
    }
  });
  auto request = to(server.port());
  request.method = "POST";
  request.body = std::string(4 << 20, 'x');
  const auto reply = ask(request);
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->status, 413);
}

TEST_F(HttpClientTest, WhatWouldBeTwoRequestsIsNotSent) {
  for (const char* target : {"/x HTTP/1.1\r\nHost: y\r\n\r\nGET /", "x", "/a b", ""}) {
    auto request = to(1);
    request.target = target;
    const auto reply = ask(request);
    ASSERT_FALSE(reply);
    EXPECT_THAT(reply.error().message, HasSubstr("malformed"));
  }
  auto request = to(1);
  request.headers["X"] = "a\r\nY: b";
  EXPECT_THAT(ask(request).error().message, HasSubstr("header is malformed"));
  request.headers.clear();
  request.bearer = "a\r\nY: b";
  EXPECT_THAT(ask(request).error().message, HasSubstr("key is malformed"));
  EXPECT_THAT(ask(to(0)).error().message, HasSubstr("no port"));
}

TEST_F(HttpClientTest, SocketsDoNotLeakIntoPrograms) {
  // While the server holds the answer back, every socket of this process that is connected to it must be close-on-exec.
  LittleServer* self = nullptr;
  std::atomic<int> connected = 0;
  std::atomic<int> leaking = 0;
  LittleServer server([&](int connection) {
    read_request(connection);
    for (int fd = 3; fd < 256; ++fd) {
      sockaddr_in peer{};
      socklen_t length = sizeof peer;
      const bool ours = ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0 &&
                        peer.sin_family == AF_INET && ntohs(peer.sin_port) == self->port();
      if (!ours) continue;
      ++connected;
      if ((::fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0) ++leaking;
    }
    send_text(connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  });
  self = &server;
  ASSERT_TRUE(ask(to(server.port())));
  EXPECT_GE(connected, 1);
  EXPECT_EQ(leaking, 0);
}

TEST_F(HttpClientTest, ManyRequestsRunBesideEachOther) {
  LittleServer slow(wait_for_end, 64);
  LittleServer quick(answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), 64);
  int late = 0;
  int good = 0;
  std::vector<Task<void>> tasks;
  const auto count = [](HttpClient& client, HttpRequest request, int& ok, int& failed) -> Task<void> {
    const auto reply = co_await client.request(std::move(request));
    ++(reply ? ok : failed);
  };
  for (int i = 0; i < 20; ++i)
    tasks.push_back(count(*client_, to(slow.port(), 300ms), good, late));
  for (int i = 0; i < 20; ++i)
    tasks.push_back(count(*client_, to(quick.port()), good, late));
  const auto all = [](std::vector<Task<void>> list) -> Task<bool> {
    co_await run_all(std::move(list));
    co_return true;
  };
  EXPECT_TRUE(loop_.run_until_done(all(std::move(tasks))));
  EXPECT_EQ(good, 20);
  EXPECT_EQ(late, 20);
}

TEST(HttpClientLifetime, ALoopThatEndsInTheMiddleOfARequestIsClean) {
  LittleServer server(wait_for_end);
  {
    Loop loop;
    const auto client = make_http_client(loop);
    HttpRequest request;
    request.port = server.port();
    loop.spawn([](HttpClient& c, HttpRequest r) -> Task<void> {
      const auto unread = co_await c.request(std::move(r));
      (void)unread;
    }(*client, request));
    loop.spawn([](Loop& l) -> Task<void> {
      co_await wait_for(50ms);
      l.stop();
    }(loop));
    loop.run();
  }
  SUCCEED();  // the sanitizers judge what was left behind; without them, that the server's thread ends below
}

}  // namespace
}  // namespace gpumod
