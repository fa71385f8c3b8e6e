#include "faces/mcp/session_testing.h"

namespace gpumod::mcp {
namespace {

namespace json = boost::json;

TEST(McpMessages, OnlyJsonRpcIsAMessage) {
  const std::pair<const char*, Code> bad[] = {
      {"", Code::parse_error},
      {"{", Code::parse_error},
      {"\x00\xFF\xFE\x01", Code::parse_error},
      {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xC3\x28\"}", Code::parse_error},
      {"7", Code::invalid_request},
      {"[]", Code::invalid_request},
      {R"([{"jsonrpc":"2.0","id":1,"method":"ping"}])", Code::invalid_request},
      {"{}", Code::invalid_request},
      {R"({"id":1,"method":"ping"})", Code::invalid_request},
      {R"({"jsonrpc":"1.0","id":1,"method":"ping"})", Code::invalid_request},
      {R"({"jsonrpc":"2.0","id":null,"method":"ping"})", Code::invalid_request},
      {R"({"jsonrpc":"2.0","id":true,"method":"ping"})", Code::invalid_request},
      {R"({"jsonrpc":"2.0","id":{},"method":"ping"})", Code::invalid_request},
      {R"({"jsonrpc":"2.0","id":1,"method":5})", Code::invalid_request},
      {R"({"jsonrpc":"2.0","id":1})", Code::invalid_request},
      {R"({"jsonrpc":"2.0","id":1,"method":"ping","params":[1]})", Code::invalid_params},
  };
  for (const auto& [text, code] : bad) {
    const auto message = read_message(text);
    ASSERT_FALSE(message) << text;
    EXPECT_EQ(static_cast<int>(message.error().code), static_cast<int>(code)) << text;
  }
  EXPECT_FALSE(read_message(std::string(message_limit + 1, ' ')));
  EXPECT_FALSE(read_message(R"({"jsonrpc":"2.0","id":1,"method":"x","params":)" + std::string(5000, '[') +
                            std::string(5000, ']') + "}"));
}

TEST(McpMessages, AnIdComesBackAsItWas) {
  for (const char* id : {"0", "-3", "18446744073709551615", "\"\"", "\"a\\u0000b\"", "1.5E0"}) {
    TestOffer offer;
    Client client(offer);
    client.says(std::string(R"({"jsonrpc":"2.0","method":"ping","id":)") + id + "}");
    EXPECT_EQ(json::serialize(client.last().at("id")), id);
  }
}

TEST(McpMessages, AnErrorOfAnUnknownRequestHasNoId) {
  TestOffer offer;
  Client client(offer);
  client.says("nonsense");
  EXPECT_FALSE(client.last().contains("id"));
  client.says(R"({"jsonrpc":"1.0","id":4,"method":"ping"})");
  EXPECT_EQ(client.last().at("id").as_int64(), 4);
}

TEST(McpModern, DiscoverSaysWhatThereIs) {
  TestOffer offer;
  Client client(offer);
  client.asks(1, "server/discover");
  const auto result = client.result();
  EXPECT_EQ(result.at("resultType").as_string(), "complete");
  EXPECT_EQ(result.at("supportedVersions").as_array(), json::array{"2026-07-28"});
  EXPECT_TRUE(result.at("capabilities").as_object().contains("tools"));
  EXPECT_TRUE(result.contains("ttlMs"));
  EXPECT_EQ(result.at("cacheScope").as_string(), "private");
  EXPECT_EQ(result.at("_meta").as_object().at(meta_server).as_object().at("name").as_string(), "test");
}

TEST(McpModern, EveryRequestSaysWhoAsksAndHow) {
  TestOffer offer;
  Client client(offer);
  client.asks_plainly(1, "tools/list");
  EXPECT_EQ(client.error(), -32602);
  client.asks_plainly(2, "tools/list", {{"_meta", json::object{{meta_version, "2026-07-28"}}}});
  EXPECT_EQ(client.error(), -32602);
  client.asks_plainly(3, "tools/list",
                      {{"_meta", json::object{{meta_version, "1999-01-01"}, {meta_capabilities, json::object()}}}});
  const auto refused = client.last().at("error").as_object();
  EXPECT_EQ(refused.at("code").as_int64(), -32022);
  EXPECT_EQ(refused.at("data").as_object().at("requested").as_string(), "1999-01-01");
  EXPECT_EQ(refused.at("data").as_object().at("supported").as_array(), json::array{"2026-07-28"});
  client.asks(4, "initialize");
  EXPECT_EQ(client.error(), -32601);
  client.asks(5, "ping");
  EXPECT_EQ(client.error(), -32601);
  client.asks(6, "no/such");
  EXPECT_EQ(client.error(), -32601);
}

TEST(McpModern, ListsAreOfOnePage) {
  TestOffer offer;
  Client client(offer);
  client.asks(1, "tools/list");
  EXPECT_EQ(client.result().at("tools").as_array().size(), 1U);
  client.asks(2, "tools/list", {{"cursor", "x"}});
  EXPECT_EQ(client.error(), -32602);
  client.asks(3, "resources/read", {{"uri", "test://a"}});
  EXPECT_EQ(client.result().at("ttlMs").as_int64(), 0);
  client.asks(4, "resources/read", {{"uri", "test://b"}});
  EXPECT_EQ(client.error(), -32602);
}

TEST(McpModern, AskingThePersonEndsTheFirstRound) {
  TestOffer offer;
  Client client(offer);
  client.asks(1, "tools/call", {{"name", "work"}}, {{"elicitation", json::object()}});
  ASSERT_EQ(offer.calls.size(), 1U);
  EXPECT_TRUE(offer.calls[0]->caller().elicits);
  EXPECT_EQ(offer.calls[0]->caller().name, "tester");
  offer.calls[0]->ask({{"word", json::object{{"method", "elicitation/create"}}}}, "token");
  const auto round = client.result();
  EXPECT_EQ(round.at("resultType").as_string(), "input_required");
  EXPECT_EQ(round.at("requestState").as_string(), "token");
  EXPECT_TRUE(round.at("inputRequests").as_object().contains("word"));
  EXPECT_EQ(client.session.under_way(), 0U);

  client.asks(2, "tools/call",
              {{"name", "work"},
               {"requestState", "token"},
               {"inputResponses", json::object{{"word", json::object{{"action", "accept"}}}}}});
  ASSERT_EQ(offer.calls.size(), 2U);
  EXPECT_EQ(offer.calls[1]->state(), "token");
  EXPECT_EQ(text_in(offer.calls[1]->inputs().at("word").as_object(), "action"), "accept");
  offer.calls[1]->finish({});
  client.result();
}

TEST(McpModern, ListeningIsAcknowledgedAndTagged) {
  TestOffer offer;
  Client client(offer);
  client.asks("s", "subscriptions/listen",
              {{"notifications", json::object{{"promptsListChanged", true},
                                              {"resourceSubscriptions", json::array{"test://a", "test://none", 5}}}}});
  const auto first = client.last();
  EXPECT_EQ(first.at("method").as_string(), "notifications/subscriptions/acknowledged");
  const auto& params = first.at("params").as_object();
  EXPECT_EQ(json::serialize(params.at("notifications")), R"({"resourceSubscriptions":["test://a"]})");
  client.session.changed("test://none");
  EXPECT_TRUE(client.got.empty());
  client.session.changed("test://a");
  const auto update = client.last().at("params").as_object();
  EXPECT_EQ(update.at("uri").as_string(), "test://a");
  EXPECT_EQ(update.at("_meta").as_object().at(meta_subscription).as_string(), "s");
  client.says(R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"s"}})");
  client.session.changed("test://a");
  EXPECT_TRUE(client.got.empty());
  EXPECT_EQ(offer.subscription_changes, 2);
}

TEST(McpLegacy, EveryRevisionIsAnsweredInItself) {
  for (const auto& version : legacy_versions()) {
    TestOffer offer;
    Client client(offer);
    client.asks_plainly(1, "initialize", {{"protocolVersion", version}, {"capabilities", json::object()}});
    const auto result = client.result();
    EXPECT_EQ(result.at("protocolVersion").as_string(), version);
    EXPECT_FALSE(result.contains("resultType"));
    EXPECT_EQ(result.at("serverInfo").as_object().at("name").as_string(), "test");
    client.asks_plainly(2, "tools/list");
    EXPECT_FALSE(client.result().contains("ttlMs"));
    client.asks_plainly(3, "server/discover");
    EXPECT_EQ(client.error(), -32601);
  }
  TestOffer offer;
  Client client(offer);
  client.asks_plainly(1, "initialize", {{"protocolVersion", "2031-01-01"}});
  EXPECT_EQ(client.result().at("protocolVersion").as_string(), "2025-11-25");
  client.asks_plainly(2, "initialize");
  EXPECT_EQ(client.error(), -32602);
}

TEST(McpLegacy, NothingButAPingComesBeforeInitialize) {
  TestOffer offer;
  Client client(offer);
  client.asks_plainly(1, "ping");
  EXPECT_TRUE(client.result().empty());
  client.asks_plainly(2, "tools/call", {{"name", "work"}});
  EXPECT_EQ(client.error(), -32602);
  EXPECT_TRUE(offer.calls.empty());
}

TEST(McpLegacy, AskingThePersonIsARequestOfOurs) {
  TestOffer offer;
  Client client(offer);
  client.begins("2025-06-18", {{"elicitation", json::object()}});
  client.asks_plainly(1, "tools/call", {{"name", "work"}});
  offer.calls[0]->ask({{"word", json::object{{"method", "elicitation/create"},
                                             {"params", json::object{{"mode", "form"}, {"message", "?"}}}}}},
                      "token");
  const auto question = client.last();
  EXPECT_EQ(question.at("method").as_string(), "elicitation/create");
  EXPECT_FALSE(question.at("params").as_object().contains("mode")) << "that came later";
  client.says({{"jsonrpc", "2.0"}, {"id", "of somebody else"}, {"result", json::object()}});
  EXPECT_EQ(offer.calls.size(), 1U);
  const json::object answer{
      {"jsonrpc", "2.0"}, {"id", question.at("id")}, {"result", json::object{{"action", "decline"}}}};
  client.says(answer);
  client.says(answer);  // once is enough
  ASSERT_EQ(offer.calls.size(), 2U);
  EXPECT_EQ(offer.calls[1]->state(), "token");
  EXPECT_EQ(text_in(offer.calls[1]->inputs().at("word").as_object(), "action"), "decline");
  offer.calls[1]->finish({});
  EXPECT_EQ(client.last().at("id").as_int64(), 1);
}

TEST(McpLegacy, ResourcesAreFollowedOneByOne) {
  TestOffer offer;
  Client client(offer);
  client.begins("2025-11-25");
  client.asks_plainly(1, "resources/subscribe", {{"uri", "test://none"}});
  EXPECT_EQ(client.error(), -32002);
  client.asks_plainly(2, "resources/subscribe", {{"uri", "test://a"}});
  client.result();
  client.session.changed("test://a");
  EXPECT_EQ(client.last().at("method").as_string(), "notifications/resources/updated");
  client.asks_plainly(3, "resources/unsubscribe", {{"uri", "test://a"}});
  client.result();
  client.session.changed("test://a");
  EXPECT_TRUE(client.got.empty());
}

class McpCalls : public testing::TestWithParam<const char*> {
 public:
  void SetUp() override {
    if (std::string_view(GetParam()) != "modern") client.begins(GetParam());
  }
  void call(json::value id, json::object meta = {}) {
    json::object params{{"name", "work"}};
    if (std::string_view(GetParam()) == "modern") return client.asks(std::move(id), "tools/call", params, {}, meta);
    params["_meta"] = std::move(meta);
    client.asks_plainly(std::move(id), "tools/call", params);
  }
  TestOffer offer;
  Client client{offer};
};

TEST_P(McpCalls, ProgressOnlyGrowsAndOnlyWhereItIsWanted) {
  call(1);
  offer.calls[0]->progress(1, 100, "a");
  EXPECT_TRUE(client.got.empty());
  call(2, {{"progressToken", "t"}});
  offer.calls[1]->progress(0, 100, "looking");
  const auto first = client.last().at("params").as_object();
  EXPECT_EQ(first.at("progressToken").as_string(), "t");
  EXPECT_EQ(first.contains("message"), std::string_view(GetParam()) != "2024-11-05");
  offer.calls[1]->progress(0, 100, "no further");
  EXPECT_TRUE(client.got.empty());
  offer.calls[1]->progress(5, 100, "on");
  client.last();
  offer.calls[1]->finish({});
  client.result();
  offer.calls[1]->progress(9, 100, "too late");
  offer.calls[1]->finish({});
  EXPECT_TRUE(client.got.empty());
}

TEST_P(McpCalls, WhatIsTakenBackGetsNoAnswer) {
  int undone = 0;
  call(1);
  offer.calls[0]->on_cancel = [&] { ++undone; };
  client.says(R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"1"}})");
  EXPECT_EQ(undone, 0) << "\"1\" is not 1";
  client.says(R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}})");
  client.says(R"({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}})");
  client.says(R"({"jsonrpc":"2.0","method":"notifications/cancelled"})");
  EXPECT_EQ(undone, 1);
  offer.calls[0]->finish({});
  EXPECT_TRUE(client.got.empty());
}

