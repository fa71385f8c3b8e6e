#include "host/cgroup.h"

#include <ctime>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "host/local_testing.h"
#include "host/processes.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
using testing::ChildProcess;
using ::testing::Contains;
using ::testing::IsEmpty;

TEST(CgroupMounts, FindsTheHybridHostsMount) {
  const auto mounts = cgroup_mounts_in(
      "30 23 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n"
      "31 30 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
      "32 30 0:28 / /sys/fs/cgroup/unified rw,relatime shared:10 master:2 - cgroup2 cgroup2 rw,nsdelegate\n");
  ASSERT_EQ(mounts.size(), 1u);
  EXPECT_EQ(mounts[0].mount_point, "/sys/fs/cgroup/unified");
  EXPECT_EQ(mounts[0].root, "/");
}

TEST(CgroupMounts, PrefersAWholeHierarchyAndTheNewest) {
  const auto mounts = cgroup_mounts_in(
      "1 0 0:1 / /first rw - cgroup2 none rw\n"
      "2 0 0:1 /user.slice /part\\040of\\040it rw - cgroup2 none rw\n"
      "3 0 0:1 / /second rw - cgroup2 none rw\n"
      "broken line\n");
  ASSERT_EQ(mounts.size(), 3u);
  EXPECT_EQ(mounts[0].mount_point, "/second");
  EXPECT_EQ(mounts[1].mount_point, "/first");
  EXPECT_EQ(mounts[2].mount_point, "/part of it");
}

TEST(CgroupMounts, MapPathsToDirectories) {
  const CgroupMount whole{"/cg", "/"};
  EXPECT_EQ(directory_under(whole, "/"), "/cg");
  EXPECT_EQ(directory_under(whole, "/a/b.service"), "/cg/a/b.service");
  EXPECT_EQ(directory_under(whole, ""), std::nullopt);
  EXPECT_EQ(directory_under(whole, "/../elsewhere"), std::nullopt) << "outside of our namespace";
  const CgroupMount part{"/cg", "/user.slice"};
  EXPECT_EQ(directory_under(part, "/user.slice/x"), "/cg/x");
  EXPECT_EQ(directory_under(part, "/user.slice"), "/cg");
  EXPECT_EQ(directory_under(part, "/system.slice/x"), std::nullopt);
  EXPECT_EQ(directory_under(part, "/user.slice2/x"), std::nullopt);
  EXPECT_EQ(directory_under(CgroupMount{"/cg", "/../.."}, "/x"), std::nullopt);
}

TEST(ControlGroup, IsReadFromTheUnifiedLine) {
  EXPECT_EQ(control_group_in("12:memory:/other\n0::/user.slice/a.service\n"), "/user.slice/a.service");
  EXPECT_EQ(control_group_in("0::/gone.service (deleted)\n"), "/gone.service");
  EXPECT_EQ(control_group_in("4:memory:/legacy\n"), "");
}

TEST(UnitOfCgroup, IsTheInnermostService) {
  EXPECT_EQ(unit_of_cgroup("/user.slice/user-1000.slice/user@1000.service/app.slice/gpumod-chat.service"),
            "gpumod-chat.service");
  EXPECT_EQ(unit_of_cgroup("/user.slice/user@1000.service/app.slice/x.service/worker/1"), "x.service");
  EXPECT_EQ(unit_of_cgroup("/system.slice/dev-disk\\x2dby.service"), "dev-disk\\x2dby.service");
  EXPECT_EQ(unit_of_cgroup("/user.slice/session-2.scope"), "");
  EXPECT_EQ(unit_of_cgroup("/.service"), "");
  EXPECT_EQ(unit_of_cgroup(""), "");
}

