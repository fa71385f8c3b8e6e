// HTTP-shaped requests, without a socket.
#include "faces/mcp/http_door.h"

#include "faces/mcp/session_testing.h"

namespace gpumod::mcp {
namespace {

namespace json = boost::json;

struct TestReply : HttpReply {
  void whole(int code, std::map<std::string, std::string> with, std::string text) override {
    EXPECT_EQ(status, 0) << "one answer is enough";
    status = code;
    headers = std::move(with);
    body = std::move(text);
  }
  void event(const json::object& message) override { events.push_back(message); }
  void end() override { ended = true; }
  json::object message() const { return json::parse(body).as_object(); }
  int error() const { return static_cast<int>(message().at("error").at("code").as_int64()); }

  int status = 0;
  std::map<std::string, std::string> headers;
  std::string body;
  std::vector<json::object> events;
  bool ended = false;
};

class McpHttp : public testing::Test {
 public:
  using Headers = std::map<std::string, std::string>;

  std::shared_ptr<TestReply> post(std::string body, Headers headers, const std::string& method = "POST") {
    headers.emplace("content-type", "application/json");
    headers.emplace("host", "127.0.0.1:7000");
    const auto reply = std::make_shared<TestReply>();
    leave = door.handle({method, std::move(headers), std::move(body)}, reply);
    return reply;
  }
  /// A modern request with the headers that belong to it, but for those that are given ("" takes one away).
  std::shared_ptr<TestReply> ask(std::string_view method, json::object params = {}, const Headers& other = {},
                                 std::string_view version = modern_version) {
    json::object meta{{meta_version, version}, {meta_capabilities, json::object()}, {"progressToken", 1}};
    Headers headers{{"mcp-protocol-version", std::string(version)}, {"mcp-method", std::string(method)}};
    if (const auto name = text_in(params, params.contains("uri") ? "uri" : "name"); !name.empty())
      headers["mcp-name"] = name;
    for (const auto& [name, value] : other) {
      headers[name] = value;
      if (value.empty()) headers.erase(name);
    }
    params["_meta"] = std::move(meta);
    return post(
        json::serialize(json::object{{"jsonrpc", "2.0"}, {"id", 1}, {"method", method}, {"params", std::move(params)}}),
        headers);
  }

