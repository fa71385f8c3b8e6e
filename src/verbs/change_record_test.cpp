#include "verbs/change_record.h"

#include <thread>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "base/fd.h"
#include "base/folder_testing.h"

namespace gpumod {
namespace {

using testing::HasSubstr;

TEST(ChangeRecord, IsAddedToAndPrivate) {
  const TestFolder folder;
  const auto file = folder / "state/mcp.log";
  ASSERT_TRUE(append_record(file, {{"a", 1}}));
  ASSERT_TRUE(append_record(file, {{"b", 2}}));
  EXPECT_EQ(read_file(file, 1000).value_or(""), "{\"a\":1}\n{\"b\":2}\n");
  EXPECT_EQ(std::filesystem::status(file).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST(ChangeRecord, IsPutAwayWhenItHasGrown) {
  const TestFolder folder;
  const auto file = folder / "mcp.log", old = folder / "mcp.log.1";
  const Bytes most(20);
  for (const int number : {1, 2, 3})
    ASSERT_TRUE(append_record(file, {{"a", number}}, most));
  EXPECT_EQ(read_file(old, 1000).value_or(""), "{\"a\":1}\n{\"a\":2}\n");
  EXPECT_EQ(read_file(file, 1000).value_or(""), "{\"a\":3}\n");
  ASSERT_TRUE(append_record(file, {{"long", "longer than all that may be in the file"}}, most));
  EXPECT_EQ(read_file(old, 1000).value_or(""), "{\"a\":3}\n") << "one is kept";
  EXPECT_THAT(read_file(file, 1000).value_or(""), HasSubstr("longer"));
  for (const auto& each : {file, old})
    EXPECT_EQ(std::filesystem::status(each).permissions(),
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST(ChangeRecord, WhatCannotBePutAwayIsSaid) {
  const TestFolder folder;
  std::filesystem::create_directories(folder / "mcp.log.1");
  ASSERT_TRUE(append_record(folder / "mcp.log", {{"a", 1}}, Bytes(9)));
  const auto second = append_record(folder / "mcp.log", {{"a", 2}}, Bytes(9));
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("mcp.log"));
}

TEST(ChangeRecord, ManyWriteAtOnceAndNothingIsLost) {
  constexpr int writers = 4, each = 150;
  for (int round = 0; round < 20; ++round) {
    const TestFolder folder;
    const auto file = folder / "mcp.log";
    // It is put away once: what all of them write fills it one and a half times.
    const auto line = [](int writer, int number) { return fmt::format("{}", 1000 * (writer + 1) + number); };
    const Bytes most(writers * each * 2 / 3 * static_cast<std::int64_t>(std::string("{\"a\":\"1000\"}\n").size()));
    std::vector<std::thread> threads;
    for (int writer = 0; writer < writers; ++writer)
      threads.emplace_back([&, writer] {
        for (int number = 0; number < each; ++number)
          EXPECT_TRUE(append_record(file, {{"a", line(writer, number)}}, most));
      });
    for (auto& thread : threads)
      thread.join();
    const auto all = read_file(file, 1 << 20).value_or("") + read_file(file.string() + ".1", 1 << 20).value_or("");
    for (int writer = 0; writer < writers; ++writer)
      for (int number = 0; number < each; ++number)
        ASSERT_THAT(all, HasSubstr("{\"a\":\"" + line(writer, number) + "\"}\n"));
  }
}

}  // namespace
}  // namespace gpumod
