#include "verbs/qa_issues.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verbs/qa_values.h"
#include "verbs/qa_words.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace json = boost::json;

json::value transition(const char* more, const char* result = "committed") {
  return json::parse(std::string(R"({"from":"code","to":"rag","result":")") + result + "\"," + more + "}");
}

json::value only_issue(const json::value& one) {
  const auto issues = issues_of(json::array{one});
  EXPECT_EQ(issues.size(), 1U) << json::serialize(issues);
  return issues.empty() ? json::value() : issues[0];
}

TEST(QaIssues, WhatWentWellHasNone) {
  const auto good = transition(
      R"("steps":[{"service":"e","action":"start","result":"done","attempts":1,"seconds":9}],"services":[{"service":"e","problems":[]}],)"
      R"("waits":[{"subject":"c","for":"release","seconds":0.4},{"subject":"e","for":"turn","seconds":30}],"orphans":[])");
  EXPECT_THAT(issues_of(json::array{good}), IsEmpty());
  EXPECT_TRUE(passed(good));
}

TEST(QaIssues, AStartThatNeededTwoAttemptsNamesItsCause) {
  const auto issue = only_issue(transition(
      R"("steps":[{"service":"e","unit":"u","action":"start","result":"done","attempts":2,"seconds":61,"earlier":["another process freed memory"],"remedy":"Wait.","log":"AssertionError: …"}])"));
  EXPECT_EQ(string_at(issue, {"kind"}), "attempts");
  EXPECT_THAT(string_at(issue, {"title"}), HasSubstr("e came up only after a failure"));
  EXPECT_THAT(string_at(issue, {"symptom"}), HasSubstr("2 attempts"));
  EXPECT_THAT(string_at(issue, {"cause"}), HasSubstr("another process freed memory"));
  EXPECT_THAT(string_at(issue, {"impact"}), HasSubstr("61 s"));
  EXPECT_EQ(string_at(issue, {"log", 0}), "AssertionError: …");
}

TEST(QaIssues, WhatRanAndDidNotAnswerIsToldAlthoughTheSwitchMadeItGood) {
  const auto one = transition(
      R"("steps":[{"service":"c","action":"verify","result":"failed","attempts":1,"seconds":5,"note":"its probe failed"},{"service":"c","action":"load","result":"done","attempts":1}])");
  const auto issue = only_issue(one);
  EXPECT_TRUE(passed(one));
  EXPECT_EQ(string_at(issue, {"kind"}), "attempts");
  EXPECT_EQ(string_at(issue, {"title"}), "c ran, and did not answer");
  EXPECT_EQ(string_at(issue, {"cause"}), "its probe failed");
  EXPECT_EQ(result_word(one), "PASS*");
  EXPECT_THAT(notes_on(one), ElementsAre("c: its probe failed"));
}

TEST(QaIssues, MemoryThatCameBackLateNamesWhoWasWaitedFor) {
  const auto issue = only_issue(transition(
      R"("waits":[{"subject":"coder","for":"release","seconds":61.2,"cause":"coder to end, and its memory to come back"}])"));
  EXPECT_EQ(string_at(issue, {"kind"}), "wait");
  EXPECT_THAT(string_at(issue, {"title"}), HasSubstr("coder"));
  EXPECT_THAT(string_at(issue, {"symptom"}), HasSubstr("61 s: coder to end"));
  EXPECT_THAT(string_at(issue, {"cause"}), HasSubstr("given back late"));
}

TEST(QaIssues, WhatWasWaitedForInVainIsOneIssueAndNotTwo) {
  const auto issue = only_issue(transition(
      R"("steps":[{"service":"coder","action":"load","result":"failed","note":"held by blender"}],"waits":[{"subject":"coder","for":"memory","seconds":5,"cause":"held by blender"}])",
      "rolled_back"));
  EXPECT_EQ(string_at(issue, {"kind"}), "failed");
}

TEST(QaIssues, WhatIsLeftBehindIsNamedWithWhatItHolds) {
  const auto one = transition(R"("orphans":[{"name":"glm-code","why":"unwanted","bytes":5368709120}])");
  const auto issue = only_issue(one);
  EXPECT_FALSE(passed(one));
  EXPECT_EQ(string_at(issue, {"kind"}), "orphan");
  EXPECT_THAT(string_at(issue, {"symptom"}), HasSubstr("5120 MiB"));
  EXPECT_THAT(string_at(issue, {"cause"}), HasSubstr("does not want it"));
  EXPECT_THAT(string_at(issue, {"remedy"}), HasSubstr("gpumod repair"));
}

TEST(QaIssues, AFailedSwitchNamesTheStepAndWhatBecameOfIt) {
  const auto one = transition(
      R"("problem":{"message":"e did not start","hint":"Look."},"logs":[{"service":"e","lines":["boom"]}],"steps":[{"service":"c","action":"stop","result":"done"},{"service":"e","action":"start","result":"failed","note":"the model is damaged","remedy":"Fetch it again."}])",
      "rolled_back");
  const auto issue = only_issue(one);
  EXPECT_FALSE(passed(one));
  EXPECT_THAT(string_at(issue, {"title"}), HasSubstr("e did not start"));
  EXPECT_EQ(string_at(issue, {"cause"}), "the model is damaged");
  EXPECT_EQ(string_at(issue, {"remedy"}), "Fetch it again.");
  EXPECT_THAT(string_at(issue, {"impact"}), HasSubstr("What ran before runs again"));
  EXPECT_EQ(string_at(issue, {"log", 0}), "boom");
}

TEST(QaIssues, ASurvivorAndAFailedProbeAreTold) {
  EXPECT_EQ(
      string_at(
          only_issue(transition(
              R"("steps":[{"unit":"u","action":"stop","result":"done","attempts":1,"earlier":["it did not end on SIGTERM"]}])")),
          {"kind"}),
      "survivor");
  const auto probe = transition(R"("services":[{"service":"e","problems":["2048 were expected"]}])");
  EXPECT_FALSE(passed(probe));
  EXPECT_THAT(string_at(only_issue(probe), {"symptom"}), HasSubstr("2048 were expected"));
}

TEST(QaIssues, TheSameInSeveralTransitionsIsOneTheWorstFirst) {
  const auto slow = transition(R"("waits":[{"subject":"coder","for":"release","seconds":61}])");
  auto again = slow;
  again.as_object()["from"] = "nemotron";
  const auto broken = transition(R"("problem":{"message":"no"})", "failed");
  const auto issues = issues_of(json::array{slow, again, slow, broken});
  ASSERT_EQ(issues.size(), 2U);
  EXPECT_EQ(string_at(issues[0], {"kind"}), "failed");
  EXPECT_EQ(list_at(issues[1], {"transitions"}), (json::array{"code → rag", "nemotron → rag"}));
}

}  // namespace
}  // namespace gpumod
