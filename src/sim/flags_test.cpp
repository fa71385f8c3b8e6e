#include "sim/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Result<Flags> parse(const Arguments& arguments) {
  return Flags::parse(arguments, {"gpu", "holds", "after", "count"}, {"quiet"});
}

TEST(SimFlags, ValuesStandBehindOrAfterAnEqualsSign) {
  const auto flags =
      parse({"--gpu", "A=24GiB", "--holds=400MiB", "--quiet", "--gpu=B=8GiB", "--after", "1.5s", "--count", "-1"});
  ASSERT_TRUE(flags) << flags.error().message;
  EXPECT_THAT(flags->all("gpu"), ElementsAre("A=24GiB", "B=8GiB"));
  EXPECT_EQ(flags->text("gpu"), "B=8GiB");
  EXPECT_EQ(flags->amount("holds", {}), Bytes::mib(400));
  EXPECT_EQ(flags->duration("after", {}), 1500ms);
  EXPECT_EQ(flags->number("count", 0), -1);
  EXPECT_TRUE(flags->has("quiet"));
}

TEST(SimFlags, WhatIsNotGivenIsTheFallback) {
  const auto flags = parse({});
  ASSERT_TRUE(flags);
  EXPECT_FALSE(flags->has("quiet"));
  EXPECT_THAT(flags->all("gpu"), ElementsAre());
  EXPECT_EQ(flags->text("gpu", "x"), "x");
  EXPECT_EQ(flags->amount("holds", Bytes(5)), Bytes(5));
  EXPECT_EQ(flags->duration("after", 5s), 5s);
  EXPECT_EQ(flags->number("count", 5), 5);
}

TEST(SimFlags, MistakesAreNamed) {
  for (const auto& [arguments, words] :
       std::vector<std::pair<Arguments, const char*>>{{{"--hold", "1"}, "'--hold' is not understood"},
                                                      {{"stray"}, "'stray' is not understood"},
                                                      {{"--quiet=yes"}, "'--quiet=yes' is not understood"},
                                                      {{"--quiet", "--gpu"}, "--gpu needs a value"}}) {
    const auto flags = parse(arguments);
    ASSERT_FALSE(flags) << words;
    EXPECT_EQ(flags.error().code, ErrorCode::usage);
    EXPECT_THAT(flags.error().message, HasSubstr(words));
  }
  EXPECT_THAT(parse({"--hold", "1"}).error().hint, HasSubstr("holds"));
  const auto flags = parse({"--holds", "much", "--after", "soon", "--count", "few"});
  ASSERT_TRUE(flags);
  EXPECT_THAT(flags->amount("holds", {}).error().message, HasSubstr("--holds: 'much'"));
  EXPECT_THAT(flags->duration("after", {}).error().message, HasSubstr("--after: 'soon'"));
  EXPECT_THAT(flags->number("count", 0).error().message, HasSubstr("--count: 'few'"));
}

}  // namespace
}  // namespace gpumod::sim
