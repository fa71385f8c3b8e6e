#include "engines/probes.h"

#include <limits>

#include <boost/json/parse.hpp>

#include "engines/reply.h"
#include "engines/testing.h"

namespace gpumod {
namespace {

using namespace testing_engines;
using ::testing::HasSubstr;

Service plain_service() {
  Service service;
  service.id = "x";
  service.port = 9000;
  service.model.served_name = "m";
  service.options = CommandOptions{};
  return service;
}

ProbeVerdict chat(const std::string& body, const std::string& expect = "") {
  auto service = plain_service();
  service.probe.expect = expect;
  return judge_answer(service, ProbeKind::chat, reply(200, body), "");
}

ProbeVerdict embedding(const std::string& body, std::optional<unsigned> dimensions = {}) {
  auto service = plain_service();
  service.probe.dimensions = dimensions;
  return judge_answer(service, ProbeKind::embedding, reply(200, body), "");
}

TEST(ProbeRequest, IsSmallAndRepeatable) {
  auto service = plain_service();
  service.probe.prompt = "Say \"x\"\n";
  const auto request = make_probe(service, ProbeKind::chat);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->method, "POST");
  EXPECT_EQ(request->timeout, 30s);
  const auto body = boost::json::parse(request->body);
  EXPECT_EQ(body.at("model"), "m");
  EXPECT_EQ(body.at("max_tokens"), 8);
  EXPECT_EQ(body.at("temperature"), 0);
  EXPECT_EQ(body.at("messages").at(0).at("content"), "Say \"x\"\n");
  EXPECT_EQ(make_probe(service, ProbeKind::completion)->target, "/v1/completions");
  EXPECT_EQ(boost::json::parse(make_probe(service, ProbeKind::completion)->body).at("max_tokens"), 8);
  EXPECT_EQ(boost::json::parse(make_probe(service, ProbeKind::embedding)->body).at("input"), "Say \"x\"\n");
  service.probe.path = "/ping";
  EXPECT_EQ(make_probe(service, ProbeKind::http)->method, "GET");
  EXPECT_EQ(make_probe(service, ProbeKind::http)->target, "/ping");
  EXPECT_FALSE(make_probe(service, ProbeKind::none));
  service.port = 0;
  EXPECT_FALSE(make_probe(service, ProbeKind::chat));
}

TEST(ProbeChat, AnswersWithFigures) {
  const auto verdict =
      chat(R"({"choices":[{"message":{"content":"2 + 2 = 4"}}],"usage":{"prompt_tokens":9,"completion_tokens":7},
                               "timings":{"prompt_n":9,"prompt_per_second":203.17,"predicted_n":7,"predicted_per_second":171.24}})");
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  EXPECT_EQ(verdict.text, "2 + 2 = 4");
  EXPECT_FALSE(verdict.reasoning_only);
  EXPECT_DOUBLE_EQ(verdict.prompt_tokens_per_second.value(), 203.17);
  EXPECT_DOUBLE_EQ(verdict.tokens_per_second.value(), 171.24);
  EXPECT_EQ(verdict.prompt_tokens, 9);
  EXPECT_EQ(verdict.generated_tokens, 7);
}

TEST(ProbeChat, ARateOfZeroIsNoRate) {
  const auto verdict = chat(R"({"choices":[{"message":{"content":"x"}}],"timings":{"predicted_per_second":0.0}})");
  EXPECT_TRUE(verdict.ok);
  EXPECT_FALSE(verdict.tokens_per_second);
}

TEST(ProbeChat, ReasoningIsAnAnswer) {
  for (const char* message :
       {R"({"content":"","reasoning_content":"Let me see"})", R"({"content":null,"reasoning":"Let me see"})"}) {
    const auto verdict = chat(fmt::format(R"({{"choices":[{{"finish_reason":"length","message":{}}}]}})", message));
    EXPECT_TRUE(verdict.ok) << verdict.reason;
    EXPECT_TRUE(verdict.reasoning_only);
    EXPECT_EQ(verdict.text, "Let me see");
  }
}

