#include "verbs/simulation.h"

#include <algorithm>

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fit/facts_testing.h"
#include "fit/vllm_flags.h"
#include "fit/what_if.h"
#include "verbs/imagined_gpu.h"
#include "verbs/simulation_json.h"

namespace gpumod {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

/// A small world: GPUs, services by id, some of them running.
struct World {
  Thought thought;
  int next_pid = 100;

  explicit World(std::vector<GpuSample> gpus) { thought.snapshot.gpus = std::move(gpus); }

  Service& add(const std::string& id, std::optional<Bytes> vram) {
    Service service;
    service.id = id;
    service.options = CommandOptions{};
    service.port = static_cast<std::uint16_t>(9000 + thought.knowledge.services.size());
    service.vram = vram;
    thought.snapshot.services[id] = {id, service.unit_name(), Residency::stopped, ""};
    return thought.knowledge.services[id] = service;
  }
  /// It holds `bytes` of the first GPU.
  void run(const std::string& id, Bytes bytes) {
    const auto unit = thought.knowledge.services.at(id).unit_name();
    auto& status = thought.snapshot.units[unit];
    status.name = unit;
    status.exists = true;
    status.active = ActiveState::active;
    status.pids = {next_pid};
    auto& gpu = thought.snapshot.gpus.front();
    gpu.processes.push_back({next_pid, bytes});
    *gpu.free -= bytes;
    thought.snapshot.unit_of_pid[next_pid++] = unit;
    thought.snapshot.services[id].residency = Residency::running;
  }
  void want(std::initializer_list<std::string> ids) {
    for (const auto& id : ids) {
      thought.goal.wanted[id] = Residency::running;
      Subject subject;
      subject.service = &thought.knowledge.services.at(id);
      thought.subjects.push_back(subject);
    }
  }
  Subject& subject(const std::string& id) {
    return *std::find_if(thought.subjects.begin(), thought.subjects.end(),
                         [&](const Subject& each) { return each.service->id == id; });
  }
};

GpuSample rtx_4090(Bytes free = Bytes::mib(24564)) {
  return {0, "GPU-0", "RTX 4090", Bytes::mib(24564), free, {}};
}

void make_llama(World& world, const std::string& id, const ModelFacts& facts, std::int64_t context) {
  auto& service = world.thought.knowledge.services.at(id);
  LlamaOptions options;
  options.context_size = context;
  service.options = options;
  service.engine = EngineKind::llamacpp;
  auto& subject = world.subject(id);
  subject.model = &facts;
  subject.flags = LlamaFlags{};
  subject.flags->context = context;
  auto& known = world.thought.knowledge.footprints[id];
  known.estimated = *estimated_memory(facts, *subject.flags);
  subject.known = &known;
}

// "18068 MB free < 20512 MB required … (timed out but continued)": the wait that gave up and went on.
TEST(Simulation, TwentyGigabytesDoNotGoWhereEighteenAreFree) {
  World world({rtx_4090(Bytes::mib(18068))});
  world.add("nemotron", Bytes::mib(20000));
  world.want({"nemotron"});
  const auto foresight = foresee(world.thought);
  ASSERT_TRUE(foresight);
  EXPECT_EQ(foresight->fits, Fits::no);
  EXPECT_EQ(foresight->problem->code, ErrorCode::refused);
  EXPECT_THAT(foresight->problem->message, HasSubstr("'nemotron' needs 20000 MiB of VRAM"));
  EXPECT_THAT(foresight->problem->message,
              HasSubstr("would have only 17556 MiB to give (512 MiB a GPU are kept free)"));
  EXPECT_EQ(foresight->missing, Bytes::mib(20512 - 18068)) << "with the margin it asks for 20512";
  EXPECT_EQ(foresight->timeline.lowest.at(0).free, Bytes::mib(18068 - 20000));
  const auto refused = plan(world.thought.snapshot, world.thought.goal, world.thought.knowledge);
  EXPECT_FALSE(refused) << "a switch touches nothing either";
}

// The same, where the router that is to make room holds it: there it fits, because it is counted when it is really back.
TEST(Simulation, WhatIsToGoMakesRoomAtItsEndAndNotBefore) {
  World world({rtx_4090(Bytes::mib(24056))});
  world.add("coder", Bytes::mib(6000));
  world.run("coder", Bytes::mib(5988));
  world.add("nemotron", Bytes::mib(20000));
  world.want({"nemotron"});
  ASSERT_EQ(*world.thought.snapshot.gpus.front().free, Bytes::mib(18068));
  const auto foresight = foresee(world.thought);
  EXPECT_EQ(foresight->fits, Fits::yes);
  ASSERT_EQ(foresight->plan.steps.size(), 2U);
  EXPECT_THAT(foresight->plan.steps[1].after, ElementsAre(0));
  EXPECT_EQ(foresight->timeline.lowest_taking.at(0).free, Bytes::mib(24056 - 20000));
}

// A load of 30962 MiB was let loose on 714 MiB that were free, and the host froze.
TEST(Simulation, ThirtyGigabytesDoNotGoWhereSevenHundredMegabytesAreFree) {
  for (const auto total : {Bytes::mib(24564), Bytes::mib(32607)}) {
    World world({{0, "GPU-0", "RTX", total, Bytes::mib(714), {}}});
    world.add("huge", Bytes::mib(30962));
    world.want({"huge"});
    const auto foresight = foresee(world.thought);
    EXPECT_EQ(foresight->fits, Fits::no);
    EXPECT_EQ(foresight->problem->code, ErrorCode::refused);
    EXPECT_THAT(foresight->problem->message, HasSubstr("30962 MiB"));
    EXPECT_EQ(foresight->missing, Bytes::mib(30962 + 512 - 714));
    EXPECT_THAT(offers(world.thought, 8), IsEmpty()) << "nothing is known that could help";
    EXPECT_FALSE(plan(world.thought.snapshot, world.thought.goal, world.thought.knowledge));
  }
}

TEST(Simulation, ALlamaServerThatDeclaresNothingIsKnownByItsModel) {
  const auto facts = model_of_8b();
  World world({rtx_4090(Bytes::mib(714))});
  world.add("chat", std::nullopt);
  world.want({"chat"});
  make_llama(world, "chat", facts, 32768);
  const auto foresight = foresee(world.thought);
  EXPECT_EQ(foresight->fits, Fits::no);
  EXPECT_GT(foresight->missing, Bytes::gib(10));
}

TEST(Simulation, ALlamaServerThatWouldShrinkIsNotCalledAFit) {
  const auto facts = model_of_8b();
  World world({{0, "GPU-0", "small", Bytes::gib(11), Bytes::mib(11000), {}}});
  world.add("chat", std::nullopt);
  world.want({"chat"});
  make_llama(world, "chat", facts, 32768);
  const auto foresight = foresee(world.thought);
  EXPECT_EQ(foresight->fits, Fits::unknown);
  EXPECT_THAT(foresight->notes, Contains(HasSubstr("it will shrink itself")));
  const auto found = offers(world.thought, 8);
  EXPECT_FALSE(found.empty()) << "with a smaller context it is known to fit";
  for (const auto& offer : found)
    EXPECT_EQ(offer.foresight.fits, Fits::yes);
}

TEST(Simulation, EveryOfferIsForeseenAndFits) {
  const auto facts = model_of_8b();
  for (const int free : {6000, 8000, 9500, 11000}) {
    SCOPED_TRACE(free);
    World world({rtx_4090(Bytes::mib(free))});
    world.add("chat", std::nullopt);
    world.want({"chat"});
    make_llama(world, "chat", facts, 32768);
    ASSERT_EQ(foresee(world.thought)->fits, Fits::no);
    const auto found = offers(world.thought, 8);
    EXPECT_FALSE(found.empty());
    for (const auto& offer : found) {
      EXPECT_EQ(offer.foresight.fits, Fits::yes);
      EXPECT_GE(offer.foresight.timeline.lowest_taking.at(0).free, Bytes::mib(512))
          << offer.alternative.changes[0].text;
    }
  }
}

TEST(Simulation, ARunningServiceThatIsChangedIsRestarted) {
  const auto facts = model_of_8b();
  World world({rtx_4090(Bytes::mib(24100))});
  world.add("chat", std::nullopt);
  world.add("other", Bytes::mib(12600));
  world.want({"chat", "other"});
  make_llama(world, "chat", facts, 32768);
  world.run("chat", Bytes::mib(11300));
  ASSERT_EQ(foresee(world.thought)->fits, Fits::no);
  const auto found = offers(world.thought, 8);
  ASSERT_FALSE(found.empty());
  const auto& steps = found.front().foresight.plan.steps;
  EXPECT_THAT(steps, Contains(::testing::Field(&Step::action, Action::stop)))
      << "what it holds with its old settings has to come back first";
}

TEST(Simulation, AnOptionalServiceIsLeftOutLast) {
  World world({rtx_4090()});
  world.add("chat", Bytes::gib(14));
  auto& asr = world.add("asr", Bytes::gib(12));
  asr.sleep = SleepAbility::none;
  world.want({"chat", "asr"});
  EXPECT_THAT(offers(world.thought, 8), IsEmpty()) << "what people asked for is not dropped unasked";
  world.subject("asr").optional = true;
  const auto found = offers(world.thought, 8);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].alternative.changes[0].kind, Change::Kind::drop);
  EXPECT_EQ(found[0].alternative.changes[0].service, "asr");
}

