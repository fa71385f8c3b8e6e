#include "verbs/qa_wait.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verbs/qa_issues.h"
#include "verbs/qa_look.h"
#include "verbs/qa_values.h"

namespace gpumod {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace json = boost::json;

Recording::Point at(Duration when, int used, std::map<std::string, Bytes> held, int unheld) {
  return {when, 0, Bytes::mib(used), std::move(held), Bytes::mib(unheld)};
}

Recording waited() {
  Recording recording;
  Recording::Step stop;
  stop.step = 1;
  stop.subject = "coder";
  recording.steps.push_back(stop);
  recording.waits = {{1, Recording::Wait::For::release, "coder to end, and its memory to come back", 1s, 11s}};
  recording.gpus.push_back({0, "RTX", Bytes::gib(24), {}, {}});
  return recording;
}

TEST(GivenBack, NamesTheServiceWhoseProcessesStayed) {
  auto recording = waited();
  recording.curve = {at(0s, 23000, {{"coder", Bytes::mib(22000)}}, 15), at(9s, 1000, {}, 15), at(12s, 5000, {}, 15)};
  const auto found = given_back_during(recording, recording.waits.front());
  ASSERT_EQ(found.size(), 1U) << "what others hold, and held all the time, was not waited for";
  EXPECT_EQ(found[0].by, GivenBack::By::ours);
  EXPECT_EQ(found[0].name, "coder");
  EXPECT_EQ(found[0].bytes, Bytes::mib(22000));
  EXPECT_EQ(found[0].held, 8s) << "of the wait, which began after one second";
}

TEST(GivenBack, TellsTheDriverFromTheProcessesAndFromStrangers) {
  auto recording = waited();
  recording.curve = {at(0s, 22015, {{"coder", Bytes::mib(22000)}}, 15), at(2s, 22015, {}, 22015),
                     at(6s, 8015, {}, 15),  // somebody else's program came, and went
                     at(8s, 15, {}, 15)};
  const auto found = given_back_during(recording, recording.waits.front());
  ASSERT_EQ(found.size(), 3U);
  std::map<GivenBack::By, GivenBack> by;
  for (const auto& one : found)
    by[one.by] = one;
  EXPECT_EQ(by[GivenBack::By::ours].held, 1s);
  EXPECT_EQ(by[GivenBack::By::nobody].bytes, Bytes::mib(22000));
  EXPECT_EQ(by[GivenBack::By::nobody].held, 4s);
  EXPECT_EQ(by[GivenBack::By::others].bytes, Bytes::mib(8000));
  EXPECT_EQ(by[GivenBack::By::others].held, 2s);
}

TEST(GivenBack, NobodyIsAccusedOfWhatIsNotKnown) {
  auto recording = waited();
  recording.curve = {{0s, 0, Bytes::mib(22000), {}, {}}, {9s, 0, Bytes::mib(15), {}, {}}};
  EXPECT_THAT(given_back_during(recording, recording.waits.front()), IsEmpty());
  recording.curve.clear();
  EXPECT_THAT(given_back_during(recording, recording.waits.front()), IsEmpty());
}

TEST(GivenBack, IsTheCauseThatAReportNames) {
  auto recording = waited();
  recording.curve = {at(0s, 22015, {{"coder", Bytes::mib(22000)}}, 15), at(2s, 22015, {}, 22015), at(9s, 15, {}, 15)};
  json::object transition = recorded_of(recording);
  transition["from"] = "code";
  transition["to"] = "rag";
  transition["result"] = "committed";
  const auto issues = issues_of(json::array{transition});
  ASSERT_EQ(issues.size(), 1U);
  const auto cause = string_at(issues[0], {"cause"});
  EXPECT_THAT(cause, HasSubstr("processes of coder held 22000 MiB"));
  EXPECT_THAT(cause, HasSubstr("For 7.0 s the driver kept 22000 MiB that no process held any more"));
  EXPECT_EQ(given_back_words(json::parse(R"({"bytes":"many"})")), "");
}

}  // namespace
}  // namespace gpumod
