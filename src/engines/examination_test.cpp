#include "engines/examination.h"

#include <boost/json.hpp>

#include "engines/testing.h"

namespace gpumod {
namespace {

using namespace testing_engines;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using About = Question::About;
namespace json = boost::json;

std::vector<About> subjects(const std::vector<Question>& questions) {
  std::vector<About> out;
  for (const auto& question : questions)
    out.push_back(question.about);
  return out;
}

Examination examined(const Service& service, std::vector<Result<HttpReply>> replies) {
  return judge_examination(service, examination_of(service), replies);
}

Service chat() {
  auto service = llama_service();
  service.health_path = "/health";
  return service;
}

/// A stream whose pieces each came a tenth of a second after the one before.
HttpReply streamed(const std::vector<std::string>& pieces) {
  HttpReply out = reply(200, "", "text/event-stream");
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    out.body += pieces[i];
    out.arrivals.push_back({out.body.size(), std::chrono::milliseconds(100 * (i + 1))});
  }
  return out;
}

std::string said(const std::string& words) {
  return "data: {\"choices\":[{\"delta\":{\"content\":\"" + words + "\"},\"finish_reason\":null}]}\n\n";
}

TEST(Examination, AChatIsAskedForMoreThanAProbeAndInPieces) {
  const auto questions = examination_of(chat());
  EXPECT_THAT(subjects(questions), ElementsAre(About::health, About::answer));
  const auto body = json::parse(questions[1].request.body);
  EXPECT_TRUE(questions[1].request.timed);
  EXPECT_EQ(body.at("stream"), true);
  EXPECT_EQ(body.at("stream_options").at("include_usage"), true);
  EXPECT_EQ(body.at("cache_prompt"), false);
  EXPECT_GT(body.at("max_tokens").as_int64(), 8);
  auto service = vllm_service();
  service.probe.prompt = "Mine.";
  const auto own = json::parse(examination_of(service).back().request.body);
  EXPECT_EQ(own.at("messages").at(0).at("content"), "Mine.");
  EXPECT_FALSE(own.as_object().contains("cache_prompt")) << "no word of another engine's";
}

TEST(Examination, TheFirstTokenIsNotTheFirstPiece) {
  const auto healthy = reply(200, "{}");
  const auto answer =
      streamed({"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n",
                "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"Hm.\"}}]}\n\n", said("42"), said(" is it"),
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":3}}\n\n"
                "data: [DONE]\n\n"});
  const auto seen = examined(chat(), {healthy, answer});
  EXPECT_THAT(seen.problems, IsEmpty());
  EXPECT_EQ(seen.answer, "42 is it");
  EXPECT_TRUE(seen.reasoning);
  EXPECT_DOUBLE_EQ(seen.figures.at("first_token_seconds"), 0.2);
  EXPECT_DOUBLE_EQ(seen.figures.at("answer_seconds"), 0.5);
  EXPECT_DOUBLE_EQ(seen.figures.at("prompt_tokens_per_second"), 100) << "20 tokens before the first";
  EXPECT_DOUBLE_EQ(seen.figures.at("tokens_per_second"), 10) << "two more in 0.2 s";
  EXPECT_DOUBLE_EQ(seen.figures.at("generated_tokens"), 3);
}

TEST(Examination, WhatTheServerMeasuredItselfCounts) {
  const auto answer = streamed({said("42"),
                                "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"timings\":{"
                                "\"prompt_per_second\":203.5,\"predicted_per_second\":171.25}}\n\n"});
  const auto seen = examined(chat(), {reply(200, "{}"), answer});
  EXPECT_DOUBLE_EQ(seen.figures.at("prompt_tokens_per_second"), 203.5);
  EXPECT_DOUBLE_EQ(seen.figures.at("tokens_per_second"), 171.25);
}

TEST(Examination, AServerThatDoesNotStreamIsJudgedAllTheSame) {
  auto whole = reply(200, R"({"choices":[{"message":{"content":"42"}}],"usage":{"completion_tokens":2}})");
  whole.arrivals = {{whole.body.size(), 300ms}};
  const auto seen = examined(chat(), {reply(200, "{}"), whole});
  EXPECT_THAT(seen.problems, IsEmpty());
  EXPECT_EQ(seen.answer, "42");
  EXPECT_DOUBLE_EQ(seen.figures.at("answer_seconds"), 0.3);
  EXPECT_FALSE(seen.figures.contains("first_token_seconds"));
}

TEST(Examination, WhatIsWrongIsSaid) {
  const auto healthy = reply(200, "{}");
  EXPECT_THAT(examined(chat(), {reply(503, "{}"), streamed({said("x")})}).problems, ElementsAre(HasSubstr("health")));
  EXPECT_THAT(examined(chat(), {healthy, streamed({"data: [DONE]\n\n"})}).problems, ElementsAre(HasSubstr("empty")));
  EXPECT_THAT(examined(chat(), {healthy, reply(500, R"({"error":{"message":"no"}})")}).problems,
              ElementsAre(HasSubstr("500")));
  const auto broken = streamed({said("x"), "data: {\"error\":{\"message\":\"EngineCore died\"}}\n\n"});
  EXPECT_THAT(examined(chat(), {healthy, broken}).problems, ElementsAre(HasSubstr("broke off: EngineCore died")));
  EXPECT_THAT(examined(chat(), {healthy, fail(ErrorCode::failed, "no answer within 60 s")}).problems,
              ElementsAre(HasSubstr("no answer within 60 s")));
  auto strict = chat();
  strict.probe.expect = "42";
  EXPECT_THAT(examined(strict, {healthy, streamed({said("41")})}).problems, ElementsAre(HasSubstr("does not contain")));
}

Service embedder() {
  auto service = vllm_service();
  vllm_of(service).runner = "pooling";
  service.probe.dimensions = 2;
  return service;
}

Result<HttpReply> vector(const std::string& numbers) {
  return reply(200, R"({"data":[{"embedding":[)" + numbers + "]}]}");
}

TEST(Examination, AnEmbeddingIsAskedForFourTimes) {
  const auto questions = examination_of(embedder());
  EXPECT_THAT(subjects(questions), ElementsAre(About::answer, About::again, About::near, About::far));
  EXPECT_EQ(questions[0].request.body, questions[1].request.body);
  const auto seen = examined(embedder(), {vector("3,4"), vector("3,4"), vector("3,5"), vector("-4,3")});
  EXPECT_THAT(seen.problems, IsEmpty());
  EXPECT_DOUBLE_EQ(seen.figures.at("dimensions"), 2);
  EXPECT_DOUBLE_EQ(seen.figures.at("norm"), 5);
  EXPECT_DOUBLE_EQ(seen.figures.at("same"), 1);
  EXPECT_NEAR(seen.figures.at("far"), 0, 1e-9);
}

TEST(Examination, NumbersThatCannotBeComparedAreAProblem) {
  const auto seen = examined(embedder(), {vector("1e200,1e200"), vector("1e200,1e200"), vector("3,5"), vector("-4,3")});
  EXPECT_THAT(seen.problems, ElementsAre(HasSubstr("too large to be compared")));
  EXPECT_FALSE(seen.figures.contains("norm"));
}

TEST(Examination, AnEmbeddingThatMeansNothingIsFound) {
  EXPECT_THAT(examined(embedder(), {vector("3,4"), vector("4,3"), vector("3,5"), vector("-4,3")}).problems,
              ElementsAre(HasSubstr("the same text gets different embeddings (cosine 0.960)")));
  EXPECT_THAT(examined(embedder(), {vector("3,4"), vector("3,4"), vector("-4,3"), vector("3,5")}).problems,
              ElementsAre(HasSubstr("is nearer")));
  EXPECT_THAT(examined(embedder(), {vector("3,4"), vector("3,4"), vector("3,4"), vector("3,4")}).problems,
              ElementsAre(HasSubstr("the same embedding")));
  EXPECT_THAT(examined(embedder(), {vector("3,4"), vector("3,4"), vector("3,5,1"), vector("-4,3")}).problems,
              ElementsAre(HasSubstr("another number of dimensions")));
  EXPECT_THAT(examined(embedder(), {vector("1,2,3")}).problems,
              ElementsAre(HasSubstr("3 dimensions, 2 were expected")));
}

TEST(Examination, ARerankerHasToPreferWhatAnswersTheQuery) {
  auto service = llama_service();
  service.extra_args = {"--reranking"};
  const auto questions = examination_of(service);
  ASSERT_EQ(questions.size(), 1U);
  EXPECT_EQ(questions[0].request.target, "/v1/rerank");
  const auto rated = [&](const char* results) {
    return examined(service, {reply(200, std::string(R"({"results":[)") + results + "]}")});
  };
  const auto good = rated(R"({"index":1,"relevance_score":-8},{"index":0,"relevance_score":3.5})");
  EXPECT_THAT(good.problems, IsEmpty());
  EXPECT_DOUBLE_EQ(good.figures.at("relevant"), 3.5);
  EXPECT_THAT(rated(R"({"index":0,"relevance_score":1},{"index":1,"relevance_score":1})").problems,
              ElementsAre(HasSubstr("nothing to do with the query")));
  EXPECT_THAT(rated(R"({"index":0,"relevance_score":1})").problems, ElementsAre(HasSubstr("both documents")));
}

TEST(Examination, WhatCannotBeAskedIsNoProblem) {
  Service service;
  service.engine = EngineKind::command;
  service.options = CommandOptions{};
  service.port = 9000;
  const auto seen = examined(service, {});
  EXPECT_THAT(seen.problems, IsEmpty());
  EXPECT_THAT(seen.note, HasSubstr("probe:"));
}

}  // namespace
}  // namespace gpumod