TEST(ProbeChat, TokensSpentUnseenAreAnAnswerButSilenceIsNot) {
  EXPECT_TRUE(
      chat(R"({"choices":[{"finish_reason":"length","message":{"content":""}}],"usage":{"completion_tokens":8}})").ok);
  EXPECT_FALSE(chat(R"({"choices":[{"finish_reason":"length","message":{"content":""}}]})").ok);
  const auto silent =
      chat(R"({"choices":[{"finish_reason":"stop","message":{"content":""}}],"usage":{"completion_tokens":1}})");
  EXPECT_FALSE(silent.ok);
  EXPECT_THAT(silent.reason, HasSubstr("empty"));
}

TEST(ProbeChat, ExpectIsLookedForInBoth) {
  const auto body = R"({"choices":[{"message":{"content":"four","reasoning_content":"two and two"}}]})";
  EXPECT_TRUE(chat(body, "four").ok);
  EXPECT_TRUE(chat(body, "and two").ok);
  const auto verdict = chat(body, "five");
  EXPECT_FALSE(verdict.ok);
  EXPECT_THAT(verdict.reason, HasSubstr("five"));
}

TEST(ProbeChat, LongAnswersAreCutAtACharacter) {
  std::string text;
  for (int i = 0; i < 300; ++i)
    text += "ä";
  const auto verdict = chat(fmt::format(R"({{"choices":[{{"message":{{"content":"{}"}}}}]}})", text));
  EXPECT_TRUE(verdict.ok);
  EXPECT_EQ(verdict.text, text.substr(0, 400) + "…");
}