TEST(Simulation, AServiceBoundToAFullGpuMayGoToAnother) {
  World world(
      {{0, "GPU-0", "A", Bytes::gib(24), Bytes::gib(4), {}}, {1, "GPU-1", "A", Bytes::gib(24), Bytes::gib(23), {}}});
  world.add("chat", Bytes::gib(14)).gpu.devices = {"0"};
  world.want({"chat"});
  const auto found = offers(world.thought, 8);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].alternative.changes[0].text, "run 'chat' on GPU 1 (A)");
  EXPECT_EQ(found[0].foresight.plan.steps[0].gpus, std::vector<GpuIndex>{1});
}

TEST(Simulation, WhoSleepsIsOffered) {
  World world({rtx_4090(Bytes::mib(24100))});
  auto& chat = world.add("chat", Bytes::gib(14));
  chat.engine = EngineKind::vllm;
  VllmOptions options;
  options.gpu_memory_utilization = 0.6;
  chat.options = options;
  chat.sleep = SleepAbility::level1;
  world.run("chat", Bytes::mib(14700));
  world.add("coder", Bytes::gib(16));
  world.want({"chat", "coder"});
  const auto found = offers(world.thought, 8);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].alternative.changes[0].text, "let 'chat' sleep");
  EXPECT_EQ(found[0].foresight.plan.steps[0].action, Action::sleep);
}

