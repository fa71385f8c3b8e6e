#include "verbs/qa_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verbs/qa_issues.h"
#include "verbs/tree_testing.h"

namespace gpumod {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
namespace json = boost::json;

json::value sample(const std::string& answer = "Hi there!") {
  json::array transitions{
      json::object{{"from", "blank"},
                   {"to", "code"},
                   {"result", "committed"},
                   {"seconds", 4.25},
                   {"vram", json::object{{"before", 15728640}, {"peak", 24116199424}, {"after", 23622320128}}},
                   {"steps", json::array{json::object{{"service", "coder"},
                                                      {"action", "load"},
                                                      {"result", "done"},
                                                      {"attempts", 2},
                                                      {"seconds", 4.0},
                                                      {"note", answer},
                                                      {"earlier", json::array{"another process freed memory"}}}}},
                   {"orphans", json::array()},
                   {"services", json::array{json::object{{"service", "coder"},
                                                         {"answer", answer},
                                                         {"figures", json::object{{"tokens_per_second", 171.2}}},
                                                         {"problems", json::array()}}}}}};
  json::object run{
      {"id", 3},
      {"began", "2026-02-09T21:03:11Z"},
      {"seconds", 6.5},
      {"result", "passed"},
      {"sequence", json::array{"blank", "code"}},
      {"environment", json::object{{"gpumod", "1"},
                                   {"gpus", json::array{json::object{{"name", "RTX 4090"}, {"total", 25757220864}}}}}},
      {"issues", issues_of(transitions)},
      {"compared", json::object{{"before", 2},
                                {"regressions", json::array{json::object{{"text", "coder is slower"}}}},
                                {"changes", json::array{"driver: 2, and 1 before"}}}}};
  run["transitions"] = std::move(transitions);
  return run;
}

/// What a model could answer to get out of a report.
const std::string hostile =
    "</pre><script>alert(1)</script> | x | ```\n# Head <img src=x onerror=y> \"'&\x1b[31m [a](javascript:b)";

TEST(QaMarkdown, HasTheShapeOfAReport) {
  const auto text = qa_markdown(sample());
  std::size_t at = 0;
  for (const char* part :
       {"# Quality run 3", "**Sequence:** blank → code", "## Environment", "RTX 4090", "Changed since run 2",
        "## Results", "| blank → code | 4.25 s | PASS\\* | 15 MiB → 22999 MiB", "## Detailed log",
        "### 1. blank → code", "## Issues found", "### 1. coder came up", "- **Symptom**",
        "- **Cause**: another process freed memory", "- **Impact**", "## Compared with run 2", "coder is slower",
        "## Summary", "1 of 1 transition passed"}) {
    const auto found = text.find(part, at);
    ASSERT_NE(found, std::string::npos) << part << " is not there, or not in its place, in\n" << text;
    at = found;
  }
}

TEST(QaMarkdown, TextOfOthersStaysText) {
  const auto text = qa_markdown(sample(hostile));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_THAT(text, Not(HasSubstr("\n# Head")));
  EXPECT_THAT(text, HasSubstr("````\n")) << "a fence that the answer's does not end";
  const auto row = text.find("| blank → code |");
  const auto line = text.substr(row, text.find('\n', row) - row);
  EXPECT_THAT(line, Not(HasSubstr(" | x | ")));
  EXPECT_THAT(line, Not(HasSubstr(" <img")));
}

TEST(QaHtml, NeedsNothingElseAndRunsNothing) {
  const auto text = qa_html(sample(hostile));
  for (const char* forbidden : {"<script", "<img", "http://", "https://", "onerror=y>", "url(", "@import", "\x1b"})
    EXPECT_THAT(text, Not(HasSubstr(forbidden))) << forbidden;
  EXPECT_THAT(text, HasSubstr("&lt;script&gt;alert(1)"));
  EXPECT_THAT(text, HasSubstr("default-src 'none'"));
  EXPECT_THAT(text, HasSubstr("<svg"));
  EXPECT_THAT(text, HasSubstr("171 tok/s"));
  EXPECT_THAT(text, HasSubstr("coder is slower"));
}

TEST(QaReport, WhetherWhatRanBeforeRunsAgainIsSaidOnce) {
  auto run = sample();
  run.as_object()["restored"] = json::object{{"mode", "code"}, {"problem", nullptr}};
  for (const auto& text : {qa_markdown(run), qa_html(run)})
    EXPECT_THAT(text, HasSubstr("began with, code, was restored"));
  run.at("restored").as_object()["problem"] = "coder did not start";
  for (const auto& text : {qa_markdown(run), qa_html(run)}) {
    EXPECT_THAT(text, HasSubstr("could not be restored: coder did not start"));
    EXPECT_THAT(text, Not(HasSubstr("was restored")));
  }
}

TEST(QaReport, GarbageGivesAReportAllTheSame) {
  for (const char* text :
       {"null", "7", "[]", "{}", R"({"transitions":[null,7,{"steps":7,"vram":[],"services":[3]}],"issues":[1]})"}) {
    const auto run = json::parse(text);
    EXPECT_THAT(qa_markdown(run), HasSubstr("# Quality run"));
    EXPECT_THAT(qa_html(run), HasSubstr("</html>"));
  }
}

TEST(QaReport, ThreeFilesAreWritten) {
  const TestTree tree;
  const auto written = write_reports(tree / "new/reports", "qa-3", sample());
  ASSERT_TRUE(written) << written.error().message;
  ASSERT_EQ(written->size(), 3U);
  EXPECT_EQ(json::parse(tree.read("new/reports/qa-3.json")).at("id"), 3);
  EXPECT_THAT(tree.read("new/reports/qa-3.md"), HasSubstr("# Quality run 3"));
  EXPECT_THAT(tree.read("new/reports/qa-3.html"), HasSubstr("<!doctype html>"));
  tree.write("file", "x");
  EXPECT_FALSE(write_reports(tree / "file/reports", "qa-3", sample()));
}

}  // namespace
}  // namespace gpumod
