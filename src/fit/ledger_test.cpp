// The ledger over what machines of the field show, odd figures included. Sizes are GiB.
#include "fit/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Kind = Holding::Kind;
using Why = Holding::Why;

Bytes gib(std::int64_t amount) {
  return Bytes::gib(amount);
}

/// A GPU of 24 GiB, of which the driver has reserved 1 and 8 are free, and the services chat and tts.
struct LedgerTest : ::testing::Test {
  LedgerTest() {
    add("chat");
    add("tts");
    gpu().total = gib(24);
    gpu().reserved = gib(1);
    gpu().free = gib(8);
    goal = Goal{"code", {{"chat", Residency::running}}, true};
  }

  GpuSample& gpu() {
    if (snapshot.gpus.empty()) snapshot.gpus.emplace_back();
    return snapshot.gpus.front();
  }
  Service& add(const ServiceId& id) {
    services[id].id = id;
    return services[id];
  }
  void in_unit(pid_t pid, const std::string& unit) { snapshot.unit_of_pid[pid] = unit; }
  void client(pid_t pid, const std::string& command, const std::string& tag = "") {
    snapshot.clients[pid] = {command, "ann", tag};
  }
  void on_gpu(pid_t pid, std::optional<Bytes> used) { gpu().processes.push_back({pid, used}); }
  void is(const ServiceId& id, Residency residency) {
    snapshot.services[id] = {id, services[id].unit_name(), residency, ""};
  }
  GpuLedger ledger() const { return ledgers_of(snapshot, services, goal).at(0); }
  Account account() const { return ledger().account; }

  /// Every byte stands in exactly one part.
  static void adds_up(const Account& account) {
    ASSERT_TRUE(account.total && account.free && account.unattributed && account.used);
    const Bytes explained = account.managed + account.orphan + account.foreign;
    EXPECT_EQ(account.reserved.value_or(Bytes()) + explained + *account.unattributed + *account.free,
              *account.total + account.overcounted);
    EXPECT_GE(*account.unattributed, Bytes());
    EXPECT_GE(*account.free, Bytes());
    EXPECT_GE(*account.used, Bytes());
  }

  Snapshot snapshot;
  std::map<ServiceId, Service> services;
  std::optional<Goal> goal;
};

TEST_F(LedgerTest, TellsServicesOrphansStrangersAndTheUnexplainedApart) {
  in_unit(10, "gpumod-chat.service");
  in_unit(11, "gpumod-chat.service");
  in_unit(20, "gpumod-tts.service");
  in_unit(30, "gpumod-old.service");
  client(40, "firefox");
  client(41, "firefox");
  on_gpu(10, gib(4));
  on_gpu(11, gib(3));
  on_gpu(20, gib(2));
  on_gpu(30, gib(1));
  on_gpu(40, gib(1));
  on_gpu(41, gib(1));
  const auto seen = account();
  adds_up(seen);
  EXPECT_EQ(seen.managed, gib(7));
  EXPECT_EQ(seen.orphan, gib(3));
  EXPECT_EQ(seen.foreign, gib(2));
  EXPECT_EQ(seen.unattributed, gib(3));
  EXPECT_EQ(seen.used, gib(15));
  ASSERT_EQ(seen.holdings.size(), 4u) << "biggest first, the processes of one holder together";
  EXPECT_EQ(seen.holdings[0].name, "chat");
  EXPECT_EQ(seen.holdings[0].kind, Kind::managed);
  EXPECT_EQ(seen.holdings[0].processes.size(), 2u);
  EXPECT_EQ(seen.holdings[1].used, gib(2));
  for (const auto& holding : seen.holdings) {
    if (holding.name == "tts") {
      EXPECT_EQ(holding.why, Why::unwanted);
    } else if (holding.name == "gpumod-old.service") {
      EXPECT_EQ(holding.why, Why::undefined);
    } else if (holding.name == "firefox") {
      EXPECT_EQ(holding.kind, Kind::foreign);
      EXPECT_EQ(holding.user, "ann");
      EXPECT_EQ(holding.processes.size(), 2u);
    }
  }
}

TEST_F(LedgerTest, WithoutAGoalWhatAFileDefinesIsNoOrphan) {
  in_unit(20, "gpumod-tts.service");
  in_unit(30, "gpumod-old.service");
  on_gpu(20, gib(2));
  on_gpu(30, gib(1));
  EXPECT_EQ(account().orphan, gib(3));
  goal.reset();
  EXPECT_EQ(account().managed, gib(2));
  EXPECT_EQ(account().orphan, gib(1));
}