TEST(Simulation, AModelThatDoesNotFitInsideAVllmsShareIsSaid) {
  const auto facts = model_of_8b();  // 6400 MiB, and 4096 MiB for one request of full length
  World world({rtx_4090()});
  auto& chat = world.add("chat", std::nullopt);
  chat.engine = EngineKind::vllm;
  VllmOptions options;
  options.gpu_memory_utilization = 0.4;
  chat.options = options;
  world.want({"chat"});
  world.subject("chat").model = &facts;
  const auto foresight = foresee(world.thought);
  EXPECT_EQ(foresight->fits, Fits::no);
  EXPECT_EQ(foresight->missing, Bytes()) << "the GPU has room";
  EXPECT_THAT(foresight->problem->message, HasSubstr("6400 MiB of weights, 4096 MiB for one request"));
  const auto found = offers(world.thought, 8);
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found[0].alternative.changes[0].kind, Change::Kind::context);
  EXPECT_THAT(found[0].alternative.changes[0].edit, HasSubstr("max_model_len"));
}

TEST(Simulation, WhatNobodyKnowsIsNotCalledAFit) {
  World world({rtx_4090()});
  world.add("mystery", std::nullopt);
  world.want({"mystery"});
  const auto foresight = foresee(world.thought);
  EXPECT_EQ(foresight->fits, Fits::unknown);
  const auto answer = simulation_json(world.thought, *foresight, {});
  EXPECT_TRUE(answer.at("simulation").at("fits").is_null());
  EXPECT_EQ(answer.at("simulation").at("claims").at(0).at("source"), "unknown");
}

TEST(Simulation, OtherRefusalsAreNotAboutMemory) {
  World world({rtx_4090()});
  world.add("chat", Bytes::gib(1)).gpu.devices = {"3"};
  world.want({"chat"});
  const auto foresight = foresee(world.thought);
  ASSERT_FALSE(foresight);
  EXPECT_EQ(foresight.error().code, ErrorCode::configuration);
}

TEST(ImaginedGpu, KnownNamesAndSizes) {
  const auto gpus = imagined_gpus({"RTX 4090", "nvidia geforce rtx3060", "mine=24GiB", "small=8192", "half=1.5G"});
  ASSERT_TRUE(gpus) << gpus.error().message;
  std::vector<std::int64_t> totals;
  for (const auto& gpu : *gpus)
    totals.push_back(gpu.total->to_mib());
  EXPECT_THAT(totals, ElementsAre(24564, 12288, 24576, 8192, 1536));
  EXPECT_EQ((*gpus)[1].name, "RTX 3060");
  EXPECT_EQ((*gpus)[2].index, 2);
  EXPECT_LT(*(*gpus)[0].free, *(*gpus)[0].total);
}

