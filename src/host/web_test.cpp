// Against real sockets of this machine: what a server does wrong is what matters here.
#include "host/web.h"

#include <atomic>
#include <mutex>
#include <thread>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/folder_testing.h"
#include "host/web_cache.h"

namespace gpumod {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// Answers each connection with one text, as `answer` gives it for the head of the request; "" leaves it hanging.
class TextServer {
 public:
  explicit TextServer(std::function<std::string(const std::string&)> answer)
      : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), answer_(std::move(answer)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listener_.get(), 16), 0);
    EXPECT_EQ(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~TextServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  std::string url(const std::string& path = "/") const { return fmt::format("http://127.0.0.1:{}{}", port_, path); }
  std::vector<std::string> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    for (;;) {
      Fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!connection) return;
      std::string head;
      char buffer[4096];
      while (head.find("\r\n\r\n") == std::string::npos) {
        const auto got = ::recv(connection.get(), buffer, sizeof buffer, 0);
        if (got <= 0) break;
        head.append(buffer, static_cast<std::size_t>(got));
      }
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(head);
      }
      const auto text = answer_(head);
      if (text.empty()) {
        held_.push_back(std::move(connection));
        continue;
      }
      (void)::send(connection.get(), text.data(), text.size(), MSG_NOSIGNAL);
    }
  }

  Fd listener_;
  std::uint16_t port_ = 0;
  std::function<std::string(const std::string&)> answer_;
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<Fd> held_;
  std::thread thread_;
};

std::string ok(const std::string& body, const std::string& headers = "") {
  return fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{}", body.size(), headers,
                     body);
}
std::string redirect(const std::string& where) {
  return fmt::format("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", where);
}

class WebTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { ::setenv("NO_PROXY", "127.0.0.1", 1); }
  WebTest() : web_(open_web()) {}
  void SetUp() override { ASSERT_TRUE(web_) << web_.error().message; }
  Result<WebReply> get(const std::string& url, const std::string& token = "") {
    WebRequest request;
    request.url = url;
    request.token = Secret(token);
    request.most_bytes = 1000;
    request.idle_timeout = 1s;
    request.timeout = 5s;
    return (*web_)->get(request);
  }
  Result<std::unique_ptr<Web>> web_;
};

TEST_F(WebTest, GivesStatusHeadersAndBody) {
  TextServer server([](const std::string&) { return ok("hello", "ETag: \"abc\"\r\nX-Odd:  y \r\n"); });
  const auto reply = get(server.url("/a?b=c"), "hf_secret");
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->status, 200);
  EXPECT_EQ(reply->body, "hello");
  EXPECT_EQ(reply->header("etag"), "\"abc\"");
  EXPECT_EQ(reply->header("x-odd"), "y");
  EXPECT_THAT(server.requests().front(),
              AllOf(HasSubstr("GET /a?b=c HTTP/1.1"), HasSubstr("Authorization: Bearer hf_secret\r\n")));
}

TEST_F(WebTest, ARedirectTakesTheTokenAlongOnlyToTheSameServer) {
  TextServer other([](const std::string&) { return ok("from the other"); });
  TextServer server([&](const std::string& head) {
    if (head.starts_with("GET /near ")) return ok("near");
    return redirect(head.starts_with("GET /far ") ? other.url("/x") : "/near");
  });
  EXPECT_EQ(get(server.url("/there"), "hf_secret")->body, "near");
  EXPECT_THAT(server.requests().back(), HasSubstr("Bearer hf_secret")) << "the same server may see it";
  EXPECT_EQ(get(server.url("/far"), "hf_secret")->body, "from the other");
  ASSERT_EQ(other.requests().size(), 1U);
  EXPECT_THAT(other.requests().front(), Not(HasSubstr("hf_secret"))) << "another port is another server";
  EXPECT_THAT(other.requests().front(), Not(HasSubstr("Authorization")));
}

TEST_F(WebTest, NoProxyReadsAToken) {
  TextServer proxy([](const std::string&) { return ok("from the proxy"); });
  TextServer server([](const std::string&) { return ok("from the server"); });
  ::unsetenv("NO_PROXY");
  ::setenv("http_proxy", proxy.url("").c_str(), 1);
  EXPECT_EQ(get(server.url())->body, "from the proxy");
  EXPECT_EQ(get(server.url(), "hf_secret")->body, "from the server");
  EXPECT_EQ(proxy.requests().size(), 1U);
  ::unsetenv("http_proxy");
  SetUpTestSuite();
}

TEST(WebRedirect, NothingLeadsBackToPlainHttp) {
  EXPECT_TRUE(may_lead_to("https://hub.example/a", "https://cdn.example/b"));
  EXPECT_TRUE(may_lead_to("http://hub.example/a", "HTTP://cdn.example/b"));
  EXPECT_TRUE(may_lead_to("http://hub.example/a", "https://cdn.example/b"));
  EXPECT_FALSE(may_lead_to("https://hub.example/a", "http://hub.example/b"));
  EXPECT_FALSE(may_lead_to("HTTPS://hub.example/a", "http://hub.example/b"));
  EXPECT_FALSE(may_lead_to("https://hub.example/a", "ftp://hub.example/b"));
}

