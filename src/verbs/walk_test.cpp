#include "verbs/walk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verbs/tree_testing.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

struct Walked {
  std::vector<std::string> files;
  WalkOutcome outcome;
};

Walked walk(const TestTree& tree, std::vector<WalkRoot> roots, const std::string& mountinfo = {},
            WalkLimits limits = {}) {
  Walked walked;
  const auto wanted = [](std::string_view name) { return name.ends_with(".gguf"); };
  walked.outcome = walk_folders(
      roots, tree / "home", MountTable::parse(mountinfo), limits, wanted,
      [&](const WalkedFile& file) { walked.files.push_back(file.path.lexically_relative(tree.root()).string()); });
  return walked;
}

TEST(Walk, FindsWantedFilesDownToItsDepth) {
  const TestTree tree;
  tree.write("m/a.gguf", "x");
  tree.write("m/1/2/b.gguf", "x");
  tree.write("m/1/2/3/too-deep.gguf", "x");
  tree.write("m/readme.txt", "x");
  EXPECT_THAT(walk(tree, {{tree / "m", false, 2}}).files, UnorderedElementsAre("m/a.gguf", "m/1/2/b.gguf"));
}

TEST(Walk, LeavesOutHiddenFoldersButNotAHiddenRoot) {
  const TestTree tree;
  tree.write(".cache/models/a.gguf", "x");
  tree.write(".cache/models/.tmp/b.gguf", "x");
  tree.write(".cache/models/node_modules/c.gguf", "x");
  EXPECT_THAT(walk(tree, {{tree / ".cache/models"}}).files, ElementsAre(".cache/models/a.gguf"));
}

TEST(Walk, EndsInACycleAndListsEachFileOnce) {
  const TestTree tree;
  tree.write("m/sub/a.gguf", "x");
  fs::create_directory_symlink(tree / "m", tree / "m/sub/back");
  fs::create_symlink(tree / "m/sub/a.gguf", tree / "m/again.gguf");
  fs::create_symlink("nowhere", tree / "m/broken.gguf");
  const auto walked = walk(tree, {{tree / "m"}, {tree / "m/sub"}});
  EXPECT_EQ(walked.files.size(), 1U);
  EXPECT_FALSE(walked.outcome.cut_short);
}

TEST(MountTable, KnowsWhereALinkLeadsWithoutTouchingWhatIsFar) {
  const TestTree tree;
  fs::create_directories(tree / "home");
  fs::create_directory_symlink(tree / "nas/models", tree / "home/models");  // of which nothing is there
  fs::create_symlink("models/m.gguf", tree / "home/m.gguf");
  fs::create_symlink("round.gguf", tree / "home/round.gguf");
  const auto nas = (tree / "nas").string();
  const auto mounts =
      MountTable::parse("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:50 / " + nas + " rw - nfs4 server:/x rw\n");
  EXPECT_EQ(mounts.reached_by(tree / "home/models/a/b.gguf")->point, nas);
  EXPECT_EQ(mounts.reached_by(tree / "home/m.gguf")->point, nas);
  EXPECT_EQ(mounts.reached_by(tree / "home/other.gguf")->point, "/");
  EXPECT_EQ(mounts.reached_by(tree / "home/round.gguf")->point, "/");
  EXPECT_EQ(mounts.holding(tree / "home/m.gguf")->point, "/") << "by its name alone";
  EXPECT_EQ(MountTable().reached_by("/a"), nullptr);
}

TEST(Walk, FollowsLinksToOtherFolders) {
  const TestTree tree;
  tree.write("disk/big/a.gguf", "x");
  fs::create_directories(tree / "home");
  fs::create_directory_symlink(tree / "disk", tree / "home/models");
  EXPECT_THAT(walk(tree, {{tree / "home/models"}}).files, ElementsAre("home/models/big/a.gguf"));
}

TEST(Walk, DoesNotCrossIntoANetwork) {
  const TestTree tree;
  tree.write("home/models/near.gguf", "x");
  tree.write("home/models/share/far.gguf", "x");
  fs::create_directory_symlink(tree / "home/models/share", tree / "home/models/link");
  const auto mounts = fmt::format("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:40 / {} rw - nfs4 server:/x rw\n",
                                  (tree / "home/models/share").string());
  const auto walked = walk(tree, {{tree / "home/models"}}, mounts);
  EXPECT_THAT(walked.files, ElementsAre("home/models/near.gguf"));
  EXPECT_THAT(walked.outcome.avoided, testing::Contains(tree / "home/models/share"));
  // Unless people say so, or live there.
  EXPECT_THAT(walk(tree, {{tree / "home/models/share", true, 4}}, mounts).files,
              ElementsAre("home/models/share/far.gguf"));
  EXPECT_THAT(walk(tree, {{tree / "home/models/share", false, 4}}, mounts).files, IsEmpty());
  const auto on_nfs = fmt::format("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:40 / {} rw - nfs4 server:/x rw\n",
                                  (tree / "home").string());
  EXPECT_EQ(walk(tree, {{tree / "home/models"}}, on_nfs).files.size(), 2U);
}

TEST(Walk, EndsAtItsLimits) {
  const TestTree tree;
  for (int i = 0; i < 50; ++i)
    tree.write(fmt::format("m/{}/x.gguf", i), "x");
  WalkLimits few;
  few.entries = 60;
  const auto walked = walk(tree, {{tree / "m"}}, {}, few);
  EXPECT_TRUE(walked.outcome.cut_short);
  EXPECT_LT(walked.files.size(), 50U);
  WalkLimits no_time;
  no_time.time = Duration::zero();
  EXPECT_TRUE(walk(tree, {{tree / "m"}}, {}, no_time).outcome.cut_short);
}

TEST(Walk, ARootThatIsNotThereIsNotSearched) {
  const TestTree tree;
  tree.write("m/a.gguf", "x");
  EXPECT_THAT(walk(tree, {{tree / "nope"}, {tree / "m"}}).outcome.searched, ElementsAre(tree / "m"));
}

TEST(MountTable, KnowsTheInnermostMountAndEscapedNames) {
  const auto table = MountTable::parse(
      "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
      "23 22 0:5 / /proc rw - proc proc rw\n"
      "31 22 0:41 / /mnt/my\\040share rw - fuse.sshfs me@there: rw\n"
      "broken line\n");
  ASSERT_TRUE(table.holding("/home/x"));
  EXPECT_EQ(table.holding("/home/x")->type, "ext4");
  EXPECT_TRUE(table.holding("/mnt/my share/deep")->remote());
  EXPECT_EQ(table.holding("/mnt/my shared")->type, "ext4");
  EXPECT_TRUE(table.holding("/proc/self")->pseudo());
  EXPECT_EQ(MountTable().holding("/"), nullptr);
}

}  // namespace
}  // namespace gpumod