TEST_F(LedgerTest, AServiceThatIsToSleepIsWanted) {
  in_unit(20, "gpumod-tts.service");
  on_gpu(20, gib(2));
  goal->wanted["tts"] = Residency::sleeping1;
  EXPECT_EQ(account().managed, gib(2));
  goal->wanted["tts"] = Residency::stopped;
  EXPECT_EQ(account().orphan, gib(2));
}

TEST_F(LedgerTest, AProcessThatIsListedTwiceHoldsItsMemoryOnce) {
  client(40, "game");
  on_gpu(40, gib(3));
  on_gpu(40, gib(2));
  on_gpu(40, std::nullopt);
  const auto seen = account();
  adds_up(seen);
  EXPECT_EQ(seen.foreign, gib(3));
  ASSERT_EQ(seen.holdings.size(), 1u);
  EXPECT_EQ(seen.holdings[0].processes.size(), 1u);
  EXPECT_TRUE(seen.holdings[0].complete) << "one of the lists did say it";
}

TEST_F(LedgerTest, WhatNvmlDoesNotSayOfAProcessIsUnattributed) {
  in_unit(10, "gpumod-chat.service");
  in_unit(11, "gpumod-chat.service");
  on_gpu(10, gib(4));
  on_gpu(11, std::nullopt);
  const auto seen = account();
  adds_up(seen);
  EXPECT_EQ(seen.managed, gib(4));
  EXPECT_EQ(seen.unattributed, gib(11));
  ASSERT_EQ(seen.holdings.size(), 1u);
  EXPECT_FALSE(seen.holdings[0].complete);
  EXPECT_EQ(seen.holdings[0].processes[1].used, std::nullopt);
}

TEST_F(LedgerTest, FiguresOfProcessesMayExceedWhatIsUsed) {
  client(40, "compositor");
  client(41, "browser");
  on_gpu(40, gib(9));
  on_gpu(41, gib(8));
  const auto seen = account();
  adds_up(seen);
  EXPECT_EQ(seen.unattributed, Bytes());
  EXPECT_EQ(seen.overcounted, gib(2));
}

TEST_F(LedgerTest, ADriverThatDoesNotTellItsOwnShareLeavesItUnattributed) {
  gpu().reserved.reset();
  const auto seen = account();
  adds_up(seen);
  EXPECT_EQ(seen.reserved, std::nullopt);
  EXPECT_EQ(seen.unattributed, gib(16));
}

TEST_F(LedgerTest, FiguresThatCannotBeTrueDoNotSpread) {
  gpu().reserved = gib(30);
  adds_up(account());
  EXPECT_EQ(account().reserved, gib(16)) << "no more than is not free";
  gpu().free = gib(99);
  adds_up(account());
  EXPECT_EQ(account().free, gib(24));
  gpu().free = Bytes(-5);
  adds_up(account());
  on_gpu(40, Bytes(-1));
  adds_up(account());
}

TEST_F(LedgerTest, OfAGpuWhoseMemoryCannotBeReadTheHoldersAreKnown) {
  gpu().total.reset();
  gpu().free.reset();
  in_unit(10, "gpumod-chat.service");
  on_gpu(10, gib(4));
  const auto seen = account();
  EXPECT_EQ(seen.total, std::nullopt);
  EXPECT_EQ(seen.used, std::nullopt);
  EXPECT_EQ(seen.unattributed, std::nullopt);
  EXPECT_EQ(seen.managed, gib(4));
}

TEST_F(LedgerTest, LostGpusHaveNoLedger) {
  snapshot.gpus.clear();
  snapshot.gpu_problem = Error{ErrorCode::environment, "GPU 0 is lost", {}, {}};
  EXPECT_THAT(ledgers_of(snapshot, services, goal), IsEmpty());
}

TEST_F(LedgerTest, AnAdoptedUnitIsItsService) {
  services["chat"].unit = "glm-code.service";
  in_unit(10, "glm-code.service");
  on_gpu(10, gib(4));
  EXPECT_EQ(account().managed, gib(4));
  EXPECT_EQ(account().holdings.at(0).unit, "glm-code.service");
  EXPECT_THAT(account().holdings.at(0).services, ElementsAre("chat"));
}

TEST_F(LedgerTest, ARouterHoldsForTheModelsThatItHasLoaded) {
  for (const char* id : {"coder", "nemotron", "tiny"})
    add(id).router = "llama";
  in_unit(10, "gpumod-router-llama.service");
  on_gpu(10, gib(4));
  goal->wanted["coder"] = Residency::running;
  EXPECT_THAT(account().holdings.at(0).services, ElementsAre("coder")) << "nobody was asked: what is wanted";

  is("coder", Residency::unloaded);
  is("nemotron", Residency::running);
  is("tiny", Residency::starting);
  auto holding = account().holdings.at(0);
  EXPECT_THAT(holding.services, ElementsAre("nemotron", "tiny"));
  EXPECT_EQ(holding.name, "nemotron + tiny");
  EXPECT_EQ(holding.kind, Kind::managed) << "its unit is wanted, if for another model";

  is("nemotron", Residency::unloaded);
  is("tiny", Residency::unloaded);
  EXPECT_EQ(account().holdings.at(0).services.size(), 3u) << "the router itself, which is all of theirs";
  goal->wanted.erase("coder");
  EXPECT_EQ(account().holdings.at(0).why, Why::unwanted);
}

