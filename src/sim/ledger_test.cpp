#include "sim/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod::sim {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr TimePoint start{std::chrono::hours(1)};
constexpr HolderId vllm{100, 5};
constexpr HolderId firefox{200, 6};

Ledger two_gpus() {
  return Ledger({{"Big", "GPU-big", Bytes::gib(24), Bytes::mib(512)}, {"Small", "GPU-small", Bytes::gib(8), Bytes()}});
}

TEST(SimLedger, AmountsOfAllHoldersAddUp) {
  auto ledger = two_gpus();
  ASSERT_TRUE(ledger.allocate(0, vllm, "weights", Bytes::gib(10), start));
  ASSERT_TRUE(ledger.allocate(0, vllm, "kv", Bytes::gib(2), start));
  ASSERT_TRUE(ledger.allocate(0, vllm, "kv", Bytes::gib(1), start));
  ASSERT_TRUE(ledger.allocate(0, firefox, "tab", Bytes::gib(1), start));
  ASSERT_TRUE(ledger.allocate(1, vllm, "weights", Bytes::gib(5), start));
  const auto memory = ledger.memory(0, start);
  EXPECT_EQ(memory.total, Bytes::gib(24));
  EXPECT_EQ(memory.reserved, Bytes::mib(512));
  EXPECT_EQ(memory.used, Bytes::gib(14));
  EXPECT_EQ(memory.free, Bytes::gib(10) - Bytes::mib(512));
  const auto entries = ledger.entries(0, start);
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].holder, vllm);
  EXPECT_EQ(entries[0].bytes, Bytes::gib(13));
  EXPECT_THAT(entries[0].allocations, UnorderedElementsAre(Pair("weights", Bytes::gib(10)), Pair("kv", Bytes::gib(3))));
  EXPECT_EQ(entries[1].bytes, Bytes::gib(1));
  EXPECT_EQ(ledger.memory(1, start).free, Bytes::gib(3));
}

TEST(SimLedger, WhatIsNotFreeIsRefusedAndNothingIsTaken) {
  auto ledger = two_gpus();
  ASSERT_TRUE(ledger.allocate(1, vllm, "weights", Bytes::gib(8), start)) << "the last byte may be had";
  const auto more = ledger.allocate(1, vllm, "kv", Bytes(1), start);
  ASSERT_FALSE(more);
  EXPECT_THAT(more.error().message, HasSubstr("CUDA out of memory"));
  EXPECT_EQ(ledger.entries(1, start).at(0).bytes, Bytes::gib(8));
  EXPECT_FALSE(ledger.allocate(0, vllm, "kv", Bytes::gib(24), start)) << "the driver's own cannot be had";
  EXPECT_FALSE(ledger.allocate(0, vllm, "kv", Bytes(-1), start));
  EXPECT_THAT(ledger.entries(0, start), IsEmpty());
}

TEST(SimLedger, MemoryComesBackAtOnceUnlessToldOtherwise) {
  auto ledger = two_gpus();
  ASSERT_TRUE(ledger.allocate(0, vllm, "weights", Bytes::gib(10), start));
  ASSERT_TRUE(ledger.allocate(0, vllm, "kv", Bytes::gib(2), start));
  ASSERT_TRUE(ledger.allocate(1, vllm, "kv", Bytes::gib(2), start));
  ledger.release(0, vllm, "kv", start);
  ledger.release(0, vllm, "kv", start);
  ledger.release(0, vllm, "never taken", start);
  ledger.release(0, firefox, "kv", start);
  EXPECT_EQ(ledger.memory(0, start).used, Bytes::gib(10));
  EXPECT_EQ(ledger.memory(1, start).used, Bytes::gib(2));
  ledger.ended(vllm, start);
  EXPECT_EQ(ledger.memory(0, start).used, Bytes());
  EXPECT_EQ(ledger.memory(1, start).used, Bytes());
  EXPECT_FALSE(ledger.knows(vllm, start));
  EXPECT_EQ(ledger.next_change(start), std::nullopt);
}