TEST(ImaginedGpu, WhatIsNoneIsSaid) {
  for (const char* text : {"mine=", "=24GiB", "mine=lots", "mine=-3", "mine=0", "mine=9999TiB", "mine=24GB x",
                           "x=24 nvidia", "x=24 GeForce G"}) {
    const auto refused = imagined_gpus({text});
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code, ErrorCode::usage);
    EXPECT_THAT(refused.error().message, HasSubstr("NAME=SIZE"));
  }
  const auto unknown = imagined_gpus({"RTX 4091"});
  EXPECT_THAT(unknown.error().message, HasSubstr("no GPU is known as 'RTX 4091'"));
  EXPECT_THAT(unknown.error().hint, HasSubstr("RTX 4090"));
}

/// As `add`, and its further arguments are read as its server reads them.
Service& add_vllm(World& world, const std::string& id, VllmOptions options, const std::vector<std::string>& words) {
  auto& chat = world.add(id, std::nullopt);
  chat.engine = EngineKind::vllm;
  chat.options = options;
  chat = as_started(std::move(chat), words);
  return chat;
}

TEST(Simulation, WhatAVllmIsPassedBeyondItsFileCounts) {
  const auto facts = model_of_8b();  // 6400 MiB, and 4096 MiB for one request of full length
  for (const bool roomy : {true, false}) {
    VllmOptions file;
    file.gpu_memory_utilization = roomy ? 0.3 : 0.9;
    file.max_model_len = roomy ? 32768 : 8192;
    const std::vector<std::string> words =
        roomy ? std::vector<std::string>{"--gpu-memory-utilization=0.9", "--max-model-len", "8192"}
              : std::vector<std::string>{"--gpu-memory-utilization", "0.3", "--max-model-len", "32768"};
    World world({rtx_4090()});
    add_vllm(world, "chat", file, words);
    world.want({"chat"});
    world.subject("chat").model = &facts;
    world.subject("chat").words = words;
    const auto foresight = foresee(world.thought);
    EXPECT_EQ(foresight->fits, roomy ? Fits::yes : Fits::no);
    EXPECT_EQ(foresight->claims.at("chat").bytes->to_mib(), roomy ? 22108 : 7369);
  }
}

TEST(Simulation, WhatCannotBeToldOfAVllmIsSaid) {
  const auto facts = model_of_8b();
  World world({rtx_4090()});
  VllmOptions small;
  small.gpu_memory_utilization = 0.4;
  add_vllm(world, "chat", small, {});
  add_vllm(world, "own", small, {}).unit = "own.service";
  world.want({"chat"});
  world.subject("chat").model = &facts;
  ASSERT_EQ(foresee(world.thought)->fits, Fits::no);
  world.subject("chat").words = {"--quantization", "fp8"};
  const auto foresight = foresee(world.thought);
  EXPECT_EQ(foresight->fits, Fits::yes) << "the share is what it takes, and there is room for it";
  EXPECT_THAT(foresight->notes, Contains(HasSubstr("cannot be told: --quantization is not covered")));

  world.thought.goal.wanted.clear();
  world.thought.subjects.clear();
  world.want({"own"});
  world.subject("own").model = &facts;
  const auto adopted = foresee(world.thought);
  EXPECT_EQ(adopted->fits, Fits::yes) << "with which context people's own unit runs is not known";
  EXPECT_THAT(adopted->notes, Contains(HasSubstr("cannot be told: its unit is people's own")));
}

TEST(Simulation, WhoIsUpInAnyWayIsRestartedForWhatPeopleAskFor) {
  const auto facts = model_of_8b();
  for (const auto residency : {Residency::running, Residency::starting, Residency::sleeping1, Residency::stopped}) {
    World world({rtx_4090(Bytes::mib(24100))});
    world.add("chat", std::nullopt);
    world.want({"chat"});
    make_llama(world, "chat", facts, 32768);
    if (residency != Residency::stopped) world.run("chat", Bytes::mib(9000));
    world.thought.snapshot.services["chat"].residency = residency;
    Change smaller;
    smaller.kind = Change::Kind::context;
    smaller.service = "chat";
    smaller.context = 16384;
    world.thought.asked = {smaller};
    const auto foresight = foresee(world.thought);
    EXPECT_EQ(foresight->plan.steps.front().action, residency == Residency::stopped ? Action::start : Action::stop)
        << to_string(residency);
    World as_is({rtx_4090(Bytes::mib(24100))});
    as_is.add("chat", std::nullopt);
    as_is.want({"chat"});
    make_llama(as_is, "chat", facts, 32768);
    EXPECT_LT(*foresight->claims.at("chat").bytes, *foresee(as_is.thought)->claims.at("chat").bytes);
  }
}

