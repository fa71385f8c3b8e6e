#include "engines/testing.h"

namespace gpumod {
namespace {

std::vector<std::string> unknown(const std::vector<std::string>& argv, std::string_view help) {
  std::vector<std::string> found;
  for (const auto& flag : unknown_flags(argv, help))
    found.push_back(flag.flag + ">" + flag.nearest);
  return found;
}

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::string_view help =
    "-c,    --ctx-size N      size of the context (see --n-predict.)\n"
    "--embedding, --embeddings\n"
    "  --port=PORT\n"
    "  [--hf-overrides JSON] [--enable-prefix-caching | --no-enable-prefix-caching]\n"
    "\x1b[1;36m--colour\x1b[0m  coloured\n"
    "----- a line of dashes -----\n";

TEST(UnknownFlags, ATypoWithTheNearest) {
  EXPECT_THAT(unknown({"x", "--ctx-sise", "8", "--prot", "1"}, help),
              ElementsAre("--ctx-sise>--ctx-size", "--prot>--port"));
}

TEST(UnknownFlags, NoFalseAlarm) {
  EXPECT_THAT(unknown({"--program", "--ctx-size", "-8", "--embeddings", "--port=80", "--n-predict", "--ctx_size",
                       "--colour", "--hf-overrides.a.b", "1", "-ngl", "--", "--whatever"},
                      help),
              IsEmpty());
  // Texts that begin with dashes are values, not flags.
  EXPECT_THAT(unknown({"x", "--port", "-----", "--- BEGIN", "--no way out"}, help), IsEmpty());
}

TEST(UnknownFlags, HelpWithoutFlagsSaysNothing) {
  EXPECT_THAT(unknown({"x", "--anything"}, ""), IsEmpty());
  EXPECT_THAT(unknown({"x", "--anything"}, "usage: x FILE -- the program"), IsEmpty());
}

TEST(UnknownFlags, FarFromEverything) {
  EXPECT_THAT(unknown({"x", "--zzzzzzzzzzzz"}, help), ElementsAre("--zzzzzzzzzzzz>"));
}

}  // namespace
}  // namespace gpumod