TEST_F(WebTest, RedirectsEnd) {
  TextServer server([](const std::string&) { return redirect("/again"); });
  const auto reply = get(server.url());
  ASSERT_FALSE(reply);
  EXPECT_THAT(reply.error().message, HasSubstr("more than 5 redirects"));
  TextServer file([](const std::string&) { return redirect("file:///etc/passwd"); });
  const auto local = get(file.url("/?key=secret"));
  ASSERT_FALSE(local);
  EXPECT_THAT(local.error().message, AllOf(HasSubstr("file:///etc/passwd"), Not(HasSubstr("secret"))));
}

TEST_F(WebTest, MoreThanWasAskedForIsRefused) {
  TextServer server([](const std::string&) { return ok(std::string(2000, 'x')); });
  const auto reply = get(server.url());
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::failed);
  EXPECT_THAT(reply.error().message, HasSubstr("more than"));
}

TEST_F(WebTest, AnAnswerThatBreaksOffIsNone) {
  TextServer server([](const std::string&) {
    return std::string("HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf");
  });
  const auto reply = get(server.url());
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::environment);
  EXPECT_THAT(reply.error().message, HasSubstr("breaks off"));
}

TEST_F(WebTest, AServerThatSaysNothingIsNotWaitedForForEver) {
  TextServer server([](const std::string&) { return std::string(); });
  const auto began = now();
  const auto reply = get(server.url());
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::environment);
  EXPECT_THAT(reply.error().message, HasSubstr("in time"));
  EXPECT_LT(now() - began, 5s);
}

TEST_F(WebTest, APartIsAskedForAsSuch) {
  TextServer server([](const std::string&) { return ok("x"); });
  WebRequest request;
  request.url = server.url();
  request.range = {10, 19};
  ASSERT_TRUE((*web_)->get(request));
  EXPECT_THAT(server.requests().front(), HasSubstr("Range: bytes=10-19\r\n"));
}

TEST_F(WebTest, OnlyTheWebIsAsked) {
  for (const char* url : {"file:///etc/passwd", "ftp://x/y", "nothing", "", "http://"}) {
    const auto reply = get(url);
    ASSERT_FALSE(reply) << url;
    EXPECT_EQ(reply.error().code, ErrorCode::usage) << url;
  }
  const auto closed = get("http://127.0.0.1:1/");
  ASSERT_FALSE(closed);
  EXPECT_THAT(closed.error().message, HasSubstr("cannot be reached"));
}

TEST(WebOrigin, IsSchemeNameAndPort) {
  EXPECT_EQ(web_origin("https://HuggingFace.co/a?b#c"), "https://huggingface.co:443");
  EXPECT_EQ(web_origin("http://localhost:8080"), "http://localhost:8080");
  EXPECT_EQ(web_origin("http://[::1]:80/x y|z"), "http://[::1]:80");
  EXPECT_EQ(web_origin("http://127.0.0.1.example.com:81/x"), "http://127.0.0.1.example.com:81");
  EXPECT_EQ(web_origin("https://10.0.0.1.nip.io"), "https://10.0.0.1.nip.io:443");
  EXPECT_EQ(web_origin("http://127.0.0.1;x"), "");
  EXPECT_EQ(web_origin("https://name:password@host/"), "");
  EXPECT_EQ(web_origin("https://a@b.c"), "");
}

TEST(WebCacheTest, KeepsAnAnswerUnderItsAddressAlone) {
  const TestFolder folder;
  const WebCache cache(folder / "hub");
  EXPECT_FALSE(cache.find("http://a/"));
  const WallTime when(std::chrono::seconds(1'700'000'000));
  ASSERT_TRUE(cache.keep("http://a/", {"\"e\"", "line\nline\n", when}));
  const auto kept = cache.find("http://a/");
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->etag, "\"e\"");
  EXPECT_EQ(kept->body, "line\nline\n");
  EXPECT_EQ(kept->fetched, when);
  EXPECT_FALSE(cache.find("http://b/"));

  // The same file under the name of another address, as if two hashes were the same.
  std::filesystem::path file;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "hub"))
    file = entry.path();
  ASSERT_TRUE(write_file_atomically(file,
                                    R"({"url":"http://b/","etag":"","fetched":1})"
                                    "\nother",
                                    0600));
  EXPECT_FALSE(cache.find("http://a/"));
  ASSERT_TRUE(write_file_atomically(file, "garbage", 0600));
  EXPECT_FALSE(cache.find("http://a/"));
}

}  // namespace
}  // namespace gpumod
