#include "faces/cli/progress.h"

#include <boost/json.hpp>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/fd.h"
#include "faces/cli/table.h"

namespace gpumod::cli {
namespace {

namespace json = boost::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

json::object event(const char* text) {
  return json::parse(text).as_object();
}

constexpr auto plan_event = R"({"event":"plan","id":9,"from":"code","to":"rag","plan":{"steps":[
  {"step":0,"service":"coder","unit":"u","action":"stop"},{"step":1,"service":"embedding","unit":"v","action":"start"}]}})";
constexpr auto stop_done =
    R"({"event":"step","step":0,"subject":"coder","action":"stop","result":"done","seconds":0.4,"attempts":1})";
constexpr auto start_running =
    R"({"event":"step","step":1,"subject":"embedding","action":"start","result":"running","stage":"getting ready","seconds":null,"attempts":1})";

Screen screen(int width, int height = 24) {
  Screen it;
  it.width = width;
  it.height = height;
  return it;
}

TEST(ProgressView, OneLineAStep) {
  ProgressView view("mode switch rag");
  const TimePoint start{};
  EXPECT_THAT(view.lines(screen(80), start, 0),
              ElementsAre("⠋ mode switch rag: looking at what is there  (Ctrl-C takes it back)"));
  view.on_event(event(plan_event), start);
  view.on_event(event(stop_done), start);
  view.on_event(event(start_running), start);
  EXPECT_THAT(view.lines(screen(80), start + 12s + 900ms, 1),
              ElementsAre("code → rag  (Ctrl-C takes it back)", "✔ stop   coder       0.4 s  ",
                          "⠙ start  embedding    12 s  getting ready"));
  EXPECT_EQ(view.switch_id(), 9);
  EXPECT_EQ(view.from(), "code");
}

TEST(ProgressView, WhatEarlierRunsTookIsWhatIsLeft) {
  ProgressView view("x");
  const TimePoint start{};
  view.on_event(event(R"({"event":"plan","id":9,"from":"code","to":"rag","plan":{"seconds":32,"steps":[
        {"step":0,"service":"coder","action":"stop","seconds":0.4},{"step":1,"service":"embedding","action":"start","seconds":31.4}]}})"),
                start);
  view.on_event(event(start_running), start);
  EXPECT_THAT(view.lines(screen(80), start + 12s + 500ms, 1),
              ElementsAre("code → rag, about 20 s left  (Ctrl-C takes it back)", HasSubstr("stop"),
                          "⠙ start  embedding    12 s  getting ready (usually 31 s)"));
  EXPECT_THAT(view.lines(screen(80), start + 40s, 1).front(), Not(HasSubstr("left"))) << "slower than ever before";
  EXPECT_THAT(
      *view.appended(event(R"({"event":"plan","from":"a","to":"b","plan":{"seconds":32,"steps":[{"step":0}]}})")),
      "a → b: 1 step, about 32 s");
}

TEST(ProgressView, TimeRunsFromTheStepsBeginningAndLongOnesHaveMinutes) {
  ProgressView view("x");
  view.on_event(event(start_running), TimePoint{} + 10s);
  view.on_event(event(start_running), TimePoint{} + 60s);  // another stage: the clock goes on
  EXPECT_THAT(view.lines(screen(80), TimePoint{} + 200s, 0).back(), HasSubstr("3:10 min"));
}

TEST(ProgressView, MemoryIsABarUnderTheSteps) {
  ProgressView view("x");
  view.on_event(event(start_running), {});
  view.on_event(event(R"({"event":"vram","gpus":[{"index":0,"name":"A","total":25757220864,"used":12878610432}]})"),
                {});
  EXPECT_EQ(view.lines(screen(60), {}, 0).back(), "  VRAM ██████████████░░░░░░░░░░░░░ 12282 MiB of 24564 MiB");
  view.on_event(
      event(
          R"({"event":"vram","gpus":[{"index":0,"total":1048576,"used":0},{"index":3,"total":1048576,"used":1048576}]})"),
      {});
  const auto lines = view.lines(screen(60), {}, 0);
  EXPECT_THAT(lines.back(), AllOf(HasSubstr("GPU 3 █"), Not(HasSubstr("░"))));
  EXPECT_THAT(lines[lines.size() - 2], AllOf(HasSubstr("GPU 0 ░"), Not(HasSubstr("█"))));
  // What is done matters more than how full it is: on a low screen the steps stay.
  EXPECT_THAT(view.lines(screen(60, 3), {}, 0), ElementsAre(HasSubstr("x"), HasSubstr("embedding")));
}