  TestOffer offer;
  HttpDoor door{offer};
  std::function<void()> leave;
};

TEST_F(McpHttp, AnAnswerIsOneObject) {
  const auto reply = ask("tools/list");
  EXPECT_EQ(reply->status, 200);
  EXPECT_EQ(reply->headers.at("content-type"), "application/json");
  EXPECT_TRUE(reply->message().at("result").as_object().contains("tools"));
}

TEST_F(McpHttp, ProgressMakesItAStream) {
  const auto reply = ask("tools/call", {{"name", "work"}});
  EXPECT_EQ(reply->status, 0);
  offer.calls.at(0)->progress(1, 2, "on");
  EXPECT_EQ(reply->events.size(), 1U);
  offer.calls.at(0)->finish({});
  EXPECT_EQ(reply->events.size(), 2U);
  EXPECT_TRUE(reply->ended);
  EXPECT_EQ(reply->status, 0);
}

TEST_F(McpHttp, WhoLeavesHasTakenItBack) {
  ask("tools/call", {{"name", "work"}});
  bool undone = false;
  offer.calls.at(0)->on_cancel = [&] { undone = true; };
  leave();
  EXPECT_TRUE(undone);
}

TEST_F(McpHttp, HeadersSayWhatTheBodySays) {
  const std::pair<Headers, const char*> bad[] = {
      {{{"mcp-protocol-version", ""}}, "version missing"},
      {{{"mcp-protocol-version", "2025-11-25"}}, "version differs"},
      {{{"mcp-method", ""}}, "method missing"},
      {{{"mcp-method", "tools/list"}}, "method differs"},
      {{{"mcp-method", "TOOLS/CALL"}}, "values have a case"},
      {{{"mcp-name", ""}}, "name missing"},
      {{{"mcp-name", "other"}}, "name differs"},
      {{{"mcp-name", "=?base64?!!!!?="}}, "name unreadable"},
      {{{"mcp-name", "=?base64?b3RoZXI=?="}}, "name differs, coded"},
  };
  for (const auto& [headers, why] : bad) {
    const auto reply = ask("tools/call", {{"name", "work"}}, headers);
    EXPECT_EQ(reply->status, 400) << why;
    EXPECT_EQ(reply->error(), -32020) << why;
  }
  EXPECT_TRUE(offer.calls.empty());
  ask("tools/call", {{"name", "work"}}, {{"mcp-name", "=?base64?d29yaw==?="}});
  EXPECT_EQ(offer.calls.size(), 1U);
}

TEST_F(McpHttp, WrongRequestsHaveTheirStatus) {
  EXPECT_EQ(ask("no/such")->status, 404);
  EXPECT_EQ(ask("no/such")->error(), -32601);
  const auto old = ask("tools/list", {}, {}, "1999-01-01");
  EXPECT_EQ(old->status, 400);
  EXPECT_EQ(old->error(), -32022);
  const auto bare = post(R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})", {{"mcp-protocol-version", "2026-07-28"}});
  EXPECT_EQ(bare->status, 400);
  EXPECT_EQ(bare->error(), -32602);
  const auto nameless = post(
      R"({"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/clientCapabilities":{}}}})",
      {{"mcp-protocol-version", "2026-07-28"}, {"mcp-method", "tools/list"}});
  EXPECT_EQ(nameless->error(), -32602) << "it is missing, not different";
  EXPECT_EQ(post("{", {})->status, 400);
  EXPECT_EQ(post("{}", {{"content-type", "text/plain"}})->status, 415);
  EXPECT_EQ(post("", {}, "GET")->status, 405);
  EXPECT_EQ(post("", {}, "GET")->headers.at("allow"), "POST");
  EXPECT_EQ(post("", {}, "DELETE")->status, 405);
}

TEST_F(McpHttp, OnlyThisMachineIsLetIn) {
  for (const char* origin : {"http://evil.example", "null", "http://localhost.evil.example",
                             "http://127.0.0.1.evil.example", "http://localhost:80@evil.example", "file://", "http://"})
    EXPECT_EQ(ask("tools/list", {}, {{"origin", origin}})->status, 403) << origin;
  for (const char* host : {"evil.example", "localhost.evil.example:80", "127.0.0.1x"})
    EXPECT_EQ(ask("tools/list", {}, {{"host", host}})->status, 403) << host;
  for (const char* origin : {"http://localhost", "https://127.0.0.1:8443", "http://[::1]:1"})
    EXPECT_EQ(ask("tools/list", {}, {{"origin", origin}})->status, 200) << origin;
}

TEST_F(McpHttp, LegacyClientsHaveASession) {
  const auto opened = post(
      R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}}}})",
      {});
  EXPECT_EQ(opened->status, 200);
  const auto id = opened->headers.at("mcp-session-id");
  EXPECT_EQ(id.size(), 36U);
  const Headers ours{{"mcp-session-id", id}, {"mcp-protocol-version", "2025-11-25"}};
  EXPECT_EQ(post(R"({"jsonrpc":"2.0","method":"notifications/initialized"})", ours)->status, 202);
  EXPECT_EQ(post(R"({"jsonrpc":"2.0","id":2,"method":"tools/list"})", ours)->status, 200);
  EXPECT_EQ(post(R"({"jsonrpc":"2.0","id":2,"method":"tools/list"})", {})->status, 400);
  EXPECT_EQ(post(R"({"jsonrpc":"2.0","id":2,"method":"tools/list"})", {{"mcp-session-id", "none"}})->status, 404);
  EXPECT_EQ(
      post(R"({"jsonrpc":"2.0","id":2,"method":"tools/list"})", {{"mcp-session-id", id}, {"mcp-protocol-version", "1"}})
          ->status,
      400);

  const auto call = post(R"({"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"work"}})", ours);
  leave = nullptr;
  offer.calls.at(0)->ask({{"word", json::object{{"method", "elicitation/create"}}}}, "s");
  const auto question = call->events.at(0);
  const auto answer =
      json::serialize(json::object{{"jsonrpc", "2.0"}, {"id", question.at("id")}, {"result", json::object()}});
  EXPECT_EQ(post(answer, ours)->status, 202);
  offer.calls.at(1)->finish({});
  EXPECT_TRUE(call->ended);

  EXPECT_EQ(post("", ours, "DELETE")->status, 204);
  EXPECT_EQ(post(R"({"jsonrpc":"2.0","id":2,"method":"tools/list"})", ours)->status, 404);
}

TEST_F(McpHttp, ChangesGoToWhoListens) {
  const auto reply = ask("subscriptions/listen",
                         {{"notifications", json::object{{"resourceSubscriptions", json::array{"test://a"}}}}});
  ask("tools/list");
  EXPECT_EQ(door.followed().count("test://a"), 1U);
  door.changed("test://a");
  EXPECT_EQ(reply->events.size(), 2U);
  EXPECT_FALSE(reply->ended);
}

TEST_F(McpHttp, WhoEndsMayBeAskedAboutMeanwhile) {
  const auto followed = std::make_shared<std::size_t>(9);  // the door's end asks as well
  offer.on_subscriptions = [this, followed] { *followed = door.followed().size(); };
  const auto opened =
      post(R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}})", {});
  const Headers ours{{"mcp-session-id", opened->headers.at("mcp-session-id")}};
  post(R"({"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"test://a"}})", ours);
  EXPECT_EQ(*followed, 1U);
  EXPECT_EQ(post("", ours, "DELETE")->status, 204);
  EXPECT_EQ(*followed, 0U);
  ask("subscriptions/listen", {{"notifications", json::object{{"resourceSubscriptions", json::array{"test://a"}}}}});
  EXPECT_EQ(*followed, 1U);
}

TEST_F(McpHttp, SessionsDoNotPileUp) {
  const char* opening = R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}})";
  const auto first = post(opening, {})->headers.at("mcp-session-id");
  for (int i = 0; i < 64; ++i)
    EXPECT_EQ(post(opening, {})->status, 200);
  EXPECT_EQ(post(R"({"jsonrpc":"2.0","id":2,"method":"ping"})", {{"mcp-session-id", first}})->status, 404);
}

}  // namespace
}  // namespace gpumod::mcp
