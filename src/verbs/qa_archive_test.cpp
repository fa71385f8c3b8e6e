#include "verbs/qa_archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verbs/tree_testing.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace json = boost::json;

json::object run_over(json::array sequence, const char* result = "passed", std::size_t padding = 0) {
  return {{"sequence", std::move(sequence)},
          {"result", result},
          {"padding", std::string(padding, 'x')},
          {"transitions", json::array()}};
}

struct QaArchiveTest : ::testing::Test {
  std::int64_t keep(json::object run) { return keep_run(tree.paths(), run).value_or(0); }
  TestTree tree;
};

TEST_F(QaArchiveTest, NumbersWhatItKeepsAndFindsItAgain) {
  EXPECT_EQ(keep(run_over({"a", "b"})), 1);
  EXPECT_EQ(keep(run_over({"b"})), 2);
  EXPECT_THAT(kept_runs(tree.paths()), ElementsAre(2, 1));
  EXPECT_EQ(load_run(tree.paths(), "last")->at("id"), 2);
  EXPECT_EQ(load_run(tree.paths(), "1")->at("id"), 1);
  const auto file = tree.write("copy.json", R"({"transitions":[],"id":7})");
  EXPECT_EQ(load_run(tree.paths(), file.string())->at("id"), 7);
}

TEST_F(QaArchiveTest, WhatIsNotThereIsSaid) {
  EXPECT_THAT(load_run(tree.paths(), "last").error().message, HasSubstr("no quality run"));
  keep(run_over({"a"}));
  EXPECT_EQ(load_run(tree.paths(), "9").error().code, ErrorCode::not_found);
  EXPECT_THAT(load_run(tree.paths(), "9").error().hint, HasSubstr("newest is 1"));
  EXPECT_EQ(load_run(tree.paths(), "lst").error().code, ErrorCode::not_found);
  const auto file = tree.write("other.json", R"({"a":1})");
  EXPECT_THAT(load_run(tree.paths(), file.string()).error().message, HasSubstr("no report"));
}

TEST_F(QaArchiveTest, TheLastOfTheSameSequenceIsCompared) {
  keep(run_over({"a", "b"}));
  keep(run_over({"a", "b"}, "cancelled"));
  keep(run_over({"a", "c"}));
  EXPECT_EQ(last_of_sequence(tree.paths(), {"a", "b"})->at("id"), 1);
  EXPECT_FALSE(last_of_sequence(tree.paths(), {"b", "a"}));
}

TEST_F(QaArchiveTest, TheOldestGo) {
  for (int i = 0; i < 53; ++i)
    keep(run_over({"a"}));
  EXPECT_EQ(kept_runs(tree.paths()).size(), 50U);
  EXPECT_EQ(kept_runs(tree.paths()).back(), 4);
  for (int i = 0; i < 3; ++i)
    keep(run_over({"a"}, "passed", 30 << 20));
  EXPECT_THAT(kept_runs(tree.paths()), ElementsAre(56, 55)) << "three of these are more than 64 MiB";
}

}  // namespace
}  // namespace gpumod
