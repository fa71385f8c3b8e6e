// Snapshots: a switch over its time, from literal answers.
#include <algorithm>

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"
#include "base/time.h"
#include "faces/cli/fields.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;

constexpr auto recorded = R"({"recording": {
  "id": 42, "what": "mode switch rag", "kind": "mode switch", "from": "code", "to": "rag", "began": "2026-02-09T21:03:11Z",
  "seconds": 20.0, "predicted_seconds": 12.0, "result": "rolled_back", "partial": false,
  "failure": {"cause": "start of 'embed' failed: no tokenizer", "remedy": "fetch it again", "step": 1},
  "steps": [
    {"step": 0, "action": "stop", "subject": "coder", "service": "coder", "undo": false, "result": "done", "attempts": 1,
     "began": 0.0, "ended": 5.0, "seconds": 5.0, "predicted_seconds": 4.8, "after": [],
     "phases": [{"name": "act", "from": 0.0, "until": 2.5}, {"name": "release", "from": 2.5, "until": 5.0}],
     "troubles": []},
    {"step": 1, "action": "start", "subject": "embed", "service": "embed", "undo": false, "result": "failed",
     "attempts": 1, "began": 5.0, "ended": 15.0, "seconds": 10.0, "predicted_seconds": null, "after": [0],
     "phases": [{"name": "memory", "from": 5.0, "until": 7.5}, {"name": "act", "from": 7.5, "until": 8.0},
                {"name": "ready", "from": 8.0, "until": 14.0}, {"name": "clear", "from": 14.0, "until": 15.0}],
     "troubles": [{"attempt": 1, "at": 14.0, "cause": "no tokenizer", "remedy": "fetch it again",
                   "log": ["OSError: Can't load tokenizer", "bye"]}]},
    {"step": 2, "action": "start", "subject": "coder", "service": "coder", "undo": true, "result": "done", "attempts": 1,
     "began": 15.0, "ended": 20.0, "seconds": 5.0, "predicted_seconds": 5.0, "after": [],
     "phases": [{"name": "ready", "from": 15.0, "until": 20.0}], "troubles": []}],
  "waits": [{"step": 1, "for": "turn", "cause": "stop of coder", "from": 0.0, "until": 5.0},
            {"step": 1, "for": "memory", "cause": "GPU 0 has 10 MiB free, 20 MiB are needed", "from": 5.0, "until": 7.5}],
  "gpus": [{"index": 0, "name": "RTX 4090", "total": 25769803776, "predicted_peak": 23622320128, "peak": 21474836480}],
  "curve": [{"at": 0.0, "gpu": 0, "used": 21474836480, "held": {"coder": 20401094656}},
            {"at": 5.0, "gpu": 0, "used": 9663676416, "held": {}, "unheld": 8589934592},
            {"at": 10.0, "gpu": 0, "used": 9663676416, "held": {"embed": 8589934592}},
            {"at": 15.0, "gpu": 0, "used": 21474836480, "held": {"coder": 20401094656}}]},
  "summary": ["Most of the time was start of embed: 10 s; 6.0 s getting ready."], "note": null})";

Screen narrow(bool unicode = true) {
  Screen screen;
  screen.width = 72;
  screen.unicode = unicode;
  return screen;
}

TEST(RecordingPicture, AnswersOnTheFirstScreenWhyItWasSlow) {
  ::setenv("TZ", "UTC", 1);
  ::tzset();
  EXPECT_EQ(render_recording(json::parse(recorded), narrow()),
            "switch 42  code → rag  rolled back after 20 s\n"
            "begun 2026-02-09 21:03:11 +00:00\n"
            "· Most of the time was start of embed: 10 s; 6.0 s getting ready.\n"
            "why: start of 'embed' failed: no tokenizer\n"
            "do:  fetch it again\n"
            "\n"
            "✔ stop coder        ▒▒▒▒▞▞▞                      5.0 s (usually 4.8 s)\n"
            "✘ start embed       ·······░░░░█████████╳        10 s\n"
            "✔ back: start coder                      ███████ 5.0 s (usually 5.0 s)\n"
            "                    0 s           10 s      20 s\n"
            "  · waits for its turn   ░ waits for memory   ▒ is started or stopped\n"
            "  █ gets ready   ▞ gives memory back   ╳ is cleared away\n"
            "\n"
            "GPU 0  RTX 4090  peak 20480 MiB  expected 22528 MiB  of 24576 MiB\n"
            "          24576 MiB\n"
            "                    ████████             ███████\n"
            "                    ████████             ███████\n"
            "                    ████████             ███████\n"
            "                    ████████??????▓▓▓▓▓▓▓███████\n"
            "                  0 ████████??????▓▓▓▓▓▓▓███████\n"
            "  █ coder   ▓ embed   / others   ? nobody's (any more)\n"
            "\n"
            "Waits\n"
            "  5.0 s  start embed  for its turn, until stop of coder was done\n"
            "  2.5 s  start embed  for memory: GPU 0 has 10 MiB free, 20 MiB are\n"
            "                      needed\n"
            "\n"
            "start embed  attempt 1, after 14 s\n"
            "  why: no tokenizer\n"
            "  do:  fetch it again\n"
            "  log: OSError: Can't load tokenizer\n"
            "       bye\n");
}

