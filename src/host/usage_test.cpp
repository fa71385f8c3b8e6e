#include "host/usage.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/local_testing.h"

namespace gpumod {
namespace {

TEST(ProcessUsage, GrowsWithWhatIsDone) {
  const auto before = usage_of(::getpid());
  ASSERT_TRUE(before);
  EXPECT_GT(before->start_ticks, 0u);
  volatile std::uint64_t work = 0;
  const auto until = now() + 5s;
  auto after = before;
  while (after->cpu < before->cpu + 30ms && now() < until) {
    for (int i = 0; i < 1'000'000; ++i)
      work = work + static_cast<std::uint64_t>(i);
    after = usage_of(::getpid());
    ASSERT_TRUE(after);
  }
  EXPECT_GE(after->cpu, before->cpu + 30ms);
  EXPECT_EQ(after->start_ticks, before->start_ticks);
  ASSERT_TRUE(read_file("/proc/self/exe", 256 << 20));
  EXPECT_GT(usage_of(::getpid())->read_bytes, after->read_bytes + 100'000);
}

TEST(ProcessUsage, AnEndedProcessHasNone) {
  testing::ChildProcess child({"/bin/true"});
  child.wait();
  EXPECT_FALSE(usage_of(child.pid()));
}

}  // namespace
}  // namespace gpumod