TEST(SimLedger, AProcessWithThePidOfADeadOneIsAnotherHolder) {
  auto ledger = two_gpus();
  constexpr HolderId later{vllm.pid, vllm.start_ticks + 1};
  ASSERT_TRUE(ledger.allocate(0, vllm, "kv", Bytes::gib(1), start));
  ASSERT_TRUE(ledger.allocate(0, later, "kv", Bytes::gib(2), start));
  ledger.ended(vllm, start);
  EXPECT_EQ(ledger.memory(0, start).used, Bytes::gib(2));
}

TEST(SimLedger, ADeadProcessMayStayListedForAWhile) {
  auto ledger = two_gpus();
  ledger.set_curve({90s, 0s, true});
  ASSERT_TRUE(ledger.allocate(0, vllm, "weights", Bytes::gib(10), start));
  ledger.ended(vllm, start);
  for (const Duration after : {Duration(0s), Duration(89s)}) {
    EXPECT_EQ(ledger.memory(0, start + after).used, Bytes::gib(10));
    const auto entries = ledger.entries(0, start + after);
    ASSERT_EQ(entries.size(), 1u);
    EXPECT_EQ(entries[0].holder, vllm);
    EXPECT_EQ(entries[0].bytes, Bytes::gib(10));
    EXPECT_EQ(entries[0].returning, Bytes::gib(10));
    EXPECT_THAT(entries[0].allocations, IsEmpty());
    EXPECT_TRUE(ledger.knows(vllm, start + after));
    EXPECT_EQ(ledger.unlisted(0, start + after), Bytes());
    EXPECT_EQ(ledger.next_change(start + after), start + 90s);
  }
  EXPECT_FALSE(ledger.allocate(0, firefox, "tab", Bytes::gib(20), start + 89s));
  EXPECT_EQ(ledger.memory(0, start + 90s).used, Bytes());
  EXPECT_THAT(ledger.entries(0, start + 90s), IsEmpty());
  EXPECT_FALSE(ledger.knows(vllm, start + 90s));
  EXPECT_EQ(ledger.next_change(start + 90s), std::nullopt);
  EXPECT_TRUE(ledger.allocate(0, firefox, "tab", Bytes::gib(20), start + 90s));
}

TEST(SimLedger, WhatALivingProcessGivesBackMayBeSlowToo) {
  auto ledger = two_gpus();
  ASSERT_TRUE(ledger.allocate(0, vllm, "weights", Bytes::gib(10), start));
  ASSERT_TRUE(ledger.allocate(0, vllm, "kv", Bytes::gib(2), start));
  ASSERT_TRUE(ledger.allocate(0, vllm, "graphs", Bytes::gib(1), start));
  ledger.set_curve({5s, 0s, true});
  ledger.release(0, vllm, "graphs", start);
  EXPECT_EQ(ledger.memory(0, start).used, Bytes::gib(12)) << "not unless asked for";
  ledger.set_curve({5s, 0s, true, true});
  ledger.release(0, vllm, "kv", start);
  EXPECT_EQ(ledger.entries(0, start).at(0).bytes, Bytes::gib(12));
  EXPECT_EQ(ledger.entries(0, start).at(0).returning, Bytes::gib(2));
  EXPECT_EQ(ledger.memory(0, start + 5s).used, Bytes::gib(10));
  EXPECT_EQ(ledger.entries(0, start + 5s).at(0).bytes, Bytes::gib(10));
}

TEST(SimLedger, MemoryMayBeNobodysAndYetNotFree) {
  auto ledger = two_gpus();
  ledger.set_curve({5s, 0s, false});
  ASSERT_TRUE(ledger.allocate(0, vllm, "weights", Bytes::gib(10), start));
  ledger.ended(vllm, start);
  EXPECT_EQ(ledger.memory(0, start).used, Bytes::gib(10));
  EXPECT_THAT(ledger.entries(0, start), IsEmpty());
  EXPECT_EQ(ledger.unlisted(0, start), Bytes::gib(10));
  EXPECT_FALSE(ledger.knows(vllm, start));
  EXPECT_EQ(ledger.unlisted(0, start + 5s), Bytes());
}

