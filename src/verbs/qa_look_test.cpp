#include "verbs/qa_look.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

namespace json = boost::json;

TEST(QaTransition, TakesWhatTheSwitchSaysOfItself) {
  const auto answer = json::parse(
      R"({"switch":{"id":7,"result":"unchanged","seconds":0.25,"vram":{"before":1,"after":2,"peak":3},"steps":[{"step":0}]}})");
  const auto line = transition_of(answer, "a", "b", 9s);
  EXPECT_EQ(line.at("switch"), 7);
  EXPECT_EQ(line.at("result"), "unchanged");
  EXPECT_DOUBLE_EQ(line.at("seconds").as_double(), 0.25);
  EXPECT_EQ(line.at("vram").at("peak"), 3);
  EXPECT_EQ(line.at("steps").as_array().size(), 1U);
  EXPECT_TRUE(line.at("problem").is_null());
}

TEST(QaTransition, OneThatFailedSaysWhy) {
  Error error{ErrorCode::failed, "e did not start; what ran before runs again", "Fetch it.", {}};
  error.details = json::parse(R"({"switch":{"id":8,"result":"rolled_back","seconds":4,"steps":[]}})");
  const auto line = transition_of(fail(error), "a", "b", 9s);
  EXPECT_EQ(line.at("result"), "rolled_back");
  EXPECT_EQ(std::string(line.at("problem").at("message").as_string()), error.message);
  EXPECT_EQ(line.at("problem").at("hint"), "Fetch it.");
}

TEST(QaTransition, OneThatNeverBeganHasItsOwnTime) {
  const auto line = transition_of(fail(ErrorCode::environment, "no unit manager"), "a", "b", 1500ms);
  EXPECT_EQ(line.at("result"), "environment");
  EXPECT_TRUE(line.at("switch").is_null());
  EXPECT_DOUBLE_EQ(line.at("seconds").as_double(), 1.5);
}

TEST(QaRecorded, WaitsAreNamedByTheirStepAndTheCurveIsThin) {
  Recording recording;
  Recording::Step stop;
  stop.step = 3;
  stop.subject = "coder";
  recording.steps.push_back(stop);
  recording.waits.push_back({3, Recording::Wait::For::release, "coder to end", 1s, 62s});
  recording.gpus.push_back({0, "RTX", Bytes::gib(24), {}, {}});
  for (int i = 0; i < 1000; ++i)
    recording.curve.push_back({std::chrono::milliseconds(i), 0, Bytes::mib(i % 7), {}});
  const auto told = recorded_of(recording);
  ASSERT_EQ(told.at("waits").as_array().size(), 1U);
  const auto& wait = told.at("waits").at(0);
  EXPECT_EQ(wait.at("subject"), "coder");
  EXPECT_EQ(wait.at("for"), "release");
  EXPECT_DOUBLE_EQ(wait.at("seconds").as_double(), 61);
  EXPECT_LE(told.at("curve").as_array().size(), 120U);
  EXPECT_GE(told.at("curve").as_array().size(), 60U);
}

}  // namespace
}  // namespace gpumod
