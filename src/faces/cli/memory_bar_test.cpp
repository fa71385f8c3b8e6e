#include "faces/cli/memory_bar.h"

#include <numeric>

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/text.h"
#include "faces/cli/table.h"

namespace gpumod::cli {
namespace {

namespace json = boost::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(ShareCells, AreInProportionAndFillTheBar) {
  EXPECT_THAT(share_cells({50, 25, 25}, 40), ElementsAre(20, 10, 10));
  EXPECT_THAT(share_cells({1, 0, 999999}, 10), ElementsAre(1, 0, 9)) << "what is there is seen";
  EXPECT_THAT(share_cells({1, 1, 1, 1000}, 3), ElementsAre(1, 1, 0, 1)) << "and what is biggest, if not all can be";
  EXPECT_THAT(share_cells({0, -7}, 10), ElementsAre(0, 0));
  EXPECT_THAT(share_cells({5}, 0), ElementsAre(0));
  EXPECT_THAT(share_cells({}, 10), ElementsAre());
  for (int width = 1; width < 50; ++width) {
    const auto cells = share_cells({7, 13, 0, 1, 90000, 3000, 2, 2}, width);
    EXPECT_EQ(std::accumulate(cells.begin(), cells.end(), 0), width);
    for (const int cell : cells)
      EXPECT_GE(cell, 0);
  }
}

constexpr std::int64_t mib = 1 << 20;

json::object holder(const char* kind, const char* why, const char* name, std::int64_t amount, bool complete = true) {
  return {{"holder", kind},
          {"why", *why ? json::value(why) : json::value(nullptr)},
          {"name", name},
          {"user", std::string_view(kind) == "foreign" ? json::value("ann") : nullptr},
          {"used", amount * mib},
          {"complete", complete},
          {"processes", json::array()}};
}

json::object gpu_of(json::array holders) {
  return {{"index", 0},
          {"name", "RTX 4090"},
          {"mig", nullptr},
          {"ledger", json::object{{"total", 10000 * mib},
                                  {"reserved", 500 * mib},
                                  {"managed", 4000 * mib},
                                  {"orphan", 1000 * mib},
                                  {"foreign", 500 * mib},
                                  {"unattributed", 250 * mib},
                                  {"free", 3750 * mib},
                                  {"overcounted", 0},
                                  {"holders", std::move(holders)},
                                  {"slices", json::array()}}}};
}

json::array usual_holders() {
  return {holder("managed", "", "chat", 3000), holder("managed", "", "embedding", 1000),
          holder("orphan", "undefined", "old.service", 1000), holder("foreign", "", "firefox", 500)};
}

TEST(Ledger, IsABarAndALegend) {
  Screen screen;
  screen.width = 63;
  EXPECT_EQ(render_ledger(gpu_of(usual_holders()), screen),
            "GPU 0  RTX 4090  6250 of 10000 MiB\n"
            "  ██████████████████▓▓▓▓▓▓!!!!!!///?===░░░░░░░░░░░░░░░░░░░░░░░\n"
            "  █  3000 MiB  chat          managed\n"
            "  ▓  1000 MiB  embedding     managed\n"
            "  !  1000 MiB  old.service   orphan: no file defines it\n"
            "  /   500 MiB  firefox       foreign, user ann\n"
            "  ?   250 MiB  unattributed  no process explains it\n"
            "  =   500 MiB  reserved      the driver's own\n"
            "  ░  3750 MiB  free\n");
}

TEST(Ledger, IsReadableInAsciiOnFortyColumns) {
  Screen screen;
  screen.width = 40;
  screen.unicode = false;
  const auto picture = render_ledger(gpu_of(usual_holders()), screen);
  for (const char c : picture)
    ASSERT_TRUE(c == '\n' || (c >= ' ' && c < 0x7F)) << picture;
  for (const auto line : split_lines(picture))
    EXPECT_LT(display_width(line), 40) << line;
  EXPECT_THAT(picture, HasSubstr("\n  ###########@@@@!!!!//?=..............\n"));
  EXPECT_THAT(picture, HasSubstr("#  3000 MiB  chat"));
}

TEST(Ledger, SaysWhatIsNotKnown) {
  auto gpu = gpu_of({holder("managed", "", "chat", 3000, false), holder("orphan", "escaped", "tts", 0, false),
                     holder("foreign", "unseen", "pid 7", 10)});
  const Screen screen;
  auto picture = render_ledger(gpu, screen);
  EXPECT_THAT(picture, HasSubstr("> 3000 MiB  chat"));
  EXPECT_THAT(picture, HasSubstr("not available  tts           orphan: it has left its unit\n"));
  EXPECT_THAT(picture, HasSubstr("foreign: ended, or not to be seen from here\n"));
  EXPECT_THAT(picture, HasSubstr("also of processes whose use is not available\n"));
  auto& ledger = gpu["ledger"].as_object();
  for (const char* key : {"total", "free", "reserved", "unattributed"})
    ledger[key] = nullptr;
  picture = render_ledger(gpu, screen);
  EXPECT_THAT(picture, HasSubstr("GPU 0  RTX 4090\n  its memory cannot be read\n"));
  EXPECT_THAT(picture, HasSubstr("> 3000 MiB  chat"));
  EXPECT_THAT(picture, Not(HasSubstr("free")));
  ledger["overcounted"] = 5 * mib;
  EXPECT_THAT(render_ledger(gpu, screen), HasSubstr("exceed what is used by 5 MiB"));
}

TEST(Ledger, SlicesHaveBarsOfTheirOwn) {
  auto gpu = gpu_of({});
  gpu["mig"] = true;
  auto slice = gpu_of(usual_holders())["ledger"].as_object();
  slice["gpu_instance"] = 9;
  slice["devices"] = json::array{json::object{{"uuid", "MIG-1"}, {"name", "NVIDIA A100 MIG 1g.10gb"}}};
  gpu["ledger"].as_object()["slices"] = json::array{slice};
  for (const char* key : {"total", "free", "unattributed", "reserved"})
    gpu["ledger"].as_object()[key] = nullptr;
  const auto picture = render_ledger(gpu, {});
  EXPECT_THAT(picture, HasSubstr("  MIG is on: only root may ask about the whole of it\n"));
  EXPECT_THAT(picture, HasSubstr("\nMIG 1g.10gb, instance 9  6250 of 10000 MiB\n"));
  EXPECT_EQ(ledger_lines(gpu),
            "GPU 0: memory cannot be read\n"
            "GPU 0 MIG 1g.10gb, instance 9: managed 4000 MiB (chat, embedding), orphan 1000 MiB (old.service), "
            "foreign 500 MiB (firefox), unattributed 250 MiB, reserved 500 MiB, free 3750 MiB of 10000 MiB\n");
}

TEST(Ledger, NamesOfProcessesCannotDriveTheTerminal) {
  const auto gpu = gpu_of({holder("foreign", "", "evil\x1b[2J\x07", 500)});
  for (const auto& shown : {render_ledger(gpu, {}), ledger_lines(gpu)}) {
    EXPECT_THAT(shown, HasSubstr("evil"));
    EXPECT_EQ(shown.find('\x1b'), std::string::npos);
    EXPECT_EQ(shown.find('\x07'), std::string::npos);
  }
}

TEST(Ledger, OfManyStrangersTheBiggestAreShown) {
  json::array many;
  for (int i = 0; i < 9; ++i)
    many.push_back(holder("foreign", "", fmt::format("program{}", i).c_str(), 90 - i));
  const auto picture = render_ledger(gpu_of(std::move(many)), {});
  EXPECT_THAT(picture, HasSubstr("program5"));
  EXPECT_THAT(picture, Not(HasSubstr("program6")));
  EXPECT_THAT(picture, HasSubstr("249 MiB  3 more        foreign\n"));
}

TEST(Ledger, ToleratesAnAnswerOfAnotherShape) {
  for (const char* odd :
       {"null", "[]", R"({"ledger":3})", R"({"index":0,"ledger":{"holders":[7,null],"slices":[1]}})"}) {
    EXPECT_FALSE(render_ledger(json::parse(odd), {}).empty()) << odd;
    EXPECT_FALSE(ledger_lines(json::parse(odd)).empty()) << odd;
  }
}

}  // namespace
}  // namespace gpumod::cli
