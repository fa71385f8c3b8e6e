#include <atomic>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/async.h"
#include "base/fd.h"
#include "base/folder_testing.h"
#include "base/paths.h"
#include "base/text.h"
#include "base/units.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(Text, NearestNamesComeInOrderAndFarOnesNot) {
  const std::vector<std::string> names{"code", "rag", "nemotron", "blank"};
  EXPECT_THAT(nearest_names("cod", names), ElementsAre("code"));
  EXPECT_THAT(nearest_names("nemotrom", names), ElementsAre("nemotron"));
  EXPECT_THAT(nearest_names("zzzzzz", names), IsEmpty());
  EXPECT_EQ(did_you_mean("ra", names), "Did you mean 'rag'?");
  EXPECT_EQ(did_you_mean("zzzzzz", names), "Known: code, rag, nemotron, blank.");
  EXPECT_EQ(did_you_mean("x", {}), "");
}

TEST(Text, WhatIsCountedHasItsPlural) {
  EXPECT_EQ(counted(0, "problem"), "0 problems");
  EXPECT_EQ(counted(1, "problem"), "1 problem");
  EXPECT_EQ(counted(2, "problem"), "2 problems");
}

TEST(Text, PartsMayBeEmpty) {
  EXPECT_THAT(split_at("a::b:", ':'), ElementsAre("a", "", "b", ""));
  EXPECT_THAT(split_at("", ':'), ElementsAre(""));
}

TEST(Text, AWordForAShellIsOneWordWhateverIsInIt) {
  EXPECT_EQ(shell_word("Qwen3-8B_Q4.gguf"), "Qwen3-8B_Q4.gguf");
  EXPECT_EQ(shell_word(""), "''");
  EXPECT_EQ(shell_word("a;b `c`"), "'a;b `c`'");
  EXPECT_EQ(shell_word("it's"), R"('it'\''s')");
}

TEST(Text, Utf8ThatIsBrokenIsSeen) {
  EXPECT_TRUE(is_valid_utf8("plain, ü, €, 😀"));
  for (const char* broken : {"\xC0\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\xFF", "a\x80"})
    EXPECT_FALSE(is_valid_utf8(broken)) << testing::PrintToString(broken);
}

TEST(Text, NothingPrintableDrivesATerminal) {
  const auto clean = printable(
      "a\x1b[2Jb\rc\td\xff"
      "e\xc2\x9b"
      "f");
  EXPECT_THAT(clean, testing::Not(HasSubstr("\x1b")));
  EXPECT_THAT(clean, testing::Not(HasSubstr("\r")));
  EXPECT_THAT(clean, testing::Not(HasSubstr("\xc2\x9b")));
  EXPECT_TRUE(is_valid_utf8(clean));
  EXPECT_THAT(clean, HasSubstr("c d"));
}

TEST(Units, MibRoundsToTheNearest) {
  EXPECT_EQ(Bytes::mib(20512).to_mib(), 20512);
  EXPECT_EQ(Bytes(1024 * 1024 + 600 * 1024).to_mib(), 2);
  EXPECT_EQ(to_string(Bytes::gib(1)), "1024 MiB");
}

TEST(Files, WritingIsAllOrNothingAndPrivate) {
  const TestFolder folder;
  const auto file = folder.path() / "a";
  ASSERT_TRUE(write_file_atomically(file, "first", 0600));
  struct stat info {};
  ASSERT_EQ(::stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_FALSE(write_file_atomically(folder.path() / "missing" / "b", "x"));
  ASSERT_TRUE(write_file_atomically(file, "second", 0600));
  EXPECT_EQ(read_file(file, 100).value(), "second");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1) << "no temporary file may stay";
}

TEST(Files, AFileInTheWayIsNoDirectory) {
  const TestFolder folder;
  folder.write("a", "");
  const auto made = make_directories(folder / "a", 0700);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::environment);
  EXPECT_THAT(made.error().message, HasSubstr((folder / "a").string()));
  EXPECT_THAT(or_elsewhere(made.error(), "GPUMOD_STATE_DIR").hint,
              testing::AllOf(HasSubstr("move away"), HasSubstr("GPUMOD_STATE_DIR")));
  EXPECT_TRUE(make_directories(folder / "b/c", 0700));
  EXPECT_TRUE(make_directories(folder / "b/c", 0700));
}

TEST(Files, WhatIsNoRegularFileIsRefusedAndNeverBlocks) {
  const TestFolder folder;
  const auto fifo = folder.path() / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(read_file(fifo, 100).error().code, ErrorCode::configuration);
  EXPECT_EQ(read_file(folder.path(), 100).error().code, ErrorCode::configuration);
  EXPECT_EQ(read_file(folder.path() / "nothing", 100).error().code, ErrorCode::not_found);
  std::ofstream(folder.path() / "large") << std::string(200, 'x');
  EXPECT_EQ(read_file(folder.path() / "large", 100).error().code, ErrorCode::configuration);
}

TEST(Results, TryReturnsTheErrorOfTheInnerCall) {
  const auto inner = [](bool ok) -> Result<int> {
    if (!ok) return fail(ErrorCode::busy, "no");
    return 3;
  };
  const auto outer = [&](bool ok) -> Result<std::string> {
    return std::string(static_cast<std::size_t>(TRY(inner(ok))), 'x');
  };
  EXPECT_EQ(outer(true).value(), "xxx");
  EXPECT_EQ(outer(false).error().code, ErrorCode::busy);
}

// ---- the event loop ----

Task<int> three() {
  co_return 3;
}

