#include "verbs/toml_edit.h"

#include <boost/json.hpp>
#include <gmock/gmock.h>

namespace gpumod {
namespace {

using testing::HasSubstr;

std::string with_table(std::string_view text) {
  return with_toml_table(text, {"servers", "gpumod"}, {{"command", "x"}, {"args", {"mcp"}}}).value_or("(refused)");
}

const std::string table = "[servers.gpumod]\ncommand = \"x\"\nargs = [\"mcp\"]\n";

TEST(TomlEdit, AddsATableAtTheEnd) {
  EXPECT_EQ(with_table(""), table);
  EXPECT_EQ(with_table("# mine"), "# mine\n\n" + table);
  EXPECT_EQ(with_table("a = 1\r\n").substr(0, 33), "a = 1\r\n\r\n[servers.gpumod]\r\ncomman");
  for (const std::string before :
       {"a = 1\n", "[servers.other]\ncommand = \"gpumod\"\n", "servers.other.x = 1\n",
        "s = \"\"\"\n[servers.gpumod]\n\\\"\"\"\"\"\"\n", "s = '''\n[servers.gpumod]'''\n",
        "a = [ # [servers.gpumod]\n  {b = 1979-05-27 07:32:00}, 'x]',\n]\n", "[[jobs]]\nservers = {gpumod = 1}\n",
        "[servers]\n\"gpumod.\" = 'x'\n[\"servers.gpumod\"]\n"}) {
    const auto after = with_table(before);
    EXPECT_EQ(after, before + "\n" + table);
    EXPECT_EQ(with_table(after), after) << "twice is as good as once";
  }
}

TEST(TomlEdit, WritesEveryTextAsTomlDoes) {
  const auto text = toml_table({"a b", "c"}, {{"k", "q\"\\"}, {"env", {{"X", "1"}, {"Y.Z", "2"}}}});
  EXPECT_EQ(text, "[\"a b\".c]\nk = \"q\\\"\\\\\"\nenv = { X = \"1\", \"Y.Z\" = \"2\" }\n");
}

TEST(TomlEdit, KnowsTheTableHoweverItIsWritten) {
  for (const char* text : {"[servers.gpumod] # mine\nargs = ['mcp',]\ncommand = 'x'\ntimeout = 5",
                           "[ servers . \"gpumod\" ]\nargs=[\n\"mcp\"\n]\ncommand=\"x\"",
                           "servers = {gpumod = {command = \"x\", args = [\"mcp\"]}}",
                           "[servers]\ngpumod.command = \"x\"\ngpumod.args = [\"mcp\"]",
                           "servers.gpumod = {command = \"\\u0078\", args = [\"mcp\"]}"})
    EXPECT_EQ(with_table(text), text);
}

TEST(TomlEdit, RefusesWhatItWouldChangeOrCannotRead) {
  for (const char* text : {"[servers.gpumod]\ncommand = \"y\"\nargs = [\"mcp\"]", "[servers.gpumod.env]\nA = \"b\"",
                           "servers = {}", "servers = 5", "[[servers]]\n", "[[servers.gpumod]]\n",
                           "[servers]\ngpumod = 1", "servers.gpumod.command = \"y\""}) {
    const auto edited = with_toml_table(text, {"servers", "gpumod"}, {{"command", "x"}});
    ASSERT_FALSE(edited) << text;
    EXPECT_EQ(edited.error().code, ErrorCode::refused) << text;
  }
  // What is added might stand within a text.
  for (const char* text : {"s = \"\"\"\n", "s = 'x\n", "a", "a =", "= 1", "[a", "[a]]", "a = [1", "a = {b = 1",
                           "a = 1 b = 2", "a = \"x\" y", "\xff = 1", "{}", "a = \"\\", "a = '''x''"}) {
    const auto edited = with_toml_table(text, {"servers", "gpumod"}, {{"command", "x"}});
    ASSERT_FALSE(edited) << text;
    EXPECT_EQ(edited.error().code, ErrorCode::configuration) << text;
  }
  EXPECT_THAT(with_toml_table("\n\nx", {"a"}, {}).error().message, HasSubstr("line 3"));
}

}  // namespace
}  // namespace gpumod
