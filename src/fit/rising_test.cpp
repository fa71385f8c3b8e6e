#include "fit/rising.h"

#include <gtest/gtest.h>

namespace gpumod {
namespace {

/// A unit of two GPUs' machine, of which nothing is listed yet.
struct Rising : ::testing::Test {
  Rising() {
    snapshot.gpus = {{0, "GPU-0", "A", Bytes::gib(24), Bytes::gib(24), {}},
                     {1, "GPU-1", "A", Bytes::gib(24), Bytes::gib(24), {}}};
    for (auto* service : {&one, &two}) {
      service->options = CommandOptions{};
      service->vram = Bytes::gib(4);
    }
    one.id = "one";
    two.id = "two";
    is("one", Residency::starting);
    is("two", Residency::stopped);
  }
  void is(const ServiceId& id, Residency residency) { snapshot.services[id] = {id, "u", residency, ""}; }
  void holds(std::size_t gpu, std::optional<Bytes> used) {
    snapshot.gpus[gpu].processes = {{7, used}};
    snapshot.unit_of_pid[7] = "u";
  }
  std::optional<Bytes> rest(std::size_t gpu) {
    return still_to_take(snapshot, "u", {&one, &two}, {}, snapshot.gpus[gpu]);
  }

  Snapshot snapshot;
  Service one, two;
};

TEST_F(Rising, NobodyKnowsOnWhichGpuItWillShow) {
  EXPECT_EQ(rest(0), std::nullopt);
  one.gpu.devices = {"GPU-1"};
  EXPECT_EQ(rest(0), Bytes());
  EXPECT_EQ(rest(1), Bytes::gib(4));
}

TEST_F(Rising, WhatItHoldsIsTakenAlreadyAndTheOtherModelsCount) {
  holds(0, Bytes::gib(1));
  EXPECT_EQ(rest(0), Bytes::gib(3));
  EXPECT_EQ(rest(1), Bytes()) << "it has gone to the first";
  is("two", Residency::running);
  EXPECT_EQ(rest(0), Bytes::gib(7)) << "one process may hold both";
  holds(0, Bytes::gib(9));
  EXPECT_EQ(rest(0), Bytes());
  holds(0, std::nullopt);
  EXPECT_EQ(rest(0), std::nullopt);
}

TEST_F(Rising, WhoIsUpTakesNothingMore) {
  is("one", Residency::running);
  holds(0, Bytes::gib(1));
  EXPECT_EQ(rest(0), Bytes());
}

TEST_F(Rising, OfWhomNothingIsKnownNobodyKnowsIt) {
  holds(0, Bytes::gib(1));
  one.vram.reset();
  EXPECT_EQ(rest(0), std::nullopt);
}

}  // namespace
}  // namespace gpumod
