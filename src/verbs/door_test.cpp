#include "verbs/door.h"

#include <cstdlib>
#include <filesystem>

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/folder_testing.h"
#include "control/lock.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using ::testing::HasSubstr;

/// A worker and its visitor on one loop. (The lock is one of the process's own descriptors, so it stands between them
/// all the same.)
struct DoorTest : ::testing::Test {
  DoorTest() { paths.runtime = root; }

  Result<Knocked> knock() { return loop.run_until_done(knock_and_cancel(paths)); }
  /// A worker that ends like this as soon as somebody asks it to.
  std::unique_ptr<Door> ends_with(json::object last) {
    auto opened = Door::open(loop, paths, "mode switch code", [this, last] {
      ++cancels;
      loop.spawn(door->close(last));
    });
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }

  TestFolder folder;
  const fs::path& root = folder.path();
  Paths paths;
  Loop loop;
  std::unique_ptr<Door> door;
  int cancels = 0;
};

TEST_F(DoorTest, NothingUnderWayIsNotFound) {
  const auto knocked = knock();
  ASSERT_FALSE(knocked);
  EXPECT_EQ(knocked.error().code, ErrorCode::not_found);
  EXPECT_THAT(knocked.error().message, HasSubstr("nothing is under way"));
}

TEST_F(DoorTest, TheHolderOfTheLockIsKnownWithItsWorkAndItsBeginning) {
  EXPECT_FALSE(mutation_holder(paths));
  const auto before = wall_now() - 1s;
  const auto lock = MutationLock::acquire(paths, "mode switch code");
  ASSERT_TRUE(lock);
  // Asked by the process that holds it: open file descriptions differ, so it counts as somebody else.
  const auto holder = mutation_holder(paths);
  ASSERT_TRUE(holder);
  EXPECT_EQ(holder->pid, ::getpid());
  EXPECT_EQ(holder->about, "mode switch code");
  EXPECT_GE(holder->since, before);
  EXPECT_LE(holder->since, wall_now() + 1s);
}

TEST_F(DoorTest, WhoKnocksIsToldHowItEnds) {
  const auto lock = MutationLock::acquire(paths, "mode switch code");
  ASSERT_TRUE(lock);
  door =
      ends_with(json::object{{"error", json::object{{"code", "cancelled"}, {"message", "cancelled"}, {"hint", ""}}}});
  const auto knocked = knock();
  ASSERT_TRUE(knocked) << knocked.error().message;
  EXPECT_EQ(cancels, 1);
  EXPECT_EQ(knocked->working, "mode switch code");
  EXPECT_EQ(knocked->pid, ::getpid());
  ASSERT_FALSE(knocked->outcome);
  EXPECT_EQ(knocked->outcome.error().code, ErrorCode::cancelled);
  EXPECT_FALSE(fs::exists(root / "worker.sock"));
}

TEST_F(DoorTest, WhoMeantOneThatHasEndedDoesNotTakeBackTheNext) {
  const auto lock = MutationLock::acquire(paths, "mode switch rag");
  ASSERT_TRUE(lock);
  door = ends_with(json::object{{"answer", true}});
  const auto named = loop.run_until_done(knock_and_cancel(paths, ::getpid() + 1));
  ASSERT_FALSE(named);
  EXPECT_EQ(named.error().code, ErrorCode::refused);
  EXPECT_EQ(
      named.error().message,
      fmt::format("what pid {0} did has ended, and was not taken back; now 'mode switch rag' (pid {1}) is under way",
                  ::getpid() + 1, ::getpid()));
  EXPECT_EQ(named.error().hint, fmt::format("To take that back: gpumod mode cancel --pid {}", ::getpid()));

  // Killed, and the next has the lock and its door already, but has not said yet who it is.
  folder.write("lock", "4242 mode switch code\n");
  const auto unnamed = knock();
  ASSERT_FALSE(unnamed);
  EXPECT_THAT(unnamed.error().message, HasSubstr("what pid 4242 did has ended"));
  EXPECT_EQ(cancels, 0);
  folder.write("lock", "");
  EXPECT_TRUE(loop.run_until_done(knock_and_cancel(paths, ::getpid())));
  EXPECT_EQ(cancels, 1);
}

TEST_F(DoorTest, OnlyItsOwnerMayOpenIt) {
  const auto lock = MutationLock::acquire(paths, "x");
  door = ends_with({});
  struct stat info {};
  ASSERT_EQ(::lstat((root / "worker.sock").c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 0077, 0u);
}

TEST_F(DoorTest, WhatAKilledWorkerLeftIsReplaced) {
  const auto lock = MutationLock::acquire(paths, "x");
  {
    // A socket file without anybody behind it.
    auto first = ends_with({});
    fs::rename(root / "worker.sock", root / "kept");
    first.reset();
    fs::rename(root / "kept", root / "worker.sock");
  }
  door = ends_with(json::object{{"answer", json::object{{"done", true}}}});
  const auto knocked = knock();
  ASSERT_TRUE(knocked) << knocked.error().message;
  EXPECT_TRUE(knocked->outcome->at("done").as_bool());
}

Task<bool> closed(Door& door) {
  co_await door.close({});
  co_return true;
}

TEST_F(DoorTest, WhoHasShutItsDoorLeavesThePlaceToTheNext) {
  const auto lock = MutationLock::acquire(paths, "x");
  auto first = ends_with({});
  first->shut();
  EXPECT_FALSE(fs::exists(root / "worker.sock"));
  door = ends_with(json::object{{"answer", true}});
  EXPECT_TRUE(loop.run_until_done(closed(*first)));
  EXPECT_TRUE(fs::exists(root / "worker.sock"));
  EXPECT_TRUE(knock());
}

TEST_F(DoorTest, AVeryLongDirectoryHasADoor) {
  paths.runtime = root / std::string(120, 'd') / "run";
  const auto lock = MutationLock::acquire(paths, "x");
  ASSERT_TRUE(lock) << lock.error().message;
  door = ends_with(json::object{{"answer", true}});
  EXPECT_TRUE(knock());
}

}  // namespace
}  // namespace gpumod
