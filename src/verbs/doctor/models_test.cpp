#include "verbs/doctor/models.h"

#include <atomic>
#include <future>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verbs/doctor/fix.h"

namespace gpumod {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// A disk that does not answer before the test is over. What hangs in it holds all that it needs itself.
class DeadDisk {
 public:
  ~DeadDisk() { over_.set_value(); }
  std::function<void()> hang() const {
    return [asked = asked_, ended = ended_] {
      ++*asked;
      ended.wait();
    };
  }
  int asked() const { return *asked_; }

 private:
  std::promise<void> over_;
  std::shared_future<void> ended_ = over_.get_future().share();
  std::shared_ptr<std::atomic<int>> asked_ = std::make_shared<std::atomic<int>>(0);
};

ModelToFind model_on(const std::string& disk, const std::string& id) {
  ModelToFind wanted;
  wanted.service.id = id;
  wanted.near = std::filesystem::path(disk) / (id + ".gguf");
  wanted.on = {disk, disk == "/" ? "ext4" : "nfs4"};
  return wanted;
}

WeightsFacts found_at(const std::filesystem::path& path) {
  WeightsFacts model;
  model.path = path;
  model.size = Bytes::gib(1);
  model.disk = DiskFacts();
  return model;
}

TEST(DoctorModels, ADeadDiskIsAskedOnceAndTakesOneThread) {
  const DeadDisk dead;
  std::vector<ModelToFind> wanted;
  for (int i = 0; i < 30; ++i)
    wanted.push_back(model_on("/mnt/nas", "far" + std::to_string(i)));
  wanted.push_back(model_on("/", "near"));
  const LookForModel look = [hang = dead.hang()](const ModelToFind& one) -> std::optional<WeightsFacts> {
    if (one.on.point != "/mnt/nas") return found_at(one.near);
    hang();
    return std::nullopt;
  };
  Loop loop;
  const auto began = now();
  const auto models = loop.run_until_done(find_models(loop, wanted, look, 200ms));
  EXPECT_LT(now() - began, 20s);
  EXPECT_EQ(dead.asked(), 1);
  ASSERT_EQ(models.size(), 31U);
  for (int i = 0; i < 30; ++i) {
    ASSERT_FALSE(models[i].disk) << i;
    EXPECT_THAT(models[i].disk.error().message, HasSubstr("did not answer within"));
    EXPECT_EQ(models[i].remote, "nfs4");
    EXPECT_THAT(models[i].services, ElementsAre("far" + std::to_string(i)));
  }
  EXPECT_TRUE(models[30].disk);
  EXPECT_EQ(models[30].size, Bytes::gib(1));
  EXPECT_EQ(models[30].remote, "");
}

TEST(DoctorModels, ADiskThatIsOnlySlowIsGivenItsTimeAndNoMore) {
  std::vector<ModelToFind> wanted;
  for (int i = 0; i < 40; ++i)
    wanted.push_back(model_on("/", std::to_string(i)));
  const LookForModel look = [](const ModelToFind& one) -> std::optional<WeightsFacts> {
    std::this_thread::sleep_for(50ms);  // the disk, not a wait of ours
    return found_at(one.near);
  };
  Loop loop;
  const auto began = now();
  const auto models = loop.run_until_done(find_models(loop, wanted, look, 300ms));
  EXPECT_LT(now() - began, 2s) << "all forty would take as long";
  EXPECT_TRUE(models.front().disk);
  EXPECT_FALSE(models.back().disk);
}

TEST(DoctorModels, ServicesOfOnePlaceAreOneEntry) {
  auto other = model_on("/", "b");
  other.near = "/a.gguf";
  const LookForModel look = [](const ModelToFind& one) -> std::optional<WeightsFacts> {
    if (one.service.id == "c") return std::nullopt;
    return found_at(one.near);
  };
  Loop loop;
  const auto models =
      loop.run_until_done(find_models(loop, {model_on("/", "a"), other, model_on("/", "c")}, look, 20s));
  ASSERT_EQ(models.size(), 1U);
  EXPECT_THAT(models[0].services, ElementsAre("a", "b"));
}

TEST(DoctorFixes, OneThatHangsIsSaidAndKeepsNothingElseWaiting) {
  const DeadDisk dead;
  Check check{"disk.folders", "Disk", "Folders", ""};
  check.fixes = {{Fix::Kind::make_folder, "/mnt/nas/a", 0700}, {Fix::Kind::make_folder, "/home/b", 0700}};
  const auto hand = [hang = dead.hang()](const Fix& fix) -> Result<void> {
    if (fix.subject == "/mnt/nas/a") hang();
    return {};
  };
  Loop loop;
  const auto fixed = loop.run_until_done(carry_out_all(loop, {check}, hand, 200ms));
  ASSERT_EQ(fixed.size(), 2U);
  EXPECT_EQ(fixed[0].at("done"), false);
  EXPECT_THAT(std::string(fixed[0].at("problem").as_string()), HasSubstr("did not come back within"));
  EXPECT_EQ(fixed[1].at("done"), true);
}

}  // namespace
}  // namespace gpumod