TEST(Async, ATaskGivesItsValue) {
  Loop loop;
  EXPECT_EQ(loop.run_until_done(three()), 3);
  EXPECT_EQ(loop.run_until_done(three()), 3) << "a loop can run again";
}

Task<bool> wait_for_signal(Signal& signal, TimePoint deadline) {
  co_return co_await signal.wait(deadline);
}

TEST(Async, ASignalWakesItsWaiterAndADeadlineDoesToo) {
  Loop loop;
  Signal signal(loop);
  loop.post([&] { signal.set(); });
  EXPECT_TRUE(loop.run_until_done(wait_for_signal(signal, now() + 60s)));
  signal.reset();
  EXPECT_FALSE(loop.run_until_done(wait_for_signal(signal, now() + 5ms)));
  signal.set();
  EXPECT_TRUE(loop.run_until_done(wait_for_signal(signal, now())));
}

TEST(Async, ASignalCallsWhoeverIsRegistered) {
  Loop loop;
  Signal signal(loop);
  int first = 0, second = 0, late = 0;
  auto one = signal.on_set([&] { ++first; });
  {
    const auto gone = signal.on_set([&] { ++second; });
  }
  signal.set();
  EXPECT_EQ(first, 1);
  EXPECT_EQ(second, 0) << "its registration has ended";
  const auto two = signal.on_set([&] { ++late; });
  EXPECT_EQ(late, 1) << "it is set already";
  one.release();
  signal.set();
  EXPECT_EQ(first, 1);
  EXPECT_EQ(late, 2);
}

Task<Result<bool>> readable(int fd, TimePoint deadline) {
  co_return co_await wait_ready(fd, Readiness::readable, deadline);
}

TEST(Async, ADescriptorIsWaitedForWithADeadline) {
  Loop loop;
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const Fd reading(ends[0]), writing(ends[1]);
  EXPECT_FALSE(loop.run_until_done(readable(reading.get(), now() + 5ms)).value());
  ASSERT_EQ(::write(writing.get(), "x", 1), 1);
  EXPECT_TRUE(loop.run_until_done(readable(reading.get(), now() + 60s)).value());
  EXPECT_TRUE(loop.run_until_done(readable(reading.get(), TimePoint::max())).value());
}

Task<void> append(std::vector<int>& order, int number, Duration delay) {
  co_await wait_for(delay);
  order.push_back(number);
}

Task<bool> run_three(std::vector<int>& order) {
  std::vector<Task<void>> tasks;
  tasks.push_back(append(order, 3, 30ms));
  tasks.push_back(append(order, 1, 1ms));
  tasks.push_back(append(order, 2, 15ms));
  co_await run_all(std::move(tasks));
  co_return order.size() == 3;
}

TEST(Async, TasksRunBesideEachOtherAndAllAreWaitedFor) {
  Loop loop;
  std::vector<int> order;
  EXPECT_TRUE(loop.run_until_done(run_three(order)));
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
}

using RunElsewhere = Task<void> (*)(std::function<void()> work);

Task<bool> block(RunElsewhere run, std::atomic<bool>& elsewhere, std::thread::id mine) {
  std::function<void()> work = [&elsewhere, mine] { elsewhere = std::this_thread::get_id() != mine; };
  co_await run(std::move(work));
  co_return std::this_thread::get_id() == mine;
}

TEST(Async, BlockingWorkRunsElsewhereAndComesBack) {
  for (const RunElsewhere run : {&run_blocking, &run_on_own_thread}) {
    Loop loop;
    std::atomic<bool> elsewhere = false;
    EXPECT_TRUE(loop.run_until_done(block(run, elsewhere, std::this_thread::get_id())));
    EXPECT_TRUE(elsewhere);
  }
}

TEST(Registrations, UndoOnceWhenTheyGo) {
  int undone = 0;
  {
    Registration first([&] { ++undone; });
    Registration second = std::move(first);
    first.release();
    EXPECT_EQ(undone, 0);
  }
  EXPECT_EQ(undone, 1);
}

TEST(PathsTest, OverridesWinAndRelativeXdgIsIgnored) {
  ::setenv("GPUMOD_CONFIG_DIR", "/etc/somewhere", 1);
  ::setenv("XDG_STATE_HOME", "relative", 1);
  ::setenv("HOME", "/home/tester", 1);
  const auto paths = Paths::from_environment().value();
  EXPECT_EQ(paths.config, "/etc/somewhere");
  EXPECT_TRUE(paths.config_named);
  EXPECT_EQ(paths.state, "/home/tester/.local/state/gpumod");
  ::unsetenv("GPUMOD_CONFIG_DIR");
  EXPECT_FALSE(Paths::from_environment().value().config_named);
  ::unsetenv("XDG_STATE_HOME");
}

// Two who disagree about the runtime directory do not share the lock.
TEST(PathsTest, TheRuntimeDirectoryIsTheSameWhetherItIsToldOrNot) {
  const TestFolder users;
  const auto of_mine = users.path() / std::to_string(::getuid());
  ::setenv("XDG_RUNTIME_DIR", of_mine.c_str(), 1);
  EXPECT_EQ(user_runtime_directory(users.path()), of_mine);
  ::unsetenv("XDG_RUNTIME_DIR");
  EXPECT_EQ(user_runtime_directory(users.path()), "") << "nobody made it";
  std::filesystem::create_directory(of_mine);
  EXPECT_EQ(user_runtime_directory(users.path()), of_mine);
  std::filesystem::rename(of_mine, users.path() / "elsewhere");
  std::filesystem::create_symlink("elsewhere", of_mine);
  EXPECT_EQ(user_runtime_directory(users.path()), "") << "a link may be anybody's";
}

}  // namespace
}  // namespace gpumod