TEST(SimLedger, ARampComesInStepsAtKnownMoments) {
  auto ledger = two_gpus();
  ledger.set_curve({1s, 32s, true});
  ASSERT_TRUE(ledger.allocate(0, vllm, "weights", Bytes::gib(16) + Bytes(7), start));
  ledger.ended(vllm, start);
  EXPECT_EQ(ledger.memory(0, start + 1s).used, Bytes::gib(16) + Bytes(7));
  EXPECT_EQ(ledger.memory(0, start + 17s).used, Bytes::gib(8) + Bytes(7));
  EXPECT_EQ(ledger.entries(0, start + 17s).at(0).bytes, Bytes::gib(8) + Bytes(7));
  EXPECT_EQ(ledger.memory(0, start + 33s).used, Bytes()) << "nothing is left over";

  // Between the moments it announces nothing changes, at each of them something does.
  TimePoint now = start;
  Bytes free = ledger.memory(0, now).free;
  int changes = 0;
  while (const auto next = ledger.next_change(now)) {
    ASSERT_GT(*next, now);
    EXPECT_EQ(ledger.memory(0, *next - Duration(1)).free, free);
    EXPECT_GT(ledger.memory(0, *next).free, free);
    free = ledger.memory(0, *next).free;
    now = *next;
    ++changes;
  }
  EXPECT_EQ(changes, Ledger::ramp_steps);
  EXPECT_EQ(now, start + 33s);
}

TEST(SimLedger, RampsOfAnyLengthEnd) {
  for (const Duration ramp : {Duration(1), Duration(31), Duration(33), Duration(1000), Duration(3600s)}) {
    auto ledger = two_gpus();
    ledger.set_curve({Duration{}, ramp, true});
    ASSERT_TRUE(ledger.allocate(0, vllm, "weights", Bytes::gib(16), start));
    ledger.ended(vllm, start);
    EXPECT_EQ(ledger.memory(0, start + ramp).used, Bytes());
    TimePoint now = start;
    int changes = 0;
    for (; ledger.next_change(now) && changes < 100; ++changes)
      now = *ledger.next_change(now);
    EXPECT_LE(changes, Ledger::ramp_steps + 1);
    EXPECT_EQ(ledger.memory(0, now).used, Bytes()) << ramp.count();
  }
}

TEST(SimLedger, ANewCurveLeavesAloneWhatIsOnItsWay) {
  auto ledger = two_gpus();
  ASSERT_TRUE(ledger.allocate(0, vllm, "weights", Bytes::gib(4), start));
  ASSERT_TRUE(ledger.allocate(0, firefox, "tab", Bytes::gib(1), start));
  ledger.set_curve({10s, 0s, true});
  ledger.ended(vllm, start);
  ledger.set_curve({});
  ledger.ended(firefox, start);
  EXPECT_EQ(ledger.memory(0, start + 9s).used, Bytes::gib(4));
  EXPECT_EQ(ledger.memory(0, start + 10s).used, Bytes());
}

TEST(SimLedger, AHolderStandsInTheListItWants) {
  auto ledger = two_gpus();
  ASSERT_TRUE(ledger.allocate(0, vllm, "weights", Bytes::gib(4), start));
  ASSERT_TRUE(ledger.allocate(0, firefox, "tab", Bytes::gib(1), start));
  ledger.list_as(0, firefox, Listing::graphics);
  const auto entries = ledger.entries(0, start);
  EXPECT_EQ(entries.at(0).listing, Listing::compute);
  EXPECT_EQ(entries.at(1).listing, Listing::graphics);
  ledger.set_curve({1s, 0s, true});
  ledger.ended(firefox, start);
  EXPECT_EQ(ledger.entries(0, start).at(1).listing, Listing::graphics) << "also when it is dead";
  for (const auto listing : {Listing::compute, Listing::graphics, Listing::mps, Listing::both})
    EXPECT_EQ(listing_named(to_string(listing)), listing);
  EXPECT_EQ(listing_named("nonsense"), std::nullopt);
}

}  // namespace
}  // namespace gpumod::sim
