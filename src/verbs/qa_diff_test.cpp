#include "verbs/qa_diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace json = boost::json;

constexpr std::int64_t mib = 1024 * 1024;

/// One transition of a run: to a mode with a chat and an embedding.
struct Sample {
  double seconds = 10, load = 4, rate = 170, first = 0.1;
  std::int64_t ours = 22000 * mib, dimensions = 2048;
  std::string result = "committed", problem = {}, orphan = {};
};

json::value run_of(const std::vector<Sample>& samples) {
  json::array transitions;
  for (const auto& sample : samples) {
    json::array problems, orphans;
    if (!sample.problem.empty()) problems.push_back(json::value(sample.problem));
    if (!sample.orphan.empty()) orphans.push_back(json::object{{"name", sample.orphan}});
    transitions.push_back(json::object{
        {"from", "blank"},
        {"to", "code"},
        {"result", sample.result},
        {"seconds", sample.seconds},
        {"vram", json::object{{"ours", sample.ours}}},
        {"orphans", orphans},
        {"steps",
         json::array{json::object{
             {"service", "coder"}, {"action", "load"}, {"result", "done"}, {"attempts", 1}, {"seconds", sample.load}}}},
        {"services", json::array{json::object{{"service", "coder"},
                                              {"figures", json::object{{"tokens_per_second", sample.rate},
                                                                       {"first_token_seconds", sample.first}}},
                                              {"problems", problems}},
                                 json::object{{"service", "embed"},
                                              {"figures", json::object{{"dimensions", sample.dimensions}}},
                                              {"problems", json::array()}}}}});
  }
  return json::object{{"id", 1}, {"transitions", std::move(transitions)}};
}

std::vector<std::string> kinds(const json::array& entries) {
  std::vector<std::string> out;
  for (const auto& entry : entries)
    out.emplace_back(entry.at("kind").as_string());
  return out;
}

std::vector<std::string> regressions(const std::vector<Sample>& before, const std::vector<Sample>& after) {
  return kinds(compare_runs(run_of(before), run_of(after)).at("regressions").as_array());
}

TEST(QaDiff, TheSameTwiceIsNoRegression) {
  EXPECT_THAT(regressions({{}}, {{}}), IsEmpty());
}

TEST(QaDiff, EachPlantedRegressionIsNamedAlone) {
  EXPECT_THAT(regressions({{}}, {{.seconds = 13}}), ElementsAre("seconds"));
  EXPECT_THAT(regressions({{}}, {{.load = 6}}), ElementsAre("load"));
  EXPECT_THAT(regressions({{}}, {{.rate = 140}}), ElementsAre("tokens"));
  EXPECT_THAT(regressions({{}}, {{.first = 0.3}}), ElementsAre("first_token"));
  EXPECT_THAT(regressions({{}}, {{.ours = 23000 * mib}}), ElementsAre("vram"));
  EXPECT_THAT(regressions({{}}, {{.dimensions = 1024}}), ElementsAre("dimensions"));
  EXPECT_THAT(regressions({{}}, {{.problem = "the answer is empty"}}), ElementsAre("probe"));
  EXPECT_THAT(regressions({{}}, {{.orphan = "old.service"}}), ElementsAre("orphan"));
  EXPECT_THAT(regressions({{}}, {{.result = "rolled_back"}}), ElementsAre("transition"));
}

TEST(QaDiff, WhatIsSaidHasTheFigures) {
  const auto found = compare_runs(run_of({{}}), run_of({{.rate = 119}}));
  const auto& entry = found.at("regressions").at(0);
  EXPECT_THAT(std::string(entry.at("text").as_string()),
              HasSubstr("coder in code generates 119 tok/s, and 170 tok/s before (-30 %"));
  EXPECT_DOUBLE_EQ(entry.at("tolerance").to_number<double>(), 17);
}

TEST(QaDiff, SmallDifferencesAndBetterFiguresAreNone) {
  EXPECT_THAT(regressions({{}}, {{.seconds = 11.9, .load = 4.4, .rate = 154, .ours = 22050 * mib}}), IsEmpty());
  const auto found = compare_runs(run_of({{.load = 8}}), run_of({{}}));
  EXPECT_THAT(found.at("regressions").as_array(), IsEmpty());
  EXPECT_THAT(kinds(found.at("improvements").as_array()), ElementsAre("load"));
}

TEST(QaDiff, WhatWasBrokenBeforeIsNotNew) {
  EXPECT_THAT(regressions({{.problem = "x"}}, {{.problem = "y"}}), IsEmpty());
  EXPECT_THAT(regressions({{.result = "rolled_back"}}, {{.result = "rolled_back"}}), IsEmpty());
  EXPECT_THAT(regressions({{.orphan = "old"}}, {{.orphan = "old"}}), IsEmpty());
}

TEST(QaDiff, SeveralRoundsSayHowMuchOfItIsNoise) {
  const std::vector<Sample> restless{{.seconds = 8}, {.seconds = 10}, {.seconds = 14}};
  EXPECT_THAT(regressions(restless, {{.seconds = 14}}), IsEmpty()) << "three times a spread of two";
  EXPECT_THAT(regressions({{}, {}, {}}, {{.seconds = 14}}), ElementsAre("seconds"));
  EXPECT_THAT(regressions({{}, {}, {}}, {{}, {}, {.seconds = 60}}), IsEmpty()) << "one outlier moves no median";
}

TEST(QaDiff, ChangesOfTheEnvironmentAreTold) {
  const auto with = [](const char* driver, const char* key) {
    return json::value(json::object{
        {"environment",
         json::object{{"driver", driver}, {"services", json::array{json::object{{"id", "coder"}, {"key", key}}}}}}});
  };
  EXPECT_THAT(changes_between(with("580", "a"), with("580", "a")), IsEmpty());
  const auto changes = changes_between(with("580", "a"), with("590", "b"));
  ASSERT_EQ(changes.size(), 2U);
  EXPECT_EQ(changes[0], "driver: 590, and 580 before");
  EXPECT_THAT(std::string(changes[1].as_string()), HasSubstr("coder"));
}

TEST(QaDiff, GarbageIsNoRun) {
  for (const char* text : {"null", "[]", "{\"transitions\":7}", "{\"transitions\":[1,{\"steps\":{}}]}"}) {
    const auto found = compare_runs(json::parse(text), run_of({{}}));
    EXPECT_THAT(found.at("regressions").as_array(), IsEmpty()) << text;
  }
}

}  // namespace
}  // namespace gpumod