TEST(RecordingPicture, WithoutUnicodeEveryPhaseStillHasASignOfItsOwn) {
  const auto shown = render_recording(json::parse(recorded), narrow(false));
  for (const char* sign : {"a", "r", ":", "#", "x", ". waits for its turn"})
    EXPECT_THAT(shown, HasSubstr(sign));
  EXPECT_TRUE(std::all_of(shown.begin(), shown.end(), [](unsigned char c) { return c < 0x80; })) << shown;
}

TEST(RecordingPicture, KeepsToTheWidth) {
  for (const int width : {40, 60, 80, 120, 200}) {
    auto screen = narrow();
    screen.terminal = true;
    screen.width = width;
    const auto shown = render_recording(json::parse(recorded), screen);
    for (const auto line : split_lines(shown))
      EXPECT_LE(display_width(line), width) << width << ": " << line;
  }
}

TEST(RecordingPicture, OneThatWasCutOffShowsWhatIsKnown) {
  const auto shown = render_recording(json::parse(R"({"recording": {
    "id": 3, "what": "mode switch rag", "kind": "mode switch", "from": "code", "to": "rag",
    "began": "2026-02-09T21:03:11Z", "seconds": 4.0, "result": "interrupted", "partial": true, "failure": null,
    "steps": [{"step": 0, "action": "stop", "subject": "coder", "result": "unknown", "began": 1.0, "ended": null,
               "seconds": null, "phases": [], "troubles": []}],
    "waits": [], "gpus": [], "curve": []}, "summary": [], "note": "It was cut off."})"),
                                      narrow());
  EXPECT_THAT(shown, HasSubstr("interrupted, last heard of after 4.0 s"));
  EXPECT_THAT(shown, HasSubstr("note: It was cut off."));
  EXPECT_THAT(shown, HasSubstr("· stop coder"));
  EXPECT_THAT(shown, HasSubstr("----"));
}

TEST(RecordingPicture, OddAnswersAreShownAsFarAsTheyGo) {
  for (const char* odd : {"{}", R"({"recording": 3})", R"({"recording": {"steps": [1], "waits": {}, "curve": [{}],
                            "gpus": [{"total": -5}, {}], "seconds": -1}})"})
    EXPECT_THAT(render_recording(json::parse(odd), narrow()), Not(HasSubstr("nan"))) << odd;
}

TEST(HistoryList, SaysWhatWasSlowAndWhatFailed) {
  ::setenv("TZ", "UTC", 1);
  ::tzset();
  EXPECT_EQ(render_history(json::parse(R"({"switches": [
    {"id": 2, "what": "mode switch rag", "kind": "mode switch", "from": "code", "to": "rag",
     "began": "2026-02-09T21:03:11Z", "seconds": 20.5, "predicted_seconds": 12.0, "result": "rolled_back",
     "cause": "no tokenizer", "recorded": true},
    {"id": 1, "what": "service start chat", "kind": "service start", "from": "code", "to": "code",
     "began": "2026-02-09T20:00:00Z", "seconds": 3.0, "predicted_seconds": null, "result": "committed", "cause": null,
     "recorded": true}], "notes": []})"),
                           {}),
            "SWITCH  BEGAN                       WHAT                RESULT        TOOK  EXPECTED  WHY\n"
            "     2  2026-02-09 21:03:11 +00:00  code → rag          rolled back   20 s      12 s  no tokenizer\n"
            "     1  2026-02-09 20:00:00 +00:00  service start chat  committed    3.0 s\n");
  EXPECT_EQ(render_history(json::parse(R"({"switches": [], "notes": []})"), {}), "No switch was made yet.\n");
}