TEST_F(LedgerTest, WhatHasLeftItsUnitIsAnOrphanAlsoOfAServiceThatIsWanted) {
  in_unit(10, "gpumod-chat.service");
  client(11, "python3", "chat");
  client(12, "worker", "gone");
  on_gpu(10, gib(4));
  on_gpu(11, gib(2));
  on_gpu(12, gib(1));
  const auto seen = account();
  EXPECT_EQ(seen.managed, gib(4));
  EXPECT_EQ(seen.orphan, gib(3));
  EXPECT_EQ(seen.holdings[1].why, Why::escaped);
  EXPECT_THAT(seen.holdings[1].services, ElementsAre("chat"));
  EXPECT_EQ(seen.holdings[2].name, "gone");
  EXPECT_THAT(seen.holdings[2].services, IsEmpty());
}

TEST_F(LedgerTest, AProcessThatTheKernelDoesNotShowIsForeign) {
  client(40, "");
  on_gpu(40, gib(1));
  on_gpu(41, gib(1));
  const auto seen = account();
  EXPECT_EQ(seen.foreign, gib(2));
  EXPECT_EQ(seen.holdings.size(), 2u) << "not thrown together for having no name";
  EXPECT_EQ(seen.holdings[0].why, Why::unseen);
  EXPECT_EQ(seen.holdings[0].name, "pid 40");
}

TEST_F(LedgerTest, SlicesHaveAccountsOfTheirOwn) {
  in_unit(10, "gpumod-chat.service");
  client(40, "trainer");
  gpu().mig = true;
  gpu().total.reset();
  gpu().free.reset();
  const auto slice = [&](int instance, int compute, Bytes total, Bytes free, std::vector<GpuProcess> processes) {
    GpuSlice made;
    made.total = total;
    made.free = free;
    made.uuid = "MIG-" + std::to_string(instance) + std::to_string(compute);
    made.gpu_instance = instance;
    made.compute_instance = compute;
    made.processes = std::move(processes);
    gpu().slices.push_back(std::move(made));
  };
  slice(1, 0, gib(10), gib(5), {{10, gib(4)}});
  slice(2, 0, gib(10), gib(3), {{40, gib(2)}});
  slice(2, 1, gib(10), gib(3), {{10, gib(5)}});  // a device of the same instance: the same memory
  on_gpu(10, gib(9));
  on_gpu(40, gib(2));
  const auto seen = ledger();
  EXPECT_EQ(seen.account.managed, gib(9)) << "the GPU as a whole is not told, but who is on it";
  EXPECT_EQ(seen.account.total, std::nullopt);
  ASSERT_EQ(seen.instances.size(), 2u);
  adds_up(seen.instances[0].account);
  EXPECT_EQ(seen.instances[0].account.managed, gib(4));
  EXPECT_EQ(seen.instances[0].account.unattributed, gib(1));
  adds_up(seen.instances[1].account);
  EXPECT_EQ(seen.instances[1].devices.size(), 2u);
  EXPECT_EQ(seen.instances[1].account.managed, gib(5));
  EXPECT_EQ(seen.instances[1].account.foreign, gib(2));
  EXPECT_EQ(seen.instances[1].account.unattributed, Bytes());
}

TEST_F(LedgerTest, WhatOutlivesItsUnitIsOursAllTheSame) {
  snapshot.unit_of_pid[10] = "gpumod-chat.service";  // of its container; of the unit nothing is left
  on_gpu(10, gib(4));
  EXPECT_EQ(account().managed, gib(4));
  goal->wanted.clear();
  EXPECT_EQ(account().orphan, gib(4)) << "nobody wants it, and nobody else holds it";
  EXPECT_EQ(account().foreign, Bytes());
}

TEST(AccountOfMemory, IsHeldToWhatCanBeTrue) {
  GpuMemory memory;
  memory.total = gib(24);
  memory.reserved = gib(2);
  memory.free = gib(23);
  const auto account = account_of(memory);
  EXPECT_EQ(account.reserved, gib(1));
  EXPECT_EQ(account.used, Bytes()) << "never below nothing";
}

}  // namespace
}  // namespace gpumod