TEST(ProbeChat, NothingFromTheWireDrivesATerminal) {
  const auto verdict = chat(R"({"choices":[{"message":{"content":"a\u001b[2Jb"}}]})");
  EXPECT_TRUE(verdict.ok);
  EXPECT_EQ(verdict.text.find('\x1b'), std::string::npos);
}

TEST(ProbeChat, HostileAnswersAreRefusedWithAReason) {
  for (const std::string body :
       {"", "null", "7", "\"x\"", "[]", "{}", R"({"choices":null})", R"({"choices":[]})", R"({"choices":[7]})",
        R"({"choices":[{"message":7}]})", R"({"choices":[{"message":{"content":7}}]})", R"({"choices":{"0":1}})",
        "<!doctype html><title>x", "not json", "{\"choices\":[", "\xff\xfe"}) {
    const auto verdict = chat(body);
    EXPECT_FALSE(verdict.ok) << body;
    EXPECT_FALSE(verdict.reason.empty()) << body;
  }
  EXPECT_THAT(chat("<html>").reason, HasSubstr("HTML"));
  EXPECT_FALSE(chat(std::string(1'000'000, '[')).ok);
}

TEST(ProbeAnswer, AnErrorIsTheServersOwnWords) {
  const auto service = plain_service();
  auto verdict =
      judge_answer(service, ProbeKind::chat, reply(503, R"({"error":{"message":"Loading model","code":503}})"), "");
  EXPECT_EQ(verdict.reason, "the probe got status 503: Loading model");
  verdict = judge_answer(service, ProbeKind::chat, reply(422, R"({"detail":[{"msg":"field required"}]})"), "");
  EXPECT_EQ(verdict.reason, "the probe got status 422: field required");
  verdict = judge_answer(service, ProbeKind::chat, reply(500, "oops", "text/plain"), "");
  EXPECT_EQ(verdict.reason, "the probe got status 500: oops");
  verdict = judge_answer(service, ProbeKind::chat, reply(200, R"({"error":{"message":"CUDA error"}})"), "");
  EXPECT_FALSE(verdict.ok);
  EXPECT_THAT(verdict.reason, HasSubstr("CUDA error"));
}

TEST(ProbeAnswer, OnlyATruthfulServerIsHeldToItsName) {
  const auto answer = reply(200, R"({"model":"other","choices":[{"message":{"content":"x"}}]})");
  EXPECT_TRUE(judge_answer(plain_service(), ProbeKind::chat, answer, "").ok);
  EXPECT_FALSE(judge_answer(plain_service(), ProbeKind::chat, answer, "m").ok);
  const auto nameless = reply(200, R"({"choices":[{"message":{"content":"x"}}]})");
  EXPECT_TRUE(judge_answer(plain_service(), ProbeKind::chat, nameless, "m").ok);
}

TEST(ProbeCompletion, NeedsText) {
  const auto service = plain_service();
  EXPECT_TRUE(judge_answer(service, ProbeKind::completion, reply(200, R"({"choices":[{"text":" four"}]})"), "").ok);
  EXPECT_TRUE(judge_answer(service, ProbeKind::completion, reply(200, R"({"content":" four"})"), "").ok);
  EXPECT_FALSE(judge_answer(service, ProbeKind::completion, reply(200, R"({"choices":[{"text":""}]})"), "").ok);
}

TEST(ProbeEmbedding, IsAVectorOfTheRightLength) {
  const auto body = R"({"data":[{"embedding":[0.1,-2,3]}],"usage":{"prompt_tokens":3}})";
  const auto verdict = embedding(body, 3);
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  EXPECT_EQ(verdict.dimensions, 3u);
  EXPECT_EQ(verdict.prompt_tokens, 3);
  EXPECT_EQ(embedding(body, 4).reason, "the embedding has 3 dimensions, 4 were expected");
  EXPECT_TRUE(embedding(R"([{"embedding":[[1,2]]}])").ok);
  EXPECT_TRUE(embedding(R"([{"embedding":[1,2]}])").ok);
}

TEST(ProbeEmbedding, ZerosHolesAndNothingAreRefused) {
  EXPECT_THAT(embedding(R"({"data":[{"embedding":[0,0.0]}]})").reason, HasSubstr("zeros"));
  EXPECT_THAT(embedding(R"({"data":[{"embedding":[1,null]}]})").reason, HasSubstr("finite"));
  EXPECT_FALSE(embedding(R"({"data":[{"embedding":[1,1e999]}]})").ok);
  EXPECT_FALSE(embedding(R"({"data":[{"embedding":[]}]})").ok);
  EXPECT_FALSE(embedding(R"({"data":[{"embedding":"AAAA"}]})").ok);
  EXPECT_FALSE(embedding(R"({"data":[]})").ok);
}

TEST(ProbeHttp, NeedsSuccessAndWhatIsExpected) {
  auto service = plain_service();
  EXPECT_TRUE(judge_answer(service, ProbeKind::http, reply(204, "", ""), "").ok);
  EXPECT_FALSE(judge_answer(service, ProbeKind::http, reply(302, "", ""), "").ok);
  service.probe.expect = "pong";
  EXPECT_TRUE(judge_answer(service, ProbeKind::http, reply(200, "pong", "text/plain"), "").ok);
  EXPECT_FALSE(judge_answer(service, ProbeKind::http, reply(200, "ping", "text/plain"), "").ok);
}

TEST(ProbeKindDeclared, FollowsTheFields) {
  Probe probe;
  EXPECT_EQ(declared_probe_kind(probe), ProbeKind::none);
  probe.expect = "x";
  EXPECT_EQ(declared_probe_kind(probe), ProbeKind::chat);
  probe.dimensions = 3;
  EXPECT_EQ(declared_probe_kind(probe), ProbeKind::embedding);
  probe.path = "/x";
  EXPECT_EQ(declared_probe_kind(probe), ProbeKind::http);
  probe.kind = ProbeKind::completion;
  EXPECT_EQ(declared_probe_kind(probe), ProbeKind::completion);
}

TEST(JsonPaths, ReadOnlyWhatIsThere) {
  const auto value = boost::json::parse(R"({"a":[{"b":1.5,"c":"x","d":true,"e":7}]})");
  EXPECT_EQ(number_at(value, {"a", 0, "b"}), 1.5);
  EXPECT_EQ(string_at(value, {"a", 0, "c"}), "x");
  EXPECT_EQ(bool_at(value, {"a", 0, "d"}), true);
  EXPECT_EQ(integer_at(value, {"a", 0, "e"}), 7);
  EXPECT_EQ(find(value, {"a", 1}), nullptr);
  EXPECT_EQ(find(value, {"a", "b"}), nullptr);
  EXPECT_EQ(find(value, {0}), nullptr);
  EXPECT_EQ(find(value, {}), &value);
}

}  // namespace
}  // namespace gpumod