TEST(GroupOfUnit, EndsInTheUnitItself) {
  const std::string unit = "/user.slice/user@7.service/app.slice/x.service";
  EXPECT_EQ(group_of_unit(unit, "x.service"), unit);
  EXPECT_EQ(group_of_unit(unit + "/worker/1", "x.service"), unit);
  EXPECT_EQ(group_of_unit(unit + "/x.service", "x.service"), unit);
  EXPECT_EQ(group_of_unit("/app.slice/x.service.d/x.service", "x.service"), "/app.slice/x.service.d/x.service");
  EXPECT_EQ(group_of_unit(unit, "y.service"), "");
  EXPECT_EQ(group_of_unit("/app.slice/xx.service", "x.service"), "");
  EXPECT_EQ(group_of_unit("", "x.service"), "");
}

/// A cgroup of our own. In most containers the hierarchy is read-only or not mounted, and then nothing can stand in for it:
/// these are skipped there, and say why. The e2e tests under a real systemd see the same code with real units.
class RealCgroup : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto root = cgroup_root();
    if (!root) GTEST_SKIP() << "not run: " << root.error().message;
    group_ = fmt::format("/gpumod-test-{}.service", ::getpid());
    const auto directory = cgroup_directory(group_);
    if (!directory) GTEST_SKIP() << "not run: " << directory.error().message;
    directory_ = *directory;
    std::error_code problem;
    if (!fs::create_directories(directory_ / "inner", problem))
      GTEST_SKIP() << "not run: no right to make a cgroup here (" << problem.message() << ")";
  }
  void TearDown() override {
    if (directory_.empty()) return;
    ::rmdir((directory_ / "inner").c_str());
    ::rmdir(directory_.c_str());
  }
  static void move(pid_t pid, const fs::path& directory) { std::ofstream(directory / "cgroup.procs") << pid; }

  std::string group_;
  fs::path directory_;
};

TEST_F(RealCgroup, PidsBelowItCountAndAreJoinedToTheUnit) {
  EXPECT_THAT(cgroup_pids(group_), IsEmpty());
  ChildProcess child({"/bin/sleep", "1000"});
  move(child.pid(), directory_ / "inner");
  EXPECT_THAT(cgroup_pids(group_), ::testing::ElementsAre(child.pid()));
  const auto members = cgroup_members({"", group_ + "x", group_, group_ + "/inner"});
  ASSERT_EQ(members.size(), 4u);
  EXPECT_THAT(members[0].pids, IsEmpty());
  EXPECT_EQ(members[1].id, 0u);
  EXPECT_THAT(members[2].pids, ::testing::ElementsAre(child.pid()));
  EXPECT_THAT(members[3].pids, ::testing::ElementsAre(child.pid()));
  EXPECT_NE(members[2].id, members[3].id);
  EXPECT_EQ(control_group_of(child.pid()), group_ + "/inner");
  const auto units = units_of_pids({child.pid(), ::getpid(), 999999999});
  EXPECT_THAT(units, ::testing::ElementsAre(std::pair<const pid_t, std::string>(child.pid(), group_.substr(1))));
}

TEST_F(RealCgroup, EmptinessIsAnEvent) {
  Loop loop;
  ChildProcess child({"/bin/sleep", "1000"});
  move(child.pid(), directory_ / "inner");
  const std::clock_t before = std::clock();
  const auto still = loop.run_until_done(wait_cgroup_empty(group_, now() + 300ms));
  ASSERT_TRUE(still) << still.error().message;
  EXPECT_FALSE(*still);
  EXPECT_LT(std::clock() - before, CLOCKS_PER_SEC / 10) << "it waited by asking again and again";
  loop.post([&] { ::kill(child.pid(), SIGKILL); });
  const auto empty = loop.run_until_done(wait_cgroup_empty(group_, now() + testing::patience));
  ASSERT_TRUE(empty) << empty.error().message;
  EXPECT_TRUE(*empty);
}

TEST_F(RealCgroup, AMissingCgroupIsEmptyAndTheRootNever) {
  Loop loop;
  const auto missing = loop.run_until_done(wait_cgroup_empty(group_ + "x", now()));
  ASSERT_TRUE(missing);
  EXPECT_TRUE(*missing);
  EXPECT_FALSE(loop.run_until_done(wait_cgroup_empty("/", now())));
  EXPECT_FALSE(loop.run_until_done(wait_cgroup_empty("", now())));
}

}  // namespace
}  // namespace gpumod