TEST_P(McpCalls, AnIdUnderWayIsNotTakenTwice) {
  call(1);
  call(1);
  EXPECT_EQ(client.error(), -32600);
  offer.calls[0]->finish({});
  client.result();
  call(1);
  EXPECT_EQ(offer.calls.size(), 2U) << "afterwards it is free again";
}

TEST_P(McpCalls, ThereIsAnEndToWhatGoesOnBesideEachOther) {
  for (int i = 0; i < 32; ++i)
    call(i);
  EXPECT_TRUE(client.got.empty());
  call(99);
  EXPECT_EQ(client.error(), -32000);
  offer.calls[3]->refuse({Code::invalid_params, "no", {}, {}});
  EXPECT_EQ(client.error(), -32602);
  call(99);
  EXPECT_TRUE(client.got.empty());
}

TEST_P(McpCalls, AClientThatGoesLeavesNothingBehind) {
  int undone = 0;
  call(1);
  offer.calls[0]->on_cancel = [&] { ++undone; };
  client.session.close(true);
  EXPECT_EQ(undone, 1);
  call(2);
  offer.calls[1]->on_cancel = [&] { ++undone; };
  client.session.close(false);
  EXPECT_EQ(undone, 1) << "a change goes on";
  offer.calls[1]->finish({});
  EXPECT_TRUE(client.got.empty());
}

INSTANTIATE_TEST_SUITE_P(Eras, McpCalls, testing::Values("modern", "2025-11-25", "2025-06-18", "2024-11-05"),
                         [](const auto& one) {
                           std::string name = one.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace gpumod::mcp
