#include "verbs/bench_figures.h"

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;

TEST(BenchFigures, MedianAndSpread) {
  const auto odd = figures_of({3, 1, 2});
  EXPECT_DOUBLE_EQ(odd.median, 2);
  EXPECT_DOUBLE_EQ(odd.spread, 2.0 / 3);
  EXPECT_DOUBLE_EQ(odd.least, 1);
  EXPECT_DOUBLE_EQ(odd.most, 3);
  EXPECT_DOUBLE_EQ(figures_of({1, 2, 3, 10}).median, 2.5);
  EXPECT_DOUBLE_EQ(figures_of({}).median, 0);
}

TEST(BenchFigures, OnlyWhatChanceDoesNotExplainIsATrend) {
  EXPECT_EQ(trend_of({10, 0.1, 9, 11}, {12, 0.1, 11, 13}), Trend::slower);
  EXPECT_EQ(trend_of({12, 0.1, 11, 13}, {10, 0.1, 9, 11}), Trend::faster);
  EXPECT_EQ(trend_of({10, 0.1, 9, 11}, {10.9, 0.1, 9, 11}), Trend::same) << "less than a tenth";
  EXPECT_EQ(trend_of({10, 1, 9, 11}, {12, 0.1, 11, 13}), Trend::same) << "within three spreads of then";
  EXPECT_EQ(trend_of({10, 0.1, 9, 11}, {12, 1, 11, 13}), Trend::same) << "and of now";
  EXPECT_EQ(trend_of({0.02, 0, 0, 0}, {0.09, 0, 0, 0}), Trend::same) << "nobody waits for that";
}

json::object bench(double there, double back, double start) {
  const auto figures = [](double median) {
    return json::object{{"median", median}, {"spread", 0.1}, {"least", median}, {"most", median}};
  };
  const auto transition = [&](const char* from, const char* to, double median) {
    return json::object{
        {"from", from},
        {"to", to},
        {"seconds", figures(median)},
        {"switches", json::array{1}},
        {"steps", json::array{json::object{{"action", "start"}, {"subject", "chat"}, {"seconds", figures(start)}}}}};
  };
  return {{"gpus", json::array{"RTX"}},
          {"transitions", json::array{transition("code", "rag", there), transition("rag", "code", back)}}};
}

TEST(BenchFigures, RegressionsAreNamedWithTheirNumbersAndTheStepThatCausedThem) {
  const auto compared = compare_benches(bench(10, 5, 4), bench(15, 4.9, 9));
  const auto& regressions = compared.at("regressions").as_array();
  ASSERT_EQ(regressions.size(), 1u);
  EXPECT_EQ(regressions[0].at("text").as_string(),
            "code to rag: 15 s now, 10 s before (+50 %); start of chat: 9.0 s now, 4.0 s before");
  EXPECT_EQ(regressions[0].at("seconds").to_number<double>(), 5);
  EXPECT_TRUE(compared.at("improvements").as_array().empty());
  EXPECT_EQ(compare_benches(bench(15, 5, 4), bench(10, 5, 4)).at("improvements").as_array().size(), 1u);
}

TEST(BenchFigures, WhatWasNotMeasuredNowAndAnotherGpuAreSaid) {
  auto now = bench(10, 5, 4);
  now["transitions"].as_array().pop_back();
  now["gpus"] = json::array{"H100"};
  const auto compared = compare_benches(bench(10, 5, 4), now);
  ASSERT_EQ(compared.at("missing").as_array().size(), 1u);
  EXPECT_EQ(compared.at("missing").at(0).at("from").as_string(), "rag");
  EXPECT_THAT(json::serialize(compared.at("notes")), HasSubstr("H100"));
}

TEST(BenchFigures, AnythingElseThanABenchComparesToNothing) {
  const auto odd = json::parse(R"({"transitions": [1, {"from": 3}, {"seconds": "x"}]})").as_object();
  const auto compared = compare_benches(odd, bench(10, 5, 4));
  EXPECT_TRUE(compared.at("regressions").as_array().empty());
}

}  // namespace
}  // namespace gpumod
