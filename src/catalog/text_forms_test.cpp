// Arguments as one text, environment files, and single values with their units.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "catalog/arguments.h"
#include "catalog/env_file.h"
#include "catalog/schema.h"

namespace gpumod {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

TEST(SplitArguments, follows_its_rules) {
  const std::pair<std::string, Words> cases[] = {
      {"", {}},
      {"  \n\t ", {}},
      {"--parallel 5 --cont-batching", {"--parallel", "5", "--cont-batching"}},
      {"--x='a b' \"c d\"e", {"--x=a b", "c de"}},
      {"'' \"\" x", {"", "", "x"}},
      {R"(a\ b \"q\" \\)", {"a b", "\"q\"", "\\"}},
      {R"("a\"b\\c\d" 'x\y"z')", {R"(a"b\c\d)", R"(x\y"z)"}},
      {"--a \\\n--b", {"--a", "--b"}},
      {"* $(id) `id` ; | > # $HOME", {"*", "$(id)", "`id`", ";", "|", ">", "#", "$HOME"}},
      {R"(--hf-overrides '{"a": [1, 2]}')", {"--hf-overrides", R"({"a": [1, 2]})"}},
  };
  for (const auto& [text, expected] : cases) {
    const auto words = split_arguments(text);
    ASSERT_TRUE(words) << text;
    EXPECT_EQ(*words, expected) << text;
  }
  for (const char* text : {"a 'b", "\"", "x\\", "\"a\\\""})
    EXPECT_FALSE(split_arguments(text)) << text;
  EXPECT_THAT(split_arguments("ab 'c").error().message, HasSubstr("character 4"));
}

TEST(EnvironmentFile, reads_lines_and_hides_values) {
  const auto lines = parse_environment_file(
      "# comment\n\nA=1\nexport B = two words # kept\nC='s $x \\n'\nD=\"q\\\"\\n\\$y\\z\"  # gone\r\nE=\nA=last\n"
      "no equals hunter2\n1X=hunter2\nF='hunter2\nG=\"a\"hunter2\n");
  EXPECT_EQ(lines.values,
            (std::map<std::string, std::string>{
                {"A", "last"}, {"B", "two words # kept"}, {"C", "s $x \\n"}, {"D", "q\"\n$y\\z"}, {"E", ""}}));
  std::vector<int> where;
  for (const auto& complaint : lines.complaints) {
    where.push_back(complaint.line);
    EXPECT_EQ(complaint.message.find("hunter2"), std::string::npos) << complaint.message;
  }
  EXPECT_THAT(where, ElementsAre(9, 10, 11, 12));
}

class SingleValues : public ::testing::Test {
 protected:
  YamlNode scalar(std::string text) {
    YamlNode node;
    node.kind = YamlNode::Kind::scalar;
    node.text = std::move(text);
    return node;
  }
  Surroundings around;
  std::vector<Problem> problems;
  Reading reading{"f", around, problems};
};

TEST_F(SingleValues, memory) {
  const std::pair<const char*, std::int64_t> good[] = {{"0", 0},          {"20000", 20000}, {"512MiB", 512},
                                                       {"20 GiB", 20480}, {"1.5GiB", 1536}, {"2G", 2048},
                                                       {"1 TiB", 1048576}};
  for (const auto& [text, mib] : good)
    EXPECT_EQ(read_memory(reading, scalar(text), shapes::memory()), Bytes::mib(mib)) << text;
  EXPECT_TRUE(problems.empty());
  for (const char* text :
       {"-1", "1.5", "20GB", "lots", "", "1048577", "2 TiB", "1e9", "nan", "0x10", "99999999999999999999", "5 GiB GiB"})
    EXPECT_FALSE(read_memory(reading, scalar(text), shapes::memory())) << text;
  EXPECT_EQ(problems.size(), 12u);
}

TEST_F(SingleValues, durations) {
  const auto shape = shapes::duration(1, 3600);
  const std::pair<const char*, Duration> good[] = {{"90", 90s},        {"90s", 90s},  {"2m", 120s},
                                                   {"1500ms", 1500ms}, {"1h", 3600s}, {"1.5 min", 90s}};
  for (const auto& [text, time] : good)
    EXPECT_EQ(read_duration(reading, scalar(text), shape), time) << text;
  for (const char* text : {"0", "0.5s", "2h", "-5", "soon", "5 d", "", "inf"})
    EXPECT_FALSE(read_duration(reading, scalar(text), shape)) << text;
}

TEST_F(SingleValues, numbers_and_truth) {
  EXPECT_EQ(read_integer(reading, scalar("8080"), shapes::integer(0, 65535)), 8080);
  EXPECT_EQ(read_integer(reading, scalar("-1"), shapes::integer(-1, 9)), -1);
  for (const char* text : {"65536", "-1", "080", "1.0", "0x50", "8080 ", "1_000", "99999999999999999999"})
    EXPECT_FALSE(read_integer(reading, scalar(text), shapes::integer(0, 65535))) << text;
  EXPECT_EQ(read_number(reading, scalar("0.9"), shapes::number(0, 1)), 0.9);
  EXPECT_EQ(read_number(reading, scalar("1"), shapes::number(0, 1)), 1.0);
  for (const char* text : {"0", "1.01", "nan", "inf", "-0.5", "half"})
    EXPECT_FALSE(read_number(reading, scalar(text), shapes::number(0, 1))) << text;
  EXPECT_EQ(read_boolean(reading, scalar("True"), shapes::boolean()), true);
  EXPECT_EQ(read_boolean(reading, scalar("off"), shapes::boolean()), false);
  EXPECT_FALSE(read_boolean(reading, scalar("1"), shapes::boolean()));
}

TEST_F(SingleValues, devices) {
  EXPECT_TRUE(read_devices(reading, scalar("auto"), shapes::devices())->any());
  EXPECT_THAT(read_devices(reading, scalar("0"), shapes::devices())->devices, ElementsAre("0"));
  EXPECT_THAT(read_devices(reading, scalar("GPU-8a3f5c12-1111-2222-3333-444455556666"), shapes::devices())->devices,
              ElementsAre("GPU-8a3f5c12-1111-2222-3333-444455556666"));
  for (const char* text : {"GPU-", "-1", "zero", "100", "GPU-x y z 1 2", ""})
    EXPECT_FALSE(read_devices(reading, scalar(text), shapes::devices())) << text;
}

TEST_F(SingleValues, variables_are_filled_in_once) {
  around.variables = {{"A", "1"}, {"LOOP", "$A ${LOOP}"}};
  around.machine = [](const std::string& name) -> std::optional<std::string> {
    return name == "HOME" ? std::optional<std::string>("/home/ada") : std::nullopt;
  };
  const YamlNode at = scalar("");
  const std::pair<const char*, const char*> good[] = {{"x$A.y", "x1.y"},          {"${A}2", "12"}, {"$$A", "$A"},
                                                      {"$LOOP", "$A ${LOOP}"},    {"5$", "5$"},    {"a$-b", "a$-b"},
                                                      {"$HOME/m", "/home/ada/m"}, {"~/m", "~/m"},  {"$$$A", "$1"}};
  for (const auto& [text, expected] : good)
    EXPECT_EQ(reading.expand(at, text, {}), expected) << text;
  EXPECT_EQ(reading.expand(at, "~/m", {.home = true}), "/home/ada/m");
  EXPECT_EQ(reading.expand(at, "x $PORT ${HOST}", {.keep_endpoint = true}), "x ${PORT} ${HOST}");
  EXPECT_TRUE(problems.empty());
  for (const char* text : {"$NOPE", "${NOPE}", "${A:-b}", "${", "${}", "$PORT"})
    EXPECT_FALSE(reading.expand(at, text, {})) << text;
  EXPECT_FALSE(reading.expand(at, "~bob/m", {.home = true}));
  EXPECT_EQ(problems.size(), 7u);
  EXPECT_THAT(problems.front().message, HasSubstr("$NOPE"));
  reading.know_endpoint("127.0.0.1", 8080);
  EXPECT_EQ(reading.expand(at, "http://$HOST:${PORT}", {}), "http://127.0.0.1:8080");
}

}  // namespace
}  // namespace gpumod
