#include "verbs/recording_words.h"

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verbs/trace.h"

namespace gpumod {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Stage = Recording::Stage;
using For = Recording::Wait::For;

Recording::Step step(int number, Action action, const char* subject, Duration began, Duration ended) {
  Recording::Step step;
  step.step = number;
  step.action = action;
  step.subject = step.service = subject;
  step.result = "done";
  step.attempts = 1;
  step.began = began;
  step.ended = ended;
  return step;
}

/// code → rag: the start waits for memory, and is slow.
Recording slow_start() {
  Recording recording;
  recording.id = 7;
  recording.result = SwitchResult::committed;
  recording.took = 48s;
  recording.predicted = 21s;
  auto stop = step(0, Action::stop, "coder", 0s, 3s);
  stop.phases = {{Stage::act, 1, 0s, 2s}, {Stage::release, 1, 2s, 3s}};
  auto start = step(1, Action::start, "embedding", 3s, 48s);
  start.predicted = 15s;
  start.phases = {{Stage::memory, 1, 3s, 11s},
                  {Stage::act, 1, 11s, 12s},
                  {Stage::ready, 1, 12s, 47s},
                  {Stage::verify, 1, 47s, 48s}};
  recording.steps = {stop, start};
  recording.waits = {{1, For::turn, "stop of coder", 0s, 3s},
                     {1, For::memory, "GPU 0 has 2050 MiB free, 5404 MiB are needed", 3s, 11s}};
  recording.curve = {{0s, 0, Bytes::mib(20000), {{"coder", Bytes::mib(19000)}}}};
  return recording;
}

TEST(WhySoLong, SaysWhatTookLongestAndWhatItWaitedFor) {
  EXPECT_THAT(
      why_so_long(slow_start()),
      ElementsAre("Slower than expected: 48 s, where earlier runs let expect 21 s.",
                  "Most of the time was start of embedding: 45 s, usually 15 s; 35 s getting ready, 8.0 s waiting for "
                  "memory.",
                  "embedding waited 8.0 s for memory: GPU 0 has 2050 MiB free, 5404 MiB are needed."));
}

TEST(WhySoLong, ALongStepThatIsAlwaysLongIsNotWhatWasUnusual) {
  auto recording = slow_start();
  recording.steps[1].predicted = 45s;
  recording.steps[0].predicted = 200ms;
  EXPECT_THAT(why_so_long(recording), Contains("Slower than usual was stop of coder: 3.0 s, usually 0.2 s."));
}

TEST(WhySoLong, AttemptsAndTheWayBackAreNamed) {
  auto recording = slow_start();
  recording.result = SwitchResult::rolled_back;
  recording.steps[1].attempts = 3;
  recording.steps[1].troubles = {{1, 20s, "another process freed memory", "", {}}};
  recording.steps[1].ended = 30s;
  auto back = step(2, Action::start, "coder", 30s, 48s);
  back.undo = true;
  recording.steps.push_back(back);
  const auto words = why_so_long(recording);
  EXPECT_THAT(words, Contains("start of embedding needed 3 attempts: another process freed memory."));
  EXPECT_THAT(words, Contains("18 s went into restoring what ran before."));
}

TEST(WhySoLong, WhatIsShortOrOnlyPartlyKnownIsNotExplained) {
  auto recording = slow_start();
  recording.partial = true;
  EXPECT_THAT(why_so_long(recording), IsEmpty());
  Recording nothing;
  nothing.took = 80ms;
  EXPECT_THAT(why_so_long(nothing), IsEmpty());
}

TEST(WhySoLong, TimeThatNoStepExplainsIsNamedToo) {
  Recording recording;
  recording.took = 10s;
  recording.steps = {step(0, Action::stop, "coder", 4s, 10s)};
  EXPECT_THAT(why_so_long(recording), Contains("4.0 s went into looking at the machine, planning and checking."));
}

TEST(Trace, HasSlicesForStepsAndPhasesAndACounterForMemory) {
  const auto trace = trace_of(slow_start());
  std::map<std::string, int> kinds;
  for (const auto& event : trace.at("traceEvents").as_array()) {
    const auto& fields = event.as_object();
    const std::string kind(fields.at("ph").as_string());
    ++kinds[kind];
    EXPECT_TRUE(fields.contains("pid"));
    EXPECT_EQ(fields.contains("ts"), kind != "M");
    EXPECT_EQ(fields.contains("dur"), kind == "X");
  }
  EXPECT_EQ(kinds["X"], 2 + 6 + 1) << "steps, phases, the wait for its turn";
  EXPECT_EQ(kinds["C"], 1);
  EXPECT_EQ(kinds["M"], 4);
  const auto text = boost::json::serialize(trace);
  EXPECT_THAT(text, HasSubstr(R"({"coder":19000,"others":1000})"));
  EXPECT_THAT(text, HasSubstr(R"("ts":3000000,"dur":45000000)"));
}

/// By the Trace Event Format's own description: the fields of each kind, and slices of a row that nest.
void expect_well_formed(const boost::json::object& trace) {
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<std::int64_t>>
      open;  // of a row: the ends, innermost last
  std::set<std::pair<std::int64_t, std::int64_t>> named;
  std::int64_t last = -1;
  for (const auto& value : trace.at("traceEvents").as_array()) {
    const auto& event = value.as_object();
    const std::string kind(event.at("ph").as_string());
    EXPECT_TRUE(event.at("name").is_string());
    const std::pair row(event.at("pid").as_int64(), kind == "C" ? 0 : event.at("tid").as_int64());
    if (kind == "M") {
      EXPECT_EQ(last, -1) << "names come first";
      EXPECT_TRUE(event.at("args").at("name").is_string());
      named.insert(row);
      continue;
    }
    const auto ts = event.at("ts").as_int64();
    EXPECT_GE(ts, 0);
    EXPECT_GE(ts, last) << "sorted";
    last = ts;
    EXPECT_TRUE(named.contains(row)) << value;
    if (kind == "C") {
      EXPECT_FALSE(event.at("args").as_object().empty());
      for (const auto& series : event.at("args").as_object())
        EXPECT_TRUE(series.value().is_int64());
    }
    if (kind != "X") continue;
    const auto end = ts + event.at("dur").as_int64();
    EXPECT_GE(end, ts);
    auto& around = open[row];
    while (!around.empty() && around.back() <= ts)
      around.pop_back();
    const auto most = around.empty() ? end : around.back();
    EXPECT_LE(end, most) << "neither inside nor outside of its neighbour: " << value;
    around.push_back(end);
  }
}

TEST(Trace, SlicesNestWhateverTheTimes) {
  using ns = std::chrono::nanoseconds;
  Recording recording;
  recording.took = 20s;
  auto stop = step(0, Action::stop, "router", ns(1000500), ns(5000700));
  stop.phases = {{Recording::Stage::act, 1, ns(1000500), ns(2000999)},
                 {Recording::Stage::release, 1, ns(2000999), ns(5000700)}};
  auto start = step(1, Action::start, "router", ns(5000800), ns(9000100));
  start.phases = {{Recording::Stage::ready, 1, ns(5000999), ns(9000100)}};
  recording.steps = {start, stop};
  // It was told to wait a moment after the other had begun.
  recording.waits = {{1, Recording::Wait::For::turn, "stop of router", ns(1000900), ns(5000800)}};
  const auto trace = trace_of(recording);
  expect_well_formed(trace);
  expect_well_formed(trace_of(slow_start()));
}

TEST(Trace, WhoHoldsNothingAnyMoreIsToldSo) {
  Recording recording;
  recording.gpus = {{0, "RTX", Bytes::gib(24), {}, {}}};
  recording.curve = {{0s, 0, Bytes::mib(20000), {{"coder", Bytes::mib(19000)}}, {}}, {1s, 0, Bytes::mib(15), {}, {}}};
  const auto text = boost::json::serialize(trace_of(recording));
  EXPECT_THAT(text, HasSubstr(R"("args":{"coder":19000,"others":1000})"));
  EXPECT_THAT(text, HasSubstr(R"("args":{"coder":0,"others":15})"));
}

}  // namespace
}  // namespace gpumod
