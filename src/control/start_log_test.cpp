#include "control/start_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using ::testing::HasSubstr;

Service llama() {
  Service service;
  service.id = "chat";
  service.engine = EngineKind::llamacpp;
  service.port = 7070;
  service.options = LlamaOptions{};
  return service;
}

LogLine line(std::string text, std::string invocation = "run-2") {
  LogLine made;
  made.text = std::move(text);
  made.invocation = std::move(invocation);
  return made;
}

const auto out_of_memory =
    "0.1 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 812.00 MiB on device 0: cudaMalloc failed: out of "
    "memory";
const auto thrown =
    "0.2 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache";

TEST(StartLog, TheVerdictNamesTheFirstCauseNotTheLineThatProvesIt) {
  StartLog log(llama());
  log.take(line(out_of_memory));
  EXPECT_FALSE(log.verdict()) << "it may be tried again smaller";
  log.take(line(thrown));
  ASSERT_TRUE(log.verdict());
  EXPECT_EQ(log.verdict()->cause, "GPU 0 had no room for 812.00 MiB");
}

TEST(StartLog, WhatAnotherRunWroteCountsForNothing) {
  StartLog log(llama());
  log.take(line(thrown, "run-1"));  // the last words of the run before arrive late
  log.take(line("0.1 I starting"));
  EXPECT_TRUE(log.verdict()) << "nobody knows yet whose line it is";
  log.expect_run("run-2");
  EXPECT_FALSE(log.verdict());
  EXPECT_EQ(log.lines().size(), 1u);
  log.take(line(thrown, "run-1"));
  EXPECT_FALSE(log.verdict());
  log.take(line(thrown));
  EXPECT_TRUE(log.verdict());
}

TEST(StartLog, ALineWithoutItsRunIsTaken) {
  StartLog log(llama());
  log.expect_run("run-2");
  log.take(line(thrown, ""));  // journald was too late to see who wrote it
  EXPECT_TRUE(log.verdict());
}

TEST(StartLog, OfALongLogTheBeginningAndTheEndAreKept) {
  StartLog log(llama());
  for (int i = 0; i < 100'000; ++i)
    log.take(line(fmt::format("0.1 I line {}", i)));
  EXPECT_LT(log.lines().size(), 2000u);
  EXPECT_EQ(log.lines().front().text, "0.1 I line 0");
  EXPECT_EQ(log.lines().back().text, "0.1 I line 99999");
}

TEST(LinesThatMatter, AreTheCauseAndTheLastWords) {
  std::vector<LogLine> lines;
  for (int i = 0; i < 40; ++i)
    lines.push_back({WallTime(), "line " + std::to_string(i)});
  auto kept = lines_that_matter(lines, "line 3");
  ASSERT_EQ(kept.size(), 13u);
  EXPECT_EQ(kept.front(), "line 3");
  EXPECT_EQ(kept[1], "line 28");
  EXPECT_EQ(kept.back(), "line 39");
  EXPECT_EQ(lines_that_matter(lines, "line 39").size(), 12u) << "it stands there already";
  EXPECT_EQ(lines_that_matter({}, "").size(), 0u);
  lines = {{WallTime(), "\x1b[31m" + std::string(5000, 'x')}};
  kept = lines_that_matter(lines, "");
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_LT(kept[0].size(), 400u);
  EXPECT_EQ(kept[0].find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace gpumod
