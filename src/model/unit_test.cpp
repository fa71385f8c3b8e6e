#include "model/unit.h"

#include <gtest/gtest.h>

namespace gpumod {
namespace {

UnitStatus ended(std::string result, int code, bool by_signal = false) {
  UnitStatus unit;
  unit.active = ActiveState::failed;
  unit.result = std::move(result);
  unit.exit_code = code;
  unit.killed_by_signal = by_signal;
  return unit;
}

TEST(HowItEnded, IsSaidInPlainWords) {
  EXPECT_EQ(how_it_ended(ended("exit-code", 1)), "it ended with exit code 1");
  EXPECT_EQ(how_it_ended(ended("signal", 9, true)), "it was ended by signal 9");
  EXPECT_EQ(how_it_ended(ended("core-dump", 11, true)), "it crashed (signal 11)");
  EXPECT_EQ(how_it_ended(ended("timeout", 9, true)), "it took too long and was ended (signal 9)");
  EXPECT_EQ(how_it_ended(ended("oom-kill", 9, true)), "the kernel ended it because memory ran out");
  EXPECT_EQ(how_it_ended(ended("success", 0)), "it ended by itself");
  EXPECT_EQ(how_it_ended(ended("shim-lost", 0)),
            "gpumod's process that looked after it was killed, and it ended with it");
  EXPECT_EQ(why_not_started({false, "dependency"}),
            "its unit could not be started: a unit that it needs did not start");
  EXPECT_EQ(why_not_started({false, "failed"}), "its unit could not be started");
  EXPECT_EQ(how_it_ended(ended("of-another-kind", 0)), "it ended: of-another-kind");
}

}  // namespace
}  // namespace gpumod