TEST(HistoryList, KeepsNamesAndResultsWhereTheScreenIsNarrow) {
  const auto switches = json::parse(R"({"switches": [
    {"id": 2, "what": "mode switch nemotron", "kind": "mode switch", "from": "retrieval", "to": "nemotron",
     "began": "2026-02-09T21:03:11Z", "seconds": 20.5, "predicted_seconds": 12.0, "result": "rolled_back",
     "cause": "the service 'nemotron' did not start: its tokenizer is not there", "recorded": true}], "notes": []})");
  Screen screen;
  screen.terminal = true;
  screen.width = 80;
  EXPECT_EQ(render_history(switches, screen),
            "SWITCH  BEGAN                WHAT                  RESULT       TOOK  EXPECTED\n"
            "     2  2026-02-09 21:03:11  retrieval → nemotron  rolled back  20 s      12 s\n"
            "    the service 'nemotron' did not start: its tokenizer is not there\n"
            "gpumod history show SWITCH shows one of them over its time.\n");
  screen.width = 46;
  EXPECT_THAT(render_history(switches, screen), HasSubstr("SWITCH  WHAT                  RESULT\n"
                                                          "     2  retrieval → nemotron  rolled back\n"
                                                          "    the service 'nemotron' did not start: its\n"
                                                          "    tokenizer is not there\n"));
}

TEST(HistoryList, TellsTimesOfTodayWithoutTheirDate) {
  Screen screen;
  screen.terminal = true;
  screen.width = 80;
  const auto today =
      json::object{{"switches", json::array{json::object{{"id", 1}, {"began", format_wall(wall_now())}}}}};
  EXPECT_THAT(render_history(today, screen), Not(HasSubstr("-")));
}

TEST(LocalTime, IsPeoplesOwnAndSaysItsZoneWhereItLeavesTheTerminal) {
  ::setenv("TZ", "Asia/Tokyo", 1);
  ::tzset();
  Screen terminal;
  terminal.terminal = true;
  EXPECT_EQ(local_time("2026-02-09T21:03:11Z", terminal), "2026-02-10 06:03:11");
  EXPECT_EQ(local_time("2026-02-09T21:03:11Z", Screen{}), "2026-02-10 06:03:11 +09:00");
  EXPECT_EQ(local_time("some day", Screen{}), "some day");
  const auto qa = json::parse(R"({"runs": [{"id": 1, "began": "2026-02-09T21:03:11Z"}]})");
  EXPECT_THAT(render_qa_list(qa, terminal), HasSubstr("2026-02-10 06:03:11"));
  EXPECT_THAT(render_log_line(json::object{{"time", "2026-02-09T21:03:11Z"}, {"text", "up"}}, terminal),
              HasSubstr("2026-02-10 06:03:11 up"));
  const auto status = json::parse(R"({"switch": {"under_way": true, "since": "2026-02-09T21:03:11Z", "seconds": 5}})");
  EXPECT_THAT(render_status(status, terminal), HasSubstr("under way since 2026-02-10 06:03:11"));
  ::setenv("TZ", "UTC", 1);
  ::tzset();
}

TEST(Bench, NamesWhatBecameSlower) {
  EXPECT_EQ(
      render_bench(json::parse(R"json({"bench": {"cold": true, "transitions": [
    {"from": "code", "to": "rag", "failed": 0, "seconds": {"median": 15.0, "spread": 0.2, "least": 14.8, "most": 15.3,
     "all": [15.0, 14.8, 15.3]}, "cache": {"files": 1, "bytes": 104857600, "cached_before": 104857600, "cached_after": 0}},
    {"from": "rag", "to": "code", "failed": 3, "seconds": {"median": 0, "spread": 0, "least": 0, "most": 0, "all": []},
     "cache": {"files": 0, "bytes": 0, "cached_before": 0, "cached_after": 0}}],
    "compared": {"file": "then.json", "regressions": [{"text": "code to rag: 15 s now, 10 s before (+50 %)"}],
                 "improvements": [], "missing": [{"from": "rag", "to": "code"}], "notes": []}}})json"),
                   {}),
      "FROM  TO    MEDIAN  SPREAD  LEAST  MOST  RUNS  FAILED\n"
      "code  rag     15 s   0.2 s   15 s  15 s     3\n"
      "rag   code                                  0       3\n"
      "Cold: of 100 MiB that models have on the disk, 100 MiB were in the page cache before the switches, and 0 MiB "
      "after they were dropped.\n"
      "slower: code to rag: 15 s now, 10 s before (+50 %)\n"
      "note:   rag to code was not measured now.\n");
}

}  // namespace
}  // namespace gpumod::cli
