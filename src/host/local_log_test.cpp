#include "host/local_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"
#include "host/local_testing.h"

namespace gpumod::local {
namespace {

using gpumod::TestFolder;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const WallTime noon{std::chrono::microseconds(1'770'000'000'123'456)};
const std::string run_a(32, 'a');
const std::string run_b(32, 'b');

std::vector<std::string> texts(const std::vector<LogLine>& lines) {
  std::vector<std::string> found;
  for (const auto& line : lines)
    found.push_back(line.text);
  return found;
}

TEST(LocalLog, KeepsTimeAndRun) {
  const TestFolder directory;
  LogWriter first(directory.path(), run_a);
  first.feed("from a\n", noon);
  LogWriter second(directory.path(), run_b);
  second.feed("from b\nand more\n", noon + 1s);
  const auto newest = read_log_tail(directory.path(), "", 100);
  EXPECT_THAT(texts(newest), ElementsAre("from b", "and more"));
  EXPECT_EQ(newest[0].time, noon + 1s);
  EXPECT_THAT(texts(read_log_tail(directory.path(), run_a, 100)), ElementsAre("from a"));
  EXPECT_THAT(texts(read_log_tail(directory.path(), run_b, 1)), ElementsAre("and more"));
  EXPECT_THAT(read_log_tail(directory.path(), std::string(32, 'c'), 100), IsEmpty());
}

TEST(LocalLog, LinesArriveInPieces) {
  const TestFolder directory;
  LogWriter log(directory.path(), run_a);
  log.feed("one, ", noon);
  EXPECT_THAT(read_log_tail(directory.path(), run_a, 100), IsEmpty());
  log.feed("still one\ntwo", noon);
  EXPECT_THAT(texts(read_log_tail(directory.path(), run_a, 100)), ElementsAre("one, still one"));
  log.line("ours", noon);
  log.feed("tail", noon);
  log.finish(noon);
  EXPECT_THAT(texts(read_log_tail(directory.path(), run_a, 100)), ElementsAre("one, still one", "two", "ours", "tail"));
}

TEST(LocalLog, ProgressBarsAndWindowsLineEndsAreLines) {
  const TestFolder directory;
  LogWriter log(directory.path(), run_a);
  log.feed("\r 10%\r 50%\r100%\r\n\nnext\r\n", noon);
  EXPECT_THAT(texts(read_log_tail(directory.path(), run_a, 100)), ElementsAre("", " 10%", " 50%", "100%", "", "next"));
}

TEST(LocalLog, JunkIsMadeHarmless) {
  const TestFolder directory;
  LogWriter log(directory.path(), run_a);
  std::string junk = "\x1b[31;1mred\x1b[0m \x1b]0;title\x07 \xff\xfe";
  junk += '\0';
  junk += "end\n";
  for (int i = 0; i < 256; ++i)
    junk += static_cast<char>(i);
  log.feed(junk, noon);
  log.finish(noon);
  const auto lines = texts(read_log_tail(directory.path(), run_a, 100));
  ASSERT_GE(lines.size(), 2u);
  EXPECT_TRUE(lines[0].starts_with("red ")) << lines[0];
  EXPECT_TRUE(lines[0].ends_with("end"));
  for (const auto& line : lines) {
    EXPECT_TRUE(is_valid_utf8(line));
    for (const char c : line)
      EXPECT_FALSE(static_cast<unsigned char>(c) < 0x20 || c == 0x7f) << line;
  }
}

TEST(LocalLog, AnEndlessLineIsCut) {
  const TestFolder directory;
  LogWriter log(directory.path(), run_a);
  log.feed(std::string(longest_log_line * 2 + 5, 'x'), noon);
  log.feed("\nafter\n", noon);
  const auto lines = texts(read_log_tail(directory.path(), run_a, 100));
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].size(), longest_log_line);
  EXPECT_EQ(lines[2].size(), 5u);
  EXPECT_EQ(lines[3], "after");
}

TEST(LocalLog, TwoFilesOfABoundedSizeRemain) {
  const TestFolder directory;
  constexpr std::size_t limit = 4096;
  LogWriter log(directory.path(), run_a, limit);
  for (int i = 0; i < 500; ++i)
    log.feed(fmt::format("line {}\n", i), noon);
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    ++files;
    EXPECT_LE(entry.file_size(), limit) << entry.path();
    EXPECT_EQ(entry.status().permissions() & std::filesystem::perms::all,
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  }
  EXPECT_EQ(files, 2u);
  const auto lines = texts(read_log_tail(directory.path(), run_a, 100));
  ASSERT_GT(lines.size(), 80u) << "the tail spans both files";
  for (std::size_t i = 0; i < lines.size(); ++i)
    EXPECT_EQ(lines[i], fmt::format("line {}", 500 - lines.size() + i));
}

TEST(LocalLog, AFollowerSeesNewLinesAcrossRotation) {
  const TestFolder directory;
  LogWriter log(directory.path(), run_a, 1000);
  log.feed("before\n", noon);
  LogFollower follower(directory.path());
  EXPECT_THAT(follower.read_new(), IsEmpty());
  std::vector<std::string> seen;
  std::vector<std::string> written;
  for (int i = 0; i < 60; ++i) {
    written.push_back(fmt::format("line {}", i));
    log.feed(written.back() + "\n", noon);
    if (i % 7 == 0)
      for (auto& text : texts(follower.read_new()))
        seen.push_back(text);
  }
  for (auto& text : texts(follower.read_new()))
    seen.push_back(text);
  EXPECT_EQ(seen, written);
}

TEST(LocalLog, AFollowerMayComeBeforeTheLog) {
  const TestFolder directory;
  LogFollower follower(directory.path());
  EXPECT_THAT(follower.read_new(), IsEmpty());
  LogWriter log(directory.path(), run_a);
  log.feed("first\n", noon);
  EXPECT_THAT(texts(follower.read_new()), ElementsAre("first"));
}

TEST(LocalLog, ForeignLinesAreSkipped) {
  StoredLine line;
  EXPECT_FALSE(parse_log_line("", line));
  EXPECT_FALSE(parse_log_line("hello world", line));
  EXPECT_FALSE(parse_log_line("123", line));
  EXPECT_FALSE(parse_log_line("123 ", line));
  EXPECT_TRUE(parse_log_line("123 abc ", line));
  EXPECT_EQ(line.line.text, "");
}

}  // namespace
}  // namespace gpumod::local
