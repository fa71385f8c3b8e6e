#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "faces/cli/render.h"

namespace gpumod::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
namespace json = boost::json;

const char* run = R"({"qa":{"id":4,"result":"failed","seconds":12.5,"transitions":[
  {"from":"blank","to":"code","result":"committed","seconds":4.25,"vram":{"after":23622320128,"peak":24116199424},
   "services":[{"service":"coder","answer":"Hi\u001b[31m","figures":{"tokens_per_second":171},"problems":[]}],"orphans":[]},
  {"from":"code","to":"rag","result":"rolled_back","seconds":8,"problem":{"message":"the model is damaged"}}],
  "issues":[{"title":"embed did not start","transitions":["code → rag"],"symptom":"s","cause":"the model is damaged",
             "remedy":"Fetch it again."}],
  "compared":{"before":3,"regressions":[{"text":"coder is slower"}],"changes":["driver: 2, and 1 before"]},
  "reports":["/r/qa-4.md"]}})";

TEST(RenderQa, SaysWhatPassedWhatFailedAndWhy) {
  const auto shown = render("qa run", json::parse(run), Screen{});
  for (const char* part : {"blank → code", "PASS", "22528 MiB", "171 tok/s", "ROLLED BACK", "embed did not start",
                           "the model is damaged", "Fetch it again.", "Since run 3", "coder is slower", "driver: 2",
                           "1 of 2 transitions passed", "kept as run 4", "/r/qa-4.md"})
    EXPECT_THAT(shown, HasSubstr(part));
  EXPECT_THAT(shown, Not(HasSubstr("\x1b"))) << "an answer drives no terminal";
}

TEST(RenderQa, ToursListsAndComparisons) {
  EXPECT_THAT(render("qa run", json::parse(R"({"tour":{"from":"a","targets":["b","a"]}})"), Screen{}),
              HasSubstr("a → b\n  b → a\n"));
  EXPECT_THAT(render("qa list", json::parse(R"({"runs":[]})"), Screen{}), HasSubstr("gpumod qa run"));
  EXPECT_THAT(render("qa list", json::parse(R"({"runs":[{"id":4,"passed":1,"transitions":2,"sequence":["a","b"]}]})"),
                     Screen{}),
              HasSubstr("1/2"));
  EXPECT_THAT(render("qa diff", json::parse(R"({"diff":{"regressions":[]}})"), Screen{}),
              HasSubstr("nothing is worse"));
  EXPECT_THAT(render("qa diff", json::parse(R"({"diff":{"regressions":[{"text":"x is slower"}]}})"), Screen{}),
              Not(HasSubstr("nothing is worse")));
}

TEST(RenderQa, HasOneArrow) {
  Screen plain;
  plain.unicode = false;
  const auto shown = render(
      "qa run",
      json::parse(R"({"qa":{"transitions":[{"from":"a","to":"b"}],"issues":[{"title":"x","transitions":["a → b"]}]}})"),
      plain);
  EXPECT_THAT(shown, HasSubstr("(a -> b)"));
  EXPECT_THAT(shown, Not(HasSubstr("→")));
}

TEST(RenderQa, AFailedRunIsShownWithItsError) {
  Error error{ErrorCode::failed, "1 of 2 transitions passed", "gpumod qa show 4 shows it again.", json::parse(run)};
  EXPECT_THAT(render_report(error, Screen{}), HasSubstr("embed did not start"));
  EXPECT_EQ(render_error(error, Screen{}),
            "gpumod: 1 of 2 transitions passed\n        gpumod qa show 4 shows it again.\n");
}

}  // namespace
}  // namespace gpumod::cli
