#include "store/store.h"

#include <fstream>
#include <thread>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/folder_testing.h"

namespace {
int syncs = 0;  // so often SQLite has asked for what it wrote to be on the disk
}
// In the place of the C library's, for this program.
extern "C" int fdatasync(int file) {
  ++syncs;
  return static_cast<int>(::syscall(SYS_fdatasync, file));
}
extern "C" int fsync(int file) {
  ++syncs;
  return static_cast<int>(::syscall(SYS_fsync, file));
}

namespace gpumod {
namespace {

struct StoreTest : ::testing::Test {
  static Goal goal(const std::string& mode) {
    Goal goal;
    goal.mode = mode;
    goal.wanted["chat"] = Residency::running;
    goal.wanted["embed"] = Residency::sleeping1;
    return goal;
  }
  static StoredSwitch about(std::int64_t id) {
    StoredSwitch stored;
    stored.id = id;
    stored.kind = "mode switch";
    stored.goal = goal("code");
    stored.previous = goal("rag");
    stored.from = "rag";
    stored.boot_id = "boot";
    stored.began = wall_now();
    return stored;
  }
  static Command start(const std::string& service) {
    Command command;
    command.kind = Command::Kind::start_unit;
    command.step = 0;
    command.service = service;
    return command;
  }

  TestFolder scratch;
  const std::filesystem::path& folder = scratch.path();
};

TEST_F(StoreTest, AGoalSurvivesReopening) {
  {
    auto store = Store::open(folder).value();
    EXPECT_FALSE(store.goal().value());
    ASSERT_TRUE(store.set_goal(goal("code")));
  }
  const auto stored = Store::open(folder).value().goal().value();
  ASSERT_TRUE(stored);
  EXPECT_EQ(stored->mode, "code");
  EXPECT_EQ(stored->wanted, goal("code").wanted);
  EXPECT_TRUE(stored->exclusive);
}

TEST_F(StoreTest, TheFileIsForItsOwnerAlone) {
  auto store = Store::open(folder / "deeper").value();
  struct stat info {};
  ASSERT_EQ(::stat((folder / "deeper/state.db").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(::stat((folder / "deeper").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(StoreTest, ASwitchThatNeverEndedIsFoundAgain) {
  auto store = Store::open(folder).value();
  EXPECT_EQ(store.next_switch_id().value(), 1);
  auto stored = about(1);
  stored.mutated = true;
  ASSERT_TRUE(store.record_commands(stored, {start("chat")}));
  stored.failure = "it broke";
  ASSERT_TRUE(store.record_commands(stored, {start("embed")}));

  auto other = Store::open(folder).value();
  const auto left = other.unfinished().value();
  ASSERT_TRUE(left);
  EXPECT_EQ(left->id, 1);
  EXPECT_TRUE(left->mutated);
  EXPECT_EQ(left->failure, "it broke");
  EXPECT_EQ(left->goal.mode, "code");
  EXPECT_EQ(left->previous.mode, "rag");
  EXPECT_EQ(other.next_switch_id().value(), 2);
}

TEST_F(StoreTest, EndingStoresTheGoalInTheSameBreath) {
  auto store = Store::open(folder).value();
  auto stored = about(1);
  stored.mutated = true;
  ASSERT_TRUE(store.record_commands(stored, {start("chat")}));
  stored.result = "committed";
  stored.ended = wall_now();
  stored.report = "{}";
  ASSERT_TRUE(store.end_switch(stored, goal("code"), false));
  EXPECT_FALSE(store.unfinished().value());
  EXPECT_EQ(store.goal().value()->mode, "code");
  EXPECT_EQ(store.history(10).value().front().result, "committed");
}

TEST_F(StoreTest, ATakenOverSwitchIsClosedAndTheNewOneStaysOpen) {
  auto store = Store::open(folder).value();
  ASSERT_TRUE(store.record_commands(about(1), {start("chat")}));
  ASSERT_TRUE(store.record_commands(about(2), {start("chat")}));
  auto ended = about(2);
  ended.ended = wall_now();
  ended.result = "failed";
  ASSERT_TRUE(store.end_switch(ended, std::nullopt, false));
  EXPECT_EQ(store.unfinished().value()->id, 1);
  ended.id = 3;
  ended.result = "committed";
  ASSERT_TRUE(store.end_switch(ended, std::nullopt, true));
  EXPECT_FALSE(store.unfinished().value());
  EXPECT_EQ(store.history(10).value().back().result, "interrupted");
}

TEST_F(StoreTest, OldSwitchesAreLetGoWithTheirCommandsButNotWhatIsOpenOrRecorded) {
  auto store = Store::open(folder).value();
  ASSERT_TRUE(store.set_durable(false));
  const auto ends = [&](std::int64_t id) {
    auto ended = about(id);
    ended.ended = wall_now();
    ended.result = "committed";
    ASSERT_TRUE(store.record_commands(ended, {start("chat")}));
    ASSERT_TRUE(store.end_switch(ended, std::nullopt, false));
  };
  ASSERT_TRUE(store.record_commands(about(1), {start("chat")}));  // cut short, and never dealt with
  for (std::int64_t id = 2; id <= 1003; ++id) {
    ends(id);
    if (id == 2) {
      ASSERT_TRUE(store.keep_recording(2, "{}"));
    }
  }
  EXPECT_TRUE(store.switch_of(1).value());
  EXPECT_TRUE(store.switch_of(2).value());
  EXPECT_FALSE(store.switch_of(3).value());
  EXPECT_TRUE(store.switch_of(4).value());
  EXPECT_EQ(store.history(2000).value().size(), 1002u);
  EXPECT_EQ(store.commands_of(1).value().size(), 1u);
  EXPECT_TRUE(store.commands_of(3).value().empty());
  EXPECT_EQ(store.commands_of(4).value().size(), 1u);
  EXPECT_EQ(store.next_switch_id().value(), 1004);
}

TEST_F(StoreTest, OpenSwitchesAreFoundWithoutReadingTheHistory) {
  (void)Store::open(folder).value();
  SQLite::Database raw((folder / "state.db").string(), SQLite::OPEN_READONLY);
  for (const char* question : {"SELECT count(*) FROM switches WHERE ended IS NULL",
                               "SELECT report FROM switches WHERE ended IS NULL ORDER BY id DESC LIMIT 1"}) {
    SQLite::Statement plan(raw, std::string("EXPLAIN QUERY PLAN ") + question);
    ASSERT_TRUE(plan.executeStep());
    EXPECT_THAT(plan.getColumn(3).getString(), testing::HasSubstr("open_switches"));
    EXPECT_FALSE(plan.executeStep()) << "nothing is sorted";
  }
}

TEST_F(StoreTest, ACorruptFileIsMovedAsideAndSaid) {
  {
    std::ofstream(folder / "state.db") << "this is not a database, and it is long enough to be looked at as one: "
                                       << std::string(4096, 'x');
  }
  auto store = Store::open(folder).value();
  EXPECT_THAT(store.notice(), testing::HasSubstr("state.db.corrupt-"));
  EXPECT_TRUE(store.set_goal(goal("code")));
  int aside = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().string().find(".corrupt-") != std::string::npos) ++aside;
  EXPECT_EQ(aside, 1);
}

/// Puts garbage over everything behind the first page, as a failing disk might.
void damage(const std::filesystem::path& file) {
  const auto size = std::filesystem::file_size(file);
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(4096);
  stream << std::string(size - 4096, '\x5a');
}

TEST_F(StoreTest, ADamagedPageIsFoundOnOpeningAndNotInTheMiddleOfASwitch) {
  {
    auto store = Store::open(folder).value();
    ASSERT_TRUE(store.set_goal(goal("code")));
    ASSERT_TRUE(store.record_commands(about(1), {start("chat")}));
  }
  damage(folder / "state.db");
  const auto before = std::filesystem::file_size(folder / "state.db");
  {
    const auto reading = Store::open_existing(folder).value();
    ASSERT_TRUE(reading);
    EXPECT_THAT(reading->notice(), testing::HasSubstr("unreadable"));
    EXPECT_FALSE(reading->goal().value());
    EXPECT_FALSE(reading->unfinished().value());
    EXPECT_TRUE(reading->history(5).value().empty());
    EXPECT_TRUE(reading->knows_nothing().value());
  }
  EXPECT_EQ(std::filesystem::file_size(folder / "state.db"), before) << "a reader moves nothing";

  auto store = Store::open(folder).value();
  EXPECT_THAT(store.notice(), testing::HasSubstr("state.db.corrupt-"));
  EXPECT_TRUE(store.knows_nothing().value());
  EXPECT_TRUE(store.record_commands(about(1), {start("chat")}));
}

TEST_F(StoreTest, ItKnowsNothingUntilAGoalIsStoredOrASwitchBegun) {
  auto store = Store::open(folder).value();
  EXPECT_TRUE(store.knows_nothing().value());
  ASSERT_TRUE(store.record_commands(about(1), {start("chat")}));
  EXPECT_FALSE(store.knows_nothing().value());
}

TEST_F(StoreTest, ReadingCreatesNothing) {
  EXPECT_FALSE(Store::open_existing(folder).value());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  ASSERT_TRUE(Store::open(folder).value().set_goal(goal("code")));
  auto reading = Store::open_existing(folder).value();
  ASSERT_TRUE(reading);
  EXPECT_EQ(reading->goal().value()->mode, "code");
  EXPECT_FALSE(reading->set_goal(goal("rag")));
}

/// Killed in the middle of a transaction, while the file was not yet a WAL database.
void die_while_making(const std::filesystem::path& file) {
  const pid_t child = ::fork();
  if (child == 0) {
    SQLite::Database database(file.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    database.exec("CREATE TABLE begun (text)");
    database.exec("PRAGMA cache_size = 1");  // so that the file itself is written to before the end
    database.exec("BEGIN IMMEDIATE");
    for (int row = 0; row < 100; ++row)
      database.exec("INSERT INTO begun VALUES (hex(randomblob(1000)))");
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
}

TEST_F(StoreTest, AFileWhoseMakerDiedKnowsNothingAndIsMadeByTheNextWriter) {
  die_while_making(folder / "state.db");
  ASSERT_TRUE(std::filesystem::exists(folder / "state.db-journal"));
  const auto read = Store::open_existing(folder);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_FALSE(*read);
  EXPECT_TRUE(std::filesystem::exists(folder / "state.db-journal")) << "a reader mends nothing";
  {
    auto store = Store::open(folder);
    ASSERT_TRUE(store) << store.error().message;
    EXPECT_EQ(store->notice(), "");
    ASSERT_TRUE(store->set_goal(goal("code")));
  }
  EXPECT_EQ(Store::open_existing(folder).value()->goal().value()->mode, "code");
}

TEST_F(StoreTest, AFileInThePlaceOfTheDirectoryIsNoNewState) {
  std::ofstream(folder / "file") << "x";
  const auto read = Store::open_existing(folder / "file");
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ErrorCode::environment);
  EXPECT_THAT(read.error().message, testing::HasSubstr((folder / "file").string()));
  EXPECT_THAT(read.error().hint, testing::HasSubstr("GPUMOD_STATE_DIR"));
}

TEST_F(StoreTest, ADirectoryThatCannotBeWrittenIsSaid) {
  std::ofstream(folder / "file") << "x";
  const auto store = Store::open(folder / "file" / "state");
  ASSERT_FALSE(store);
  EXPECT_THAT(store.error().message, testing::HasSubstr((folder / "file").string()));
}

Measurement run(const std::string& subject, const std::string& key, std::int64_t peak_mib) {
  Measurement measured;
  measured.subject = subject;
  measured.key = key;
  measured.gpu = "A card";
  measured.at = WallTime(std::chrono::microseconds(peak_mib));
  measured.peak = Bytes::mib(peak_mib);
  measured.steady[Residency::sleeping1] = Bytes::mib(900);
  measured.phases[Phase::ready] = 1500ms;
  return measured;
}

TEST_F(StoreTest, WhatWasMeasuredIsFoundUnderItsKeyOnly) {
  {
    auto store = Store::open(folder).value();
    ASSERT_TRUE(store.remember({run("chat", "k1", 100), run("embed", "k1", 200)}));
    ASSERT_TRUE(store.remember({run("chat", "k1", 300)}));
  }
  const auto store = Store::open_existing(folder).value();
  const auto found = store->remembered({{"chat", "k1"}});
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].peak, Bytes::mib(300)) << "the newest first";
  EXPECT_EQ(found[1].peak, Bytes::mib(100));
  EXPECT_EQ(found[0].gpu, "A card");
  EXPECT_EQ(found[0].at.time_since_epoch().count(), 300);
  EXPECT_EQ(found[0].steady.at(Residency::sleeping1), Bytes::mib(900));
  EXPECT_EQ(found[0].phases.at(Phase::ready), 1500ms);
  EXPECT_TRUE(store->remembered({{"chat", "k2"}}).empty());
}

TEST_F(StoreTest, OldMeasurementsAreLetGoOf) {
  auto store = Store::open(folder).value();
  for (int i = 1; i <= 25; ++i)
    ASSERT_TRUE(store.remember({run("chat", "k", i), run("embed", "k", i)}));
  const auto kept = store.remembered({{"chat", "k"}});
  ASSERT_EQ(kept.size(), 20u);
  EXPECT_EQ(kept.back().peak, Bytes::mib(6));
  EXPECT_EQ(store.remembered({{"embed", "k"}}).size(), 20u);
  for (int i = 1; i <= 8; ++i)
    ASSERT_TRUE(store.remember({run("chat", "k" + std::to_string(i), i)}));
  EXPECT_TRUE(store.remembered({{"chat", "k"}}).empty()) << "the oldest of nine keys";
  EXPECT_EQ(store.remembered({{"chat", "k1"}}).size(), 1u);
}

TEST_F(StoreTest, MeasurementsCanBeForgotten) {
  auto store = Store::open(folder).value();
  ASSERT_TRUE(store.remember({run("chat", "k", 1), run("chat", "l", 2), run("embed", "k", 3)}));
  EXPECT_EQ(store.forget("chat").value(), 2u);
  EXPECT_EQ(store.forget("chat").value(), 0u);
  EXPECT_TRUE(store.remembered({{"chat", "k"}}).empty());
  EXPECT_EQ(store.remembered({{"embed", "k"}}).size(), 1u);
}

TEST_F(StoreTest, MeasurementsCostNoDurability) {
  auto store = Store::open(folder).value();
  const auto syncs_of = [](auto&& write) {
    const int before = syncs;
    EXPECT_TRUE(write());
    return syncs - before;
  };
  EXPECT_GT(syncs_of([&] { return store.set_goal(goal("code")); }), 0);
  EXPECT_EQ(syncs_of([&] { return store.remember({run("chat", "k", 1)}); }), 0) << "nobody waits for the disk";
  EXPECT_GT(syncs_of([&] { return store.set_goal(goal("rag")); }), 0) << "a goal is as durable as before";
}

StoredModel model(const std::string& id) {
  return {id, "gguf", "/models/" + id + ".gguf", "", "", R"({"architecture":"qwen3"})", wall_now()};
}

TEST_F(StoreTest, ModelsAreKeptUnderOneIdEach) {
  {
    auto store = Store::open(folder).value();
    EXPECT_TRUE(store.models().value().empty());
    EXPECT_TRUE(store.add_model(model("b")).value());
    EXPECT_TRUE(store.add_model(model("a")).value());
    auto other = model("a");
    other.path = "/elsewhere";
    EXPECT_FALSE(store.add_model(other).value());
  }
  auto store = Store::open(folder).value();
  const auto models = store.models().value();
  ASSERT_EQ(models.size(), 2U);
  EXPECT_EQ(models[0].id, "a");
  EXPECT_EQ(models[0].path, "/models/a.gguf") << "the first registration stands";
  EXPECT_EQ(models[1].facts, model("b").facts);
  EXPECT_TRUE(store.remove_model("a").value());
  EXPECT_FALSE(store.remove_model("a").value());
  EXPECT_EQ(store.models().value().size(), 1U);
  EXPECT_TRUE(store.knows_nothing().value()) << "a registered model is no intention about what runs";
}

TEST_F(StoreTest, WhoAddsModelsSeesWhatOthersAdded) {
  ASSERT_TRUE(Store::open(folder));
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 4; ++writer)
    writers.emplace_back([&, writer] {
      auto store = Store::open(folder).value();
      for (int round = 0; round < 10; ++round) {
        const auto path = fmt::format("/m/{}.gguf", round);
        const auto added = store.add_models([&](const std::vector<StoredModel>& there) -> std::vector<StoredModel> {
          for (const auto& other : there)
            if (other.path == path) return {};
          auto fresh = model(fmt::format("{}-{}", round, writer));
          fresh.path = path;
          return {fresh};
        });
        EXPECT_TRUE(added) << added.error().message;
      }
    });
  for (auto& writer : writers)
    writer.join();
  EXPECT_EQ(Store::open(folder).value().models().value().size(), 10U) << "each path once";
}

TEST_F(StoreTest, AFileOfTheTimeBeforeModelsHasNoneAndGetsThem) {
  {
    auto store = Store::open(folder).value();
    ASSERT_TRUE(store.set_goal(goal("code")));
  }
  {
    SQLite::Database raw((folder / "state.db").string(), SQLite::OPEN_READWRITE);
    raw.exec("DROP INDEX open_switches");
    raw.exec("DROP TABLE models");
    raw.exec("DROP TABLE recordings");
    raw.exec("PRAGMA user_version = 2");
  }
  EXPECT_TRUE(Store::open_existing(folder).value()->models().value().empty());
  auto store = Store::open(folder).value();
  EXPECT_TRUE(store.add_model(model("a")).value());
  EXPECT_EQ(store.goal().value()->mode, "code");
}

TEST_F(StoreTest, WhoWritesBesideASwitchMovesNoDamagedFile) {
  {
    auto store = Store::open(folder).value();
    ASSERT_TRUE(store.set_goal(goal("code")));
  }
  damage(folder / "state.db");
  const auto store = Store::open(folder, WhenCorrupt::refused);
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ErrorCode::environment);
  EXPECT_THAT(store.error().message, testing::HasSubstr("unreadable"));
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    EXPECT_EQ(entry.path().string().find(".corrupt-"), std::string::npos);
}

}  // namespace
}  // namespace gpumod