TEST(ProgressView, UndoAndFailuresAreNamed) {
  ProgressView view("x");
  view.on_event(
      event(
          R"({"event":"step","step":1,"subject":"a","action":"start","result":"failed","note":"no model","attempts":1})"),
      {});
  view.on_event(
      event(
          R"({"event":"step","step":2,"subject":"b","action":"start","result":"running","attempts":2,"undo":true,"stage":"starting"})"),
      {});
  const auto lines = view.lines(screen(80), TimePoint{}, 0);
  EXPECT_THAT(lines[1], HasSubstr("✘ start       a         no model"));
  EXPECT_THAT(lines[2], HasSubstr("back: start b"));
  EXPECT_THAT(lines[2], HasSubstr("starting (attempt 2)"));
}

TEST(ProgressView, NoLineReachesTheScreensEdgeAndNoTextDrivesTheTerminal) {
  ProgressView view("x");
  view.on_event(
      event(
          R"({"event":"step","step":1,"subject":"a\u001b[2Jvery-long-name-of-a-service","action":"start","result":"running",
                          "stage":"waiting for 模型 that is really very very very long to say","attempts":1})"),
      {});
  for (int width = 12; width < 90; ++width)
    for (const auto& line : view.lines(screen(width), TimePoint{}, 0)) {
      EXPECT_LT(display_width(line), width) << line;
      EXPECT_EQ(line.find('\x1b'), std::string::npos);
    }
}

TEST(ProgressView, MoreStepsThanRowsKeepsWhatMatters) {
  ProgressView view("x");
  for (int i = 0; i < 40; ++i)
    view.on_event({{"event", "step"},
                   {"step", i},
                   {"subject", "s" + std::to_string(i)},
                   {"action", "start"},
                   {"result", i == 20  ? "running"
                              : i < 20 ? "done"
                                       : "pending"},
                   {"attempts", 1}},
                  {});
  const auto lines = view.lines(screen(80, 10), TimePoint{}, 0);
  EXPECT_LT(lines.size(), 10u);
  EXPECT_THAT(lines, testing::Contains(HasSubstr("s20 ")));
  EXPECT_THAT(lines.back(), HasSubstr("and 33 more"));
}

TEST(ProgressView, AppendedLinesForPipes) {
  ProgressView view("mode switch rag");
  EXPECT_EQ(view.appended(event(plan_event)), "code → rag: 2 steps");
  Screen ascii;
  ascii.unicode = false;
  EXPECT_EQ(view.appended(event(plan_event), ascii), "code -> rag: 2 steps");
  EXPECT_EQ(view.appended(event(start_running)), "start embedding: getting ready");
  EXPECT_EQ(view.appended(event(stop_done)), "stop coder: done in 0.4 s");
  EXPECT_EQ(view.appended(event(R"({"event":"step","step":1,"subject":"a","action":"start","result":"pending"})")),
            std::nullopt);
  EXPECT_EQ(view.appended(event(R"({"event":"notice","text":"x"})")), std::nullopt);
}

/// What a LiveArea writes.
class LiveAreaTest : public testing::Test {
 protected:
  LiveAreaTest() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    reading_.reset(ends[0]);
    writing_.reset(ends[1]);
  }
  std::string written() {
    char buffer[4096];
    const auto n = ::read(reading_.get(), buffer, sizeof buffer);
    return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
  }
  Fd reading_, writing_;
};

TEST_F(LiveAreaTest, RedrawsInPlaceAndGivesTheCursorBack) {
  {
    LiveArea area(writing_.get());
    area.draw({"one", "two"}, screen(20));
    EXPECT_EQ(written(), "\x1b[?25l\x1b[2Kone\n\x1b[2Ktwo\n\x1b[J");
    area.draw({"1"}, screen(20));
    EXPECT_EQ(written(), "\x1b[?25l\x1b[2F\x1b[2K1\n\x1b[J");
  }
  EXPECT_EQ(written(), "\x1b[1F\x1b[J\x1b[?25h");
}

TEST_F(LiveAreaTest, ANarrowerTerminalHasWrappedWhatStandsThere) {
  LiveArea area(writing_.get());
  area.draw({"\x1b[36m0123456789\x1b[0m", "ab"}, screen(20));
  (void)written();
  area.draw({"x"}, screen(4));  // ten cells take three rows of four
  EXPECT_THAT(written(), HasSubstr("\x1b[4F"));
}

TEST_F(LiveAreaTest, NothingDrawnMeansNothingToErase) {
  { LiveArea area(writing_.get()); }
  EXPECT_EQ(written(), "");
}

}  // namespace
}  // namespace gpumod::cli
