#include "fit/learning.h"

#include <gtest/gtest.h>

namespace gpumod {
namespace {

const GpuSample card{0, "GPU-a", "A", Bytes::mib(24564), Bytes::mib(24000), {}};

Service llama(std::optional<Bytes> vram, bool pinned) {
  Service service;
  service.id = "coder";
  service.engine = EngineKind::llamacpp;
  service.vram = vram;
  LlamaOptions options;
  if (pinned) options.context_size = 8192;
  if (pinned) options.gpu_layers = 99;
  service.options = options;
  return service;
}

Footprint estimated() {
  Footprint known;
  known.estimated = EstimatedMemory{Bytes::mib(8000), Bytes::mib(2000), Bytes::mib(550), Bytes::mib(450), false, {}};
  return known;
}

bool learned(const Service& service, const Footprint& known, std::int64_t peak_mib,
             std::optional<Bytes> least_free = std::nullopt) {
  return may_be_learned(service, known, card, Bytes::mib(peak_mib), least_free);
}

TEST(MayBeLearned, WhoCannotShrinkTakesWhatItTakes) {
  EXPECT_TRUE(learned(llama(Bytes::mib(20000), true), {}, 3000));
  EXPECT_FALSE(learned(llama(Bytes::mib(20000), true), {}, 0)) << "nothing was seen";
}

TEST(MayBeLearned, WhoMayShrinkMustHaveHeldWeightsAndCaches) {
  EXPECT_TRUE(learned(llama(std::nullopt, false), estimated(), 10000));
  EXPECT_FALSE(learned(llama(std::nullopt, false), estimated(), 9999));
  auto larger_than_the_card = estimated();
  larger_than_the_card.estimated->kv = Bytes::mib(20000);
  EXPECT_FALSE(learned(llama(std::nullopt, false), larger_than_the_card, 23000));
}

TEST(MayBeLearned, WhereMemoryWasLeftOverTheEstimateWasWrong) {
  EXPECT_TRUE(learned(llama(std::nullopt, false), estimated(), 5000, Bytes::mib(1524)));
  EXPECT_FALSE(learned(llama(std::nullopt, false), estimated(), 5000, Bytes::mib(1523)));
}

TEST(MayBeLearned, WithoutAnEstimateWhatWasLeftOverTells) {
  auto service = llama(Bytes::mib(6000), false);
  EXPECT_TRUE(learned(service, {}, 10000, Bytes::mib(2024)));
  EXPECT_FALSE(learned(service, {}, 10000, Bytes::mib(2023))) << "it may have shrunk to leave that";
  EXPECT_FALSE(learned(service, {}, 10000)) << "who knows";
  service.extra_args = {"--fit-target", "4096"};
  EXPECT_FALSE(learned(service, {}, 10000, Bytes::mib(5000)));
  service.extra_args.clear();
  service.inherited_args = {"--fit-target=4096"};
  EXPECT_FALSE(learned(service, {}, 10000, Bytes::mib(5000))) << "every llama-server leaves that";
  service.inherited_args.clear();
  service.environment["LLAMA_ARG_FIT_TARGET"] = Secret("4096");
  EXPECT_FALSE(learned(service, {}, 10000, Bytes::mib(5000)));
  service.extra_args = {"--fit", "off"};
  EXPECT_TRUE(learned(service, {}, 10000)) << "then it cannot";
}

Measurement run(std::int64_t peak_mib, std::int64_t ready_s, std::int64_t at = 0) {
  Measurement one;
  one.gpu = "A";
  one.peak = Bytes::mib(peak_mib);
  one.steady[Residency::running] = Bytes::mib(peak_mib - 100);
  one.phases[Phase::ready] = std::chrono::seconds(ready_s);
  one.at = WallTime(std::chrono::microseconds(at));
  return one;
}

TEST(Summary, TheHighestPeakAndTheMedianOfTheRest) {
  const auto all = summary_of({run(10000, 8, 2), run(10400, 10, 3), run(10100, 30, 1)});
  EXPECT_EQ(all.peak, Bytes::mib(10400));
  EXPECT_EQ(all.steady.at(Residency::running), Bytes::mib(10000));
  EXPECT_EQ(all.runs, 3);
  EXPECT_EQ(all.newest.time_since_epoch().count(), 3);
  const auto& ready = all.phases.at(Phase::ready);
  EXPECT_EQ(ready.median, 10s);
  EXPECT_EQ(ready.spread, Duration(22s) / 3);
  EXPECT_EQ(ready.runs, 3);
}

TEST(Summary, RunsOfWhichOnlyTheTimeIsKnownSayNothingOfMemory) {
  auto timed = run(1, 5);
  timed.peak.reset();
  timed.steady.clear();
  const auto all = summary_of({timed});
  EXPECT_FALSE(all.peak);
  EXPECT_EQ(all.runs, 0);
  EXPECT_EQ(all.phases.at(Phase::ready).median, 5s);
}

TEST(Summary, EachKindOfGpuForItself) {
  auto other = run(5000, 20);
  other.gpu = "B";
  const auto all = summaries_of({run(10000, 8), other});
  EXPECT_EQ(all.at("A").peak, Bytes::mib(10000));
  EXPECT_EQ(all.at("B").peak, Bytes::mib(5000));
  Footprint known;
  known.measured = all;
  EXPECT_EQ(measured_on(known, {0}, {card})->peak, Bytes::mib(10000));
  EXPECT_EQ(measured_on(known, {}, {card}), nullptr);
  known.measured[""] = summary_of({run(0, 1)});
  EXPECT_EQ(measured_on(known, {1}, {card}), nullptr) << "a GPU that cannot be read is not none at all";
  EXPECT_FALSE(gpu_name({1}, {card}));
  EXPECT_EQ(gpu_name({}, {card}), "");
}

TEST(Seconds, AreASumOrUnknown) {
  const auto all = summary_of({run(10000, 8)});
  EXPECT_EQ(seconds_of(&all, {Phase::ready}), 8s);
  EXPECT_FALSE(seconds_of(&all, {Phase::start, Phase::ready}));
  EXPECT_FALSE(seconds_of(nullptr, {Phase::ready}));
}

TEST(Patience, GrowsWithWhatWasSeenAndNeverBelowWhatPeopleSay) {
  EXPECT_EQ(patience_for({10s, 1s, 3}, 60s), 60s);
  EXPECT_EQ(patience_for({50s, 5s, 3}, 60s), 95s);
  EXPECT_EQ(patience_for({500s, 100s, 3}, 60s), 180s) << "what people say stays within sight";
}

TEST(Disagreement, IsMoreThanATenth) {
  EXPECT_FALSE(disagree(Bytes::mib(10000), Bytes::mib(11000)));
  EXPECT_TRUE(disagree(Bytes::mib(10000), Bytes::mib(11001)));
  EXPECT_TRUE(disagree(Bytes::mib(22108), Bytes::mib(15000)));
}

}  // namespace
}  // namespace gpumod
