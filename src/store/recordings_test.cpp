#include <SQLiteCpp/SQLiteCpp.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/folder_testing.h"
#include "store/store.h"

namespace gpumod {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

struct RecordingsTest : ::testing::Test {
  static StoredSwitch about(std::int64_t id) {
    StoredSwitch stored;
    stored.id = id;
    stored.kind = "mode switch";
    stored.began = stored.ended.emplace(wall_now());
    stored.result = "committed";
    return stored;
  }
  void end_and_keep(Store& store, std::int64_t id, const std::string& recording) {
    ASSERT_TRUE(store.end_switch(about(id), std::nullopt, false));
    const auto kept = store.keep_recording(id, recording);
    ASSERT_TRUE(kept) << kept.error().message;
  }

  TestFolder scratch;
  const std::filesystem::path& folder = scratch.path();
};

TEST_F(RecordingsTest, OneIsKeptAndFoundAgain) {
  auto store = Store::open(folder).value();
  end_and_keep(store, 1, R"({"id":1})");
  const auto reading = Store::open_existing(folder).value();
  EXPECT_EQ(reading->recording(1).value(), R"({"id":1})");
  EXPECT_FALSE(reading->recording(2).value());
  EXPECT_EQ(reading->switch_of(1).value()->kind, "mode switch");
  EXPECT_FALSE(reading->switch_of(2).value());
}

TEST_F(RecordingsTest, TheOldestAreLetGoByTheirNumber) {
  auto store = Store::open(folder).value();
  for (int id = 1; id <= 203; ++id)
    end_and_keep(store, id, "{}");
  const auto ids = store.recorded().value();
  EXPECT_THAT(ids, SizeIs(200));
  EXPECT_THAT(ids, Not(Contains(3)));
  EXPECT_THAT(ids, Contains(4));
  EXPECT_THAT(store.history(500).value(), SizeIs(203)) << "the switches themselves stay";
}

TEST_F(RecordingsTest, AndByTheirBytesButNeverTheNewest) {
  auto store = Store::open(folder).value();
  const std::string big(3 << 20, 'x');
  for (int id = 1; id <= 3; ++id)
    end_and_keep(store, id, big);
  EXPECT_EQ(store.recorded().value(), (std::set<std::int64_t>{2, 3}));
  end_and_keep(store, 4, std::string(9 << 20, 'x'));
  EXPECT_EQ(store.recorded().value(), (std::set<std::int64_t>{4}));
}

TEST_F(RecordingsTest, TheJournalTellsWhatWasOrderedAndWhen) {
  auto store = Store::open(folder).value();
  Command start;
  start.kind = Command::Kind::start_unit;
  start.step = 2;
  start.attempt = 3;
  start.service = "chat";
  start.unit = "gpumod-chat.service";
  auto open = about(1);
  open.ended.reset();
  const auto before = wall_now();
  ASSERT_TRUE(store.record_commands(open, {start}));
  const auto commands = store.commands_of(1).value();
  ASSERT_THAT(commands, SizeIs(1));
  EXPECT_EQ(commands[0].step, 2);
  EXPECT_EQ(commands[0].attempt, 3);
  EXPECT_EQ(commands[0].command, "start_unit");
  EXPECT_EQ(commands[0].service, "chat");
  EXPECT_GE(commands[0].issued, before);
  EXPECT_THAT(store.commands_of(2).value(), IsEmpty());
}

TEST_F(RecordingsTest, AFileOfTheTimeBeforeRecordingsHasNoneAndGetsThem) {
  {
    auto store = Store::open(folder).value();
    end_and_keep(store, 1, "{}");
  }
  {
    SQLite::Database raw((folder / "state.db").string(), SQLite::OPEN_READWRITE);
    raw.exec("DROP INDEX open_switches");
    raw.exec("DROP TABLE recordings");
    raw.exec("PRAGMA user_version = 3");
  }
  const auto reading = Store::open_existing(folder).value();
  EXPECT_FALSE(reading->recording(1).value());
  EXPECT_THAT(reading->recorded().value(), IsEmpty());
  auto store = Store::open(folder).value();
  end_and_keep(store, 2, "{}");
  EXPECT_THAT(store.recorded().value(), SizeIs(1));
}

}  // namespace
}  // namespace gpumod
