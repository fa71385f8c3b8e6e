#include "fit/alternatives.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fit/claim.h"
#include "fit/facts_testing.h"
#include "fit/llama_flags.h"
#include "fit/vllm_flags.h"
#include "fit/what_if.h"

namespace gpumod {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using Kind = Change::Kind;

const std::vector<GpuSample> one_gpu{{0, "GPU-0", "A", Bytes::gib(24), Bytes::gib(24), {}}};

struct Chat {
  ModelFacts facts = model_of_8b();
  Service service;
  Footprint known;
  Subject subject;

  Bytes claim() const { return *claim_of(service, known, one_gpu.front()).bytes; }

  explicit Chat(const std::string& id = "chat") {
    service.id = id;
    service.engine = EngineKind::llamacpp;
    LlamaOptions options;
    options.context_size = 32768;
    service.options = options;
    LlamaFlags flags;
    flags.context = 32768;
    known.estimated = *estimated_memory(facts, flags);
    subject = {&service, &known, &facts, flags, {}, false};
  }
  Chat(const Chat&) = delete;
};

/// They fit when they are together no larger than this.
struct Room {
  std::vector<const Subject*> subjects;
  Bytes room;
  mutable int asked = 0;

  Bytes taken(const std::vector<Change>& changes) const {
    Bytes sum;
    for (const auto* subject : subjects) {
      const bool gone = std::any_of(changes.begin(), changes.end(), [&](const Change& change) {
        return change.service == subject->service->id && (change.kind == Kind::drop || change.kind == Kind::sleep);
      });
      if (gone) continue;
      const auto changed = *with_changes(*subject, changes);
      sum += *claim_of(changed.service, changed.known, one_gpu.front()).bytes;
    }
    return sum;
  }
  bool operator()(const std::vector<Change>& changes) const {
    ++asked;
    return taken(changes) <= room;
  }
};

std::vector<Ladder> all_ladders(const std::vector<const Subject*>& subjects) {
  std::vector<Ladder> ladders;
  for (const auto* subject : subjects)
    for (auto& ladder : ladders_for(*subject, one_gpu))
      ladders.push_back(std::move(ladder));
  return ladders;
}

TEST(Alternatives, EveryOneWasTriedAndFitsAndTheLeastLossComesFirst) {
  const Chat chat;
  for (const int missing : {100, 1000, 2000, 3500, 5000}) {
    SCOPED_TRACE(missing);
    const Room room{{&chat.subject}, chat.claim() - Bytes::mib(missing)};
    ASSERT_FALSE(room({}));
    const auto found = find_alternatives(all_ladders({&chat.subject}), std::ref(room), 10);
    ASSERT_FALSE(found.empty());
    double before = 0;
    for (const auto& alternative : found) {
      EXPECT_LE(room.taken(alternative.changes), room.room);
      EXPECT_GE(alternative.loss, before);
      before = alternative.loss;
    }
  }
}

TEST(Alternatives, TheMildestRungThatFitsIsTaken) {
  const Chat chat;
  const Room room{{&chat.subject}, chat.claim() - Bytes::mib(1500)};
  const auto found = find_alternatives(all_ladders({&chat.subject}), std::ref(room), 10);
  std::vector<std::int64_t> contexts;
  for (const auto& each : found)
    if (each.changes.front().kind == Kind::context) contexts.push_back(*each.changes.front().context);
  EXPECT_THAT(contexts, ElementsAre(16384)) << "24576 gives back 1 GiB, 16384 gives back 2";
  EXPECT_EQ(found.front().changes.front().kind, Kind::cache_type);
  EXPECT_EQ(found.front().changes.front().text, "keep the keys and values of 'chat' as q8_0 instead of f16");
}

TEST(Alternatives, AContextIsNeverChangedWithoutBeingSaid) {
  const Chat chat;
  for (const auto& ladder : all_ladders({&chat.subject}))
    for (const auto& rung : ladder.rungs) {
      const auto changed = with_changes(chat.subject, {rung});
      ASSERT_TRUE(changed);
      const auto tokens = changed->service.llama()->context_size.value_or(0);
      if (rung.kind != Kind::context) {
        EXPECT_EQ(tokens, 32768) << rung.text;
        continue;
      }
      EXPECT_LT(tokens, 32768);
      EXPECT_THAT(rung.text, AllOf(HasSubstr(std::to_string(tokens)), HasSubstr("32768")));
      EXPECT_EQ(rung.edit, "context_size: " + std::to_string(tokens));
    }
}

TEST(Alternatives, WhatWasMeasuredWithOtherSettingsDoesNotCount) {
  Chat chat;
  chat.known.measured["A"].peak = Bytes::mib(20000);
  chat.service.vram = Bytes::mib(20000);
  ASSERT_EQ(chat.claim(), Bytes::mib(20000));
  Change half;
  half.service = "chat";
  half.context = 16384;
  const auto changed = with_changes(chat.subject, {half});
  const auto claim = claim_of(changed->service, changed->known, one_gpu.front());
  EXPECT_EQ(claim.source, ClaimSource::estimated);
  EXPECT_LT(*claim.bytes, Bytes::mib(10000)) << "nor does what was declared with them";
  for (const auto& ladder : all_ladders({&chat.subject}))
    EXPECT_THAT(ladder.rungs.front().edit, HasSubstr("; and remove vram:")) << ladder.rungs.front().text;
  half.service = "somebody else";
  EXPECT_EQ(with_changes(chat.subject, {half})->known.measured.at("A").peak, Bytes::mib(20000));
  Change elsewhere;
  elsewhere.kind = Kind::gpu;
  elsewhere.service = "chat";
  elsewhere.device = "GPU-1";
  EXPECT_EQ(with_changes(chat.subject, {elsewhere})->known.measured.size(), 1U) << "on another GPU it is the same";
}

TEST(Alternatives, AnotherQuantizationOfTheSameModel) {
  Chat chat;
  const auto small = model_of_8b(Bytes::mib(110), "/models/m-Q4_K_M.gguf"),
             large = model_of_8b(Bytes::mib(400), "/m-F16.gguf");
  chat.subject.others = {&large, &small};
  const Room room{{&chat.subject}, chat.claim() - Bytes::mib(2500)};
  const auto found = find_alternatives(all_ladders({&chat.subject}), std::ref(room), 10);
  const auto is_quantization = [](const Alternative& each) { return each.changes.front().kind == Kind::quantization; };
  ASSERT_EQ(std::count_if(found.begin(), found.end(), is_quantization), 1);
  const auto& change = std::find_if(found.begin(), found.end(), is_quantization)->changes.front();
  EXPECT_EQ(change.text, "run 'chat' from m-Q4_K_M.gguf instead of m-Q8_0.gguf");
  EXPECT_EQ(with_changes(chat.subject, {change})->service.model.path, "/models/m-Q4_K_M.gguf");
  EXPECT_TRUE(same_model(chat.facts, small));
  auto other = small;
  other.parameters = 4'000'000'000;
  EXPECT_FALSE(same_model(chat.facts, other));
}

TEST(Alternatives, WhereNoOneIsEnoughTwoGiveWay) {
  const Chat chat("chat"), coder("coder");
  const std::vector<const Subject*> both{&chat.subject, &coder.subject};
  const Room all{both, Bytes()};
  // Less than what either can give alone, even on one layer.
  const Room room{both, Bytes::mib(9500)};
  const auto found = find_alternatives(all_ladders(both), std::ref(room), 10);
  ASSERT_FALSE(found.empty());
  for (const auto& each : found) {
    EXPECT_EQ(each.changes.size(), 2U);
    EXPECT_LE(room.taken(each.changes), room.room);
  }
}

TEST(Alternatives, NothingIsOfferedWhereNothingHelps) {
  const Chat chat;
  const Room room{{&chat.subject}, Bytes::mib(10)};
  EXPECT_THAT(find_alternatives(all_ladders({&chat.subject}), std::ref(room), 10), IsEmpty());
  EXPECT_GT(room.asked, 5);
}

TEST(Alternatives, WhoCanSleepAndWhoMayGo) {
  Chat chat;
  chat.subject.model = nullptr;
  chat.subject.flags.reset();
  EXPECT_THAT(ladders_for(chat.subject, one_gpu), IsEmpty()) << "of a model that cannot be read nothing is known";
  chat.service.sleep = SleepAbility::level2;
  chat.subject.optional = true;
  const auto ladders = ladders_for(chat.subject, one_gpu);
  ASSERT_EQ(ladders.size(), 2U);
  EXPECT_EQ(ladders[0].rungs[0].residency, Residency::sleeping2);
  EXPECT_EQ(ladders[1].rungs[0].kind, Kind::drop);
  EXPECT_GT(ladders[1].rungs[0].loss, ladders[0].rungs[0].loss);
}

TEST(Alternatives, PeoplesOwnUnitsAreNotRewritten) {
  Chat chat;
  chat.service.unit = "glm-code.service";
  EXPECT_THAT(ladders_for(chat.subject, one_gpu), IsEmpty());
}

TEST(Alternatives, OtherGpusForWhoIsBoundToOne) {
  Chat chat;
  chat.service.gpu.devices = {"0"};
  auto gpus = one_gpu;
  gpus.push_back({1, "GPU-1", "B", Bytes::gib(16), Bytes::gib(16), {}});
  const auto ladders = ladders_for(chat.subject, gpus);
  std::vector<std::string> devices;
  for (const auto& ladder : ladders)
    for (const auto& rung : ladder.rungs)
      if (rung.kind == Kind::gpu) devices.push_back(*rung.device);
  EXPECT_THAT(devices, ElementsAre("GPU-1"));
}

TEST(Alternatives, AVllmGivesBackTheShareThatItsModelDoesNotNeed) {
  Chat chat;
  chat.service.engine = EngineKind::vllm;
  VllmOptions options;
  options.gpu_memory_utilization = 0.9;
  options.max_model_len = 8192;
  chat.service.options = options;
  chat.subject.flags.reset();
  const auto ladders = ladders_for(chat.subject, one_gpu);
  const auto shares = std::find_if(ladders.begin(), ladders.end(),
                                   [](const Ladder& ladder) { return ladder.rungs[0].kind == Kind::share; });
  ASSERT_NE(shares, ladders.end());
  EXPECT_DOUBLE_EQ(*shares->rungs.front().utilization, 0.85);
  for (const auto& rung : shares->rungs) {
    const auto changed = with_changes(chat.subject, {rung})->service;
    EXPECT_EQ(estimate_vllm(chat.facts, *vllm_flags_of(changed, {}, Bytes::gib(24)))->fits, true) << rung.text;
  }
  EXPECT_LT(shares->rungs.back().utilization, 0.6);
}

std::set<Kind> kinds_of(const Subject& subject) {
  std::set<Kind> kinds;
  for (const auto& ladder : ladders_for(subject, one_gpu))
    kinds.insert(ladder.rungs.front().kind);
  return kinds;
}

TEST(Alternatives, WhatItsArgumentsSayThemselvesIsNotOfferedInItsFile) {
  Chat chat;
  ASSERT_TRUE(kinds_of(chat.subject).contains(Kind::context));
  ASSERT_TRUE(kinds_of(chat.subject).contains(Kind::layers));
  chat.subject.words = {"-c", "32768", "-ngl", "99"};
  chat.subject.flags = *llama_flags_of(chat.service, chat.subject.words);
  const auto kinds = kinds_of(chat.subject);
  EXPECT_FALSE(kinds.contains(Kind::context)) << "-c stands behind context_size, and has the last word";
  EXPECT_FALSE(kinds.contains(Kind::layers));
  EXPECT_TRUE(kinds.contains(Kind::cache_type)) << "that goes to the end of the arguments";
}

TEST(Alternatives, OtherCachesCountBehindThoseThatItsArgumentsName) {
  Chat chat;
  chat.subject.words = chat.service.extra_args = {"-ctk", "f16", "--cache-type-v", "f16"};
  chat.subject.flags = *llama_flags_of(chat.service, chat.subject.words);
  Change narrow;
  narrow.kind = Kind::cache_type;
  narrow.service = "chat";
  narrow.cache_type = "q8_0";
  const auto changed = with_changes(chat.subject, {narrow});
  EXPECT_EQ(changed->flags->cache_k, "q8_0");
  EXPECT_EQ(changed->flags->cache_v, "q8_0");
  EXPECT_TRUE(takes_effect(chat.subject, narrow));
}

TEST(Alternatives, TheArgumentsOfAVllmCountToo) {
  Chat chat;
  chat.service.engine = EngineKind::vllm;
  VllmOptions options;
  options.gpu_memory_utilization = 0.55;
  options.max_model_len = 8192;
  chat.service.options = options;
  chat.subject.flags.reset();
  const auto first_share = [&]() -> std::optional<double> {
    for (const auto& ladder : ladders_for(chat.subject, one_gpu))
      if (ladder.rungs.front().kind == Kind::share) return ladder.rungs.front().utilization;
    return std::nullopt;
  };
  EXPECT_DOUBLE_EQ(first_share().value_or(0), 0.5) << "0.55 is what it has";
  chat.subject.words = {"--gpu-memory-utilization", "0.55", "--max-model-len", "8192"};
  EXPECT_EQ(first_share(), std::nullopt);
  EXPECT_FALSE(kinds_of(chat.subject).contains(Kind::context));
  chat.subject.words = {"--quantization", "fp8"};
  EXPECT_EQ(first_share(), std::nullopt) << "whether its model finds room in a smaller one is not known";
}

}  // namespace
}  // namespace gpumod
