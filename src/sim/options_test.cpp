#include "sim/options.h"

#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SimOptions, EntriesStandInLinesOrBehindSemicolons) {
  const auto options =
      Options::parse("weights=1100MiB; load=1.5s;;\n # a comment; with=one\n  mode = slow start \nempty=\n");
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->amount("weights", Bytes()), Bytes::mib(1100));
  EXPECT_EQ(options->duration("load", 0s), 1500ms);
  EXPECT_EQ(options->text("mode"), "slow start");
  EXPECT_TRUE(options->has("empty"));
  EXPECT_EQ(options->text("empty", "something"), "");
  EXPECT_FALSE(options->has("with"));
  EXPECT_THAT(options->unknown({"weights", "load"}), ElementsAre("empty", "mode"));
}

TEST(SimOptions, WhatIsNotThereIsTheFallback) {
  const Options options;
  EXPECT_EQ(options.text("a", "b"), "b");
  EXPECT_EQ(options.amount("a", Bytes(7)), Bytes(7));
  EXPECT_EQ(options.duration("a", 7s), 7s);
  EXPECT_EQ(options.number("a", 0.5), 0.5);
}

TEST(SimOptions, MalformedEntriesAreNamed) {
  for (const char* text : {"a=1;slow", "slow", "=slow"}) {
    const auto options = Options::parse(text);
    ASSERT_FALSE(options) << text;
    EXPECT_EQ(options.error().code, ErrorCode::usage);
    EXPECT_THAT(options.error().message, HasSubstr("slow"));
  }
  const auto twice = Options::parse("load=1s\nload=2s");
  ASSERT_FALSE(twice);
  EXPECT_THAT(twice.error().message, HasSubstr("'load' stands twice"));
}

TEST(SimOptions, WrongValuesAreNamedWithTheirKey) {
  const auto options = Options::parse("weights=12;load=soon;rate=fast");
  ASSERT_TRUE(options);
  EXPECT_THAT(options->amount("weights", Bytes()).error().message, "weights: '12' is no amount of memory");
  EXPECT_THAT(options->duration("load", 0s).error().message, "load: 'soon' is no duration");
  EXPECT_THAT(options->number("rate", 0).error().message, "rate: 'fast' is no number");
}

TEST(SimOptions, LaterOnesReplaceEarlierOnes) {
  auto options = *Options::parse("a=1;b=2");
  options.merge(*Options::parse("b=3;c=4"));
  EXPECT_EQ(options.number("a", 0), 1);
  EXPECT_EQ(options.number("b", 0), 3);
  EXPECT_EQ(options.number("c", 0), 4);
}

TEST(SimOptions, AmountsHaveAUnit) {
  EXPECT_EQ(parse_amount("16GiB"), Bytes::gib(16));
  EXPECT_EQ(parse_amount("1.5 GiB"), Bytes::mib(1536));
  EXPECT_EQ(parse_amount("0MiB"), Bytes());
  EXPECT_EQ(parse_amount("3B"), Bytes(3));
  for (const char* text : {"", "16", "GiB", "16GB", "-1MiB", "1e3MiB", "nanMiB", "99999999999TiB", "1.2.3MiB"})
    EXPECT_FALSE(parse_amount(text)) << text;
}

TEST(SimOptions, DurationsHaveAUnit) {
  EXPECT_EQ(parse_duration("1.5s"), 1500ms);
  EXPECT_EQ(parse_duration("250ms"), 250ms);
  EXPECT_EQ(parse_duration("2min"), 120s);
  for (const char* text : {"", "1", "s", "-1s", "1 fortnight", "infs"})
    EXPECT_FALSE(parse_duration(text)) << text;
}

TEST(SimOptions, SimulatedTimeMayRunFaster) {
  ::unsetenv("GPUMOD_SIM_SPEED");
  EXPECT_EQ(scaled(3s), 3s);
  ::setenv("GPUMOD_SIM_SPEED", "10", 1);
  EXPECT_EQ(scaled(3s), 300ms);
  ::setenv("GPUMOD_SIM_SPEED", "0.001", 1);
  EXPECT_EQ(scaled(Duration::max()), Duration::max()) << "no overflow";
  for (const char* nonsense : {"", "0", "-2", "fast", "inf"}) {
    ::setenv("GPUMOD_SIM_SPEED", nonsense, 1);
    EXPECT_EQ(speed(), 1) << nonsense;
  }
  ::unsetenv("GPUMOD_SIM_SPEED");
}

}  // namespace
}  // namespace gpumod::sim
