#include "model/recording.h"

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/recording_json.h"

namespace gpumod {
namespace {

std::vector<Recording::Point> rising(int count) {
  std::vector<Recording::Point> points;
  for (int i = 0; i < count; ++i)
    points.push_back({i * 1s, 0, Bytes::mib(100 + i % 7), {}});
  return points;
}

TEST(Thinned, KeepsTheFirstTheLastAndThePeak) {
  auto points = rising(1000);
  points[613].used = Bytes::gib(20);
  const auto kept = thinned(points, 50);
  ASSERT_EQ(kept.size(), 50u);
  EXPECT_EQ(kept.front().at, 0s);
  EXPECT_EQ(kept.back().at, 999s);
  EXPECT_TRUE(std::any_of(kept.begin(), kept.end(), [](const auto& one) { return one.at == 613s; }));
}

TEST(Thinned, IsEven) {
  const auto kept = thinned(rising(1000), 50);
  for (std::size_t i = 1; i < kept.size(); ++i)
    EXPECT_LE(kept[i].at - kept[i - 1].at, 42s) << i;
}

TEST(Thinned, WhatIsShortEnoughStaysAsItIs) {
  EXPECT_EQ(thinned(rising(50), 50).size(), 50u);
  EXPECT_EQ(thinned(rising(3), 3).size(), 3u);
}

TEST(Thinned, WhereTheDriverDoesNotTellWhatIsHeldCounts) {
  std::vector<Recording::Point> points;
  for (int i = 0; i < 100; ++i)
    points.push_back({i * 1s, 0, std::nullopt, {{"chat", Bytes::mib(i == 40 ? 9000 : 10)}}});
  const auto kept = thinned(points, 10);
  EXPECT_TRUE(std::any_of(kept.begin(), kept.end(), [](const auto& one) { return one.at == 40s; }));
}

Recording whole() {
  Recording recording;
  recording.id = 7;
  recording.kind = "mode switch";
  recording.from = "rag";
  recording.to = "code";
  recording.began = WallTime(std::chrono::seconds(1'700'000'000));
  recording.took = 12'345ms;
  recording.predicted = 9s;
  recording.result = SwitchResult::rolled_back;
  recording.failure = Recording::Failure{"it broke", "mend it", 1};
  Recording::Step step;
  step.step = 1;
  step.action = Action::start;
  step.subject = step.service = "chat";
  step.unit = "gpumod-chat.service";
  step.undo = true;
  step.result = "failed";
  step.attempts = 2;
  step.began = 1s;
  step.ended = 8s;
  step.predicted = 5s;
  step.note = "no";
  step.after = {0};
  step.phases = {{Recording::Stage::memory, 1, 1s, 2s}, {Recording::Stage::clear, 2, 7s, 8s}};
  step.troubles = {{2, 7s, "it broke", "mend it", {"one", "two"}}};
  recording.steps = {step};
  recording.waits = {{1, Recording::Wait::For::turn, "stop of embed", 0s, 1s}};
  recording.gpus = {{0, "RTX", Bytes::gib(24), Bytes::gib(20), Bytes::gib(21)}};
  recording.curve = {{500ms, 0, Bytes::gib(1), {{"chat", Bytes::mib(900)}}, Bytes::mib(24)}, {1s, 1, std::nullopt, {}}};
  return recording;
}

TEST(RecordingJson, ReadsWhatItWrote) {
  const auto once = to_json(whole());
  const auto again = recording_from_json(once);
  ASSERT_TRUE(again);
  EXPECT_EQ(boost::json::serialize(to_json(*again)), boost::json::serialize(once));
  EXPECT_EQ(again->took, 12'345ms);
  EXPECT_EQ(again->began, whole().began);
  EXPECT_EQ(again->steps[0].phases[1].name, Recording::Stage::clear);
  EXPECT_EQ(again->curve[0].held.at("chat"), Bytes::mib(900));
  EXPECT_EQ(again->curve[0].unheld, Bytes::mib(24));
  EXPECT_FALSE(again->curve[1].used);
}

TEST(RecordingJson, WhatIsMissingOrOfAnotherKindIsLeftOut) {
  const auto odd = boost::json::parse(
      R"({"id": "seven", "seconds": 1e300, "steps": [3, {"phases": {}}], "curve": "none", "gpus": [{"peak": 1.5}]})");
  const auto read = recording_from_json(odd);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->id, 0);
  EXPECT_EQ(read->took, 0s);
  EXPECT_EQ(read->steps.size(), 2u);
  EXPECT_FALSE(read->gpus[0].peak);
  EXPECT_FALSE(recording_from_json(boost::json::array()));
}

}  // namespace
}  // namespace gpumod
