#include "verbs/doctor/gather.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/folder_testing.h"
#include "verbs/doctor/fix.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(DriverAnswer, IsWhatGpuListSays) {
  const auto answer = driver_answer_in(
      R"({"driver":"580.65.06","gpus":[{"index":0,"name":"A","persistence":true},{"index":1,"name":"B","persistence":null}],"missing":[{"index":2,"problem":"lost"}]})");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->version, "580.65.06");
  ASSERT_EQ(answer->cards.size(), 2u);
  EXPECT_EQ(answer->cards[0].persistence, true);
  EXPECT_EQ(answer->cards[1].index, 1);
  EXPECT_EQ(answer->cards[1].persistence, std::nullopt);
  ASSERT_EQ(answer->missing.size(), 1u);
  EXPECT_EQ(answer->missing[0].problem, "lost");
}

TEST(DriverAnswer, AnErrorStaysOneWithItsHint) {
  const auto answer =
      driver_answer_in(R"({"error":{"code":"environment","message":"no driver","hint":"Install it","details":null}})");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().message, "no driver");
  EXPECT_EQ(answer.error().hint, "Install it");
  EXPECT_FALSE(driver_answer_in("Segmentation fault"));
  EXPECT_FALSE(driver_answer_in("[]"));
}

TEST(Program, OfAVirtualEnvironmentIsKnownByItsFolder) {
  const TestFolder folder;
  const auto vllm = folder.program("venv/bin/vllm", "#!/bin/sh\n");
  EXPECT_EQ(program_facts(vllm).environment, "");
  folder.write("venv/pyvenv.cfg", "version = 3.11.2\n");
  fs::create_directories(folder / "venv/lib/python3.11/site-packages");
  folder.program("usr/bin/python3.13", "");
  fs::create_symlink(folder / "usr/bin/python3.13", folder / "venv/bin/python");
  const auto facts = program_facts(vllm);
  EXPECT_EQ(facts.environment, (folder / "venv").string());
  EXPECT_EQ(facts.environment_python, "python3.13");
  EXPECT_THAT(facts.packages_for, ElementsAre("python3.11"));
  EXPECT_FALSE(facts.problem);
  fs::remove(folder / "usr/bin/python3.13");
  EXPECT_TRUE(program_facts(vllm).environment_lost());
}

TEST(Fixes, AModeIsOnlyEverTightened) {
  const TestFolder folder;
  const auto file = folder.write("keys.env", "A=b\n");
  fs::permissions(file, fs::perms(0640));
  const Fix fix{Fix::Kind::restrict_mode, file.string(), 0600};
  ASSERT_TRUE(carry_out(fix, ""));
  EXPECT_EQ(fs::status(file).permissions(), fs::perms(0600));
  fs::permissions(file, fs::perms(0400));
  ASSERT_TRUE(carry_out(fix, ""));
  EXPECT_EQ(fs::status(file).permissions(), fs::perms(0400));
}

TEST(Fixes, ALinkIsNotFollowed) {
  const TestFolder folder;
  const auto other = folder.write("other", "");
  fs::permissions(other, fs::perms(0644));
  fs::create_symlink(other, folder / "keys.env");
  const Fix fix{Fix::Kind::restrict_mode, (folder / "keys.env").string(), 0600};
  EXPECT_FALSE(carry_out(fix, ""));
  EXPECT_EQ(fs::status(other).permissions(), fs::perms(0644));
}

TEST(Fixes, AFolderIsMadeForItsOwnerAlone) {
  const TestFolder folder;
  const Fix fix{Fix::Kind::make_folder, (folder / "a/b").string(), 0700};
  ASSERT_TRUE(carry_out(fix, ""));
  EXPECT_EQ(fs::status(folder / "a/b").permissions(), fs::perms(0700));
}

TEST(Fixes, LingeringIsAskedOfLogind) {
  const Fix fix{Fix::Kind::enable_linger, "ann", 0};
  const auto done = carry_out(fix, "unix:path=/nonexistent/bus");
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("system bus"));
}

}  // namespace
}  // namespace gpumod