TEST(Simulation, WhatIsOfferedGoesOnFromWhatPeopleAskFor) {
  const auto facts = model_of_8b();
  World world({rtx_4090(Bytes::mib(9500))});
  world.add("chat", std::nullopt);
  world.want({"chat"});
  make_llama(world, "chat", facts, 32768);
  Change larger;
  larger.kind = Change::Kind::context;
  larger.service = "chat";
  larger.context = 65536;
  world.thought.asked = {larger};
  const auto found = offers(world.thought, 8);
  ASSERT_FALSE(found.empty());
  for (const auto& offer : found)
    for (const auto& change : offer.alternative.changes)
      if (change.kind == Change::Kind::context) {
        EXPECT_THAT(change.text, HasSubstr("instead of 65536"));
      }
}

TEST(Simulation, AnotherGpuThatSaysNothingDoesNotMatter) {
  World world({rtx_4090(), {1, "GPU-1", "silent", std::nullopt, std::nullopt, {{99, std::nullopt}}}});
  world.add("chat", Bytes::gib(14)).gpu.devices = {"0"};
  world.want({"chat"});
  EXPECT_EQ(foresee(world.thought)->fits, Fits::yes);
  world.thought.knowledge.services["chat"].gpu.devices = {"1"};
  EXPECT_EQ(foresee(world.thought)->fits, Fits::unknown);
}

TEST(Simulation, WhoIsToGoAndWhoseMemoryCannotBeReadIsNotCountedAgainstIt) {
  World world({rtx_4090()});
  world.add("old", Bytes::gib(12));
  world.run("old", Bytes::gib(12));
  world.thought.snapshot.gpus[0].processes[0].used.reset();
  world.add("chat", Bytes::gib(14));
  world.want({"chat"});
  EXPECT_EQ(foresee(world.thought)->fits, Fits::unknown) << "what comes back may be enough";
}

TEST(Simulation, WhereMostIsLackingIsSaid) {
  World world({rtx_4090(), {1, "GPU-1", "A", Bytes::gib(40), Bytes::gib(40), {}}});
  for (const auto& [id, device, gib] : {std::tuple("near", "0", 23), std::tuple("far", "1", 44)}) {
    auto& service = world.add(id, Bytes::gib(gib));
    service.gpu.devices = {device};
    auto& unit = world.thought.snapshot.units[service.unit_name()];
    unit.name = service.unit_name();
    unit.exists = true;
    unit.active = ActiveState::active;
    unit.pids = {world.next_pid++};
    world.thought.snapshot.services[id].residency = Residency::starting;
  }
  world.want({"near", "far"});
  world.thought.knowledge.settings.vram_margin = Bytes::gib(2);
  const auto foresight = foresee(world.thought);
  ASSERT_TRUE(foresight);
  EXPECT_EQ(foresight->fits, Fits::no);
  EXPECT_EQ(
      foresight->problem->message,
      "what is being started already would take 4096 MiB more than is free on GPU 1 (2048 MiB a GPU are kept free)");
}

TEST(ImaginedGpu, WhatWasMeasuredOnSuchACardCounts) {
  const auto named = [](const std::string& asked, const std::string& drivers) {
    auto gpus = *imagined_gpus({asked});
    Footprints known;
    known["chat"].measured[drivers].peak = Bytes::gib(9);
    name_as_measured(gpus, known);
    return gpus.front().name;
  };
  for (const auto& [asked, drivers] :
       std::vector<std::pair<std::string, std::string>>{{"RTX 4090=24GiB", "NVIDIA GeForce RTX 4090"},
                                                        {"rtx4090", "NVIDIA GeForce RTX 4090"},
                                                        {"H100", "NVIDIA H100 80GB HBM3"},
                                                        {"A100 80GB", "NVIDIA A100-SXM4-80GB"},
                                                        {"T4", "Tesla T4"},
                                                        {"RTX 6000 Ada", "NVIDIA RTX 6000 Ada Generation"}})
    EXPECT_EQ(named(asked, drivers), drivers);
  for (const auto& [asked, drivers] :
       std::vector<std::pair<std::string, std::string>>{{"RTX 4090", "NVIDIA GeForce RTX 4090 Laptop GPU"},
                                                        {"RTX 3080", "NVIDIA GeForce RTX 3080 Ti"},
                                                        {"A100 40GB", "NVIDIA A100-SXM4-80GB"},
                                                        {"mine=24GiB", "NVIDIA GeForce RTX 4090"}})
    EXPECT_NE(named(asked, drivers), drivers);
}

}  // namespace
}  // namespace gpumod
