#include "host/run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using testing::HasSubstr;

/// A tracer in another process group stops it on its way out, as a driver that hangs would.
constexpr auto unkillable = R"(
import ctypes, os, time
here, there = os.pipe()
held = os.getpid()
set_ptracer, anybody = 0x59616d61, ctypes.c_long(-1)
ctypes.CDLL(None).prctl(set_ptracer, anybody, 0, 0, 0)
if os.fork() == 0:
    os.setpgid(0, 0)
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seize, stop_at_exit = 0x4206, 0x40
    ptrace(seize, held, None, stop_at_exit)
    os.write(there, b'x')
    for stream in (0, 1, 2): os.close(stream)
    time.sleep(8)
    os._exit(0)
os.read(here, 1)
print('held', flush=True)
time.sleep(100)
)";

TEST(RunProgram, WhatCannotBeKilledIsLeftBehind) {
  Loop loop;
  const auto began = now();
  const auto outcome = loop.run_until_done(run_program({"/usr/bin/python3", "-c", unkillable}, 3s));
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_TRUE(outcome->timed_out);
  ASSERT_THAT(outcome->output, HasSubstr("held"));
  EXPECT_LT(now() - began, 7s);
}

TEST(RunProgram, WhatIsLateIsKilled) {
  Loop loop;
  const auto outcome = loop.run_until_done(run_program({"/bin/sleep", "100"}, 50ms));
  ASSERT_TRUE(outcome);
  EXPECT_TRUE(outcome->timed_out);
  EXPECT_EQ(outcome->exit_code, -1);
}

}  // namespace
}  // namespace gpumod
