#include "verbs/memory.h"

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<GpuSample> one_card{{0, "GPU-a", "A card", Bytes::mib(24564), Bytes::mib(24000), {}}};

Service vllm(std::optional<Bytes> declared) {
  Service service;
  service.id = "chat";
  service.engine = EngineKind::vllm;
  service.vram = declared;
  service.options = VllmOptions{};
  service.source = {"services/chat.yaml", 0, 0};
  return service;
}

Service llama(std::optional<Bytes> declared) {
  auto service = vllm(declared);
  service.engine = EngineKind::llamacpp;
  LlamaOptions options;
  options.context_size = 8192;
  options.gpu_layers = 99;
  service.options = options;
  return service;
}

Footprint measured(Bytes peak) {
  Footprint known;
  auto& card = known.measured["A card"];
  card.peak = peak;
  card.runs = 3;
  card.steady[Residency::running] = peak - Bytes::mib(64);
  card.phases[Phase::ready] = {12500ms, 250ms, 3};
  return known;
}

TEST(Disagreements, FifteenThousandBesideAVllmThatClaimsMore) {
  EXPECT_THAT(disagreements(vllm(Bytes::mib(15000)), {}, one_card),
              ElementsAre("15000 MiB are declared, but it takes 22108 MiB (its gpu_memory_utilization of what the GPU "
                          "has): correct vram: in services/chat.yaml"));
  EXPECT_THAT(disagreements(vllm(Bytes::mib(22000)), {}, one_card), IsEmpty());
  EXPECT_THAT(disagreements(vllm(std::nullopt), {}, one_card), IsEmpty());
  EXPECT_THAT(disagreements(vllm(Bytes(0)), {}, one_card), IsEmpty()) << "it runs on the CPU";
}

TEST(Disagreements, OfWhatIsDeclaredAndMeasured) {
  EXPECT_THAT(disagreements(llama(Bytes::mib(20000)), measured(Bytes::mib(22500)), one_card),
              ElementsAre(HasSubstr("20000 MiB are declared, but it takes 22500 MiB (measured in 3 runs)")));
  EXPECT_THAT(disagreements(llama(Bytes::mib(21000)), measured(Bytes::mib(22500)), one_card), IsEmpty());
}

TEST(Disagreements, OfWhatIsEstimated) {
  auto known = measured(Bytes::mib(12000));
  known.estimated = EstimatedMemory{Bytes::mib(8000), Bytes::mib(2000), Bytes::mib(550), Bytes::mib(450), false, {}};
  EXPECT_THAT(disagreements(llama(std::nullopt), known, one_card), IsEmpty());
  known.measured["A card"].peak = Bytes::mib(13000);
  EXPECT_THAT(disagreements(llama(std::nullopt), known, one_card),
              ElementsAre("11000 MiB are estimated, but 13000 MiB were measured"));
  known.measured.clear();
  EXPECT_THAT(disagreements(llama(Bytes::mib(15000)), known, one_card),
              ElementsAre("15000 MiB are declared, and count, but it takes 11000 MiB (by its model's file and its "
                          "flags): correct vram: in services/chat.yaml unless it can take more"));
  EXPECT_THAT(disagreements(llama(Bytes::mib(8000)), known, one_card),
              ElementsAre("8000 MiB are declared, but it takes 11000 MiB (by its model's file and its flags): correct "
                          "vram: in services/chat.yaml"));
}

TEST(Disagreements, OfAProgramThatMayLoadLater) {
  auto service = vllm(Bytes::mib(8000));
  service.engine = EngineKind::command;
  service.options = CommandOptions{};
  EXPECT_THAT(disagreements(service, measured(Bytes::mib(400)), one_card),
              ElementsAre(HasSubstr("8000 MiB are declared, and count, but it takes 400 MiB (measured in 3 runs)")));
}

TEST(Disagreements, OnlyOfGpusThatItMayUse) {
  auto service = vllm(Bytes::mib(15000));
  service.gpu.devices = {"1"};
  EXPECT_THAT(disagreements(service, {}, one_card), IsEmpty());
}

TEST(Memory, EverySourceBesideTheOthers) {
  const auto memory = describe_memory(llama(Bytes::mib(20000)), measured(Bytes::mib(22500)), one_card);
  EXPECT_EQ(memory.at("declared"), Bytes::mib(20000).count());
  EXPECT_TRUE(memory.at("estimated").is_null());
  const auto& card = memory.at("measured").at(0);
  EXPECT_EQ(card.at("peak"), Bytes::mib(22500).count());
  EXPECT_EQ(card.at("steady").at("running"), Bytes::mib(22436).count());
  EXPECT_EQ(card.at("seconds").at("ready").at("median"), 12.5);
  EXPECT_EQ(memory.at("claims").at(0).at("bytes"), Bytes::mib(22500).count());
  EXPECT_EQ(memory.at("claims").at(0).at("source"), "measured");
  EXPECT_EQ(memory.at("warnings").as_array().size(), 1u);
}

}  // namespace
}  // namespace gpumod
