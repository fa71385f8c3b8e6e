#include <boost/json.hpp>
#include <gmock/gmock.h>

#include "verbs/context.h"
#include "verbs/handlers.h"
#include "verbs/json_edit.h"
#include "verbs/tree_testing.h"

namespace gpumod {
namespace {

namespace json = boost::json;
using testing::HasSubstr;

std::string edited(std::string_view text) {
  return with_json_value(text, {"servers", "gpumod"}, json::value{{"a", 1}}).value_or("(refused)");
}

TEST(JsonEdit, MakesWhatIsMissing) {
  const std::string whole = "{\n  \"servers\": {\n    \"gpumod\": {\n      \"a\": 1\n    }\n  }\n}\n";
  EXPECT_EQ(edited(""), whole);
  EXPECT_EQ(edited("  \n"), whole);
  EXPECT_EQ(edited("{}\n"), whole);
  EXPECT_EQ(edited(whole), whole) << "twice is as good as once";
}

TEST(JsonEdit, LeavesEverythingElse) {
  EXPECT_EQ(
      edited("// mine\n{\n\t\"x\": [1, 2,], // two\n\t/* and */ \"servers\": {\n\t\t\"b\": {\"c\": \"}\\\"//\"} // "
             "last\n\t}\n}"),
      "// mine\n{\n\t\"x\": [1, 2,], // two\n\t/* and */ \"servers\": {\n\t\t\"b\": {\"c\": \"}\\\"//\"}, // last\n"
      "\t\t\"gpumod\": {\n\t\t\t\"a\": 1\n\t\t}\n\t}\n}");
  EXPECT_EQ(edited("{\"servers\":{\"gpumod\":{\"a\":2},\"z\":0,}}"),
            "{\"servers\":{\"gpumod\":{\n      \"a\": 1\n    },\"z\":0,}}");
  EXPECT_EQ(edited("{\r\n  \"y\": 1,\r\n}\r\n"),
            "{\r\n  \"y\": 1,\r\n  \"servers\": {\r\n    \"gpumod\": {\r\n      \"a\": 1\r\n    }\r\n  }\r\n}\r\n");
  EXPECT_EQ(edited("{\"serv\\u0065rs\":{}}"), "{\"serv\\u0065rs\":{\n    \"gpumod\": {\n      \"a\": 1\n    }\n  }}");
  EXPECT_EQ(edited("\xEF\xBB\xBF{}"),
            "\xEF\xBB\xBF{\n  \"servers\": {\n    \"gpumod\": {\n      \"a\": 1\n    }\n  }\n}");
}

TEST(JsonEdit, AddsBehindAWholeComment) {
  EXPECT_EQ(edited("{ // mine\f\n}"),
            "{ // mine\f\n  \"servers\": {\n    \"gpumod\": {\n      \"a\": 1\n    }\n  }\n}");
}

TEST(JsonEdit, RefusesWhatItCannotRead) {
  for (const char* text :
       {"{", "[]", "7", "{\"servers\": 5}", "{\"servers\": [1]}", "{,}", "{\"a\": 1} x", "{\"a\" 1}"})
    EXPECT_EQ(edited(text), "(refused)") << text;
}

class McpInstall : public testing::Test {
 public:
  Result<json::value> install(json::object request) {
    Loop loop;
    Context context(loop, tree_.paths(), nullptr);
    return loop.run_until_done(mcp_install(context, std::move(request)));
  }
  static constexpr const char* file = "home/.cursor/mcp.json";
  TestTree tree_;
};

TEST_F(McpInstall, WritesANewFileForItsOwnerAlone) {
  const auto answer = install({{"client", "cursor"}});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_TRUE(answer->at("installed").at("changed").as_bool());
  EXPECT_TRUE(answer->at("installed").at("backup").is_null());
  const auto written = json::parse(tree_.read(file));
  EXPECT_EQ(json::serialize(written.at("mcpServers").at("gpumod").at("args")), R"(["mcp"])");
  EXPECT_EQ(std::filesystem::status(tree_.root() / file).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  EXPECT_FALSE(install({{"client", "cursor"}})->at("installed").at("changed").as_bool());
}

TEST_F(McpInstall, KeepsWhatPeopleWrote) {
  const std::string before =
      "{\n  // mine\n  \"mcpServers\": {\"gpumod\": {\"command\": \"old\", \"timeout\": 5}, \"other\": {}}\n}\n";
  tree_.write(file, before);
  const auto link = tree_.root() / "home/.cursor/real.json";
  std::filesystem::rename(tree_.root() / file, link);
  std::filesystem::create_symlink(link, tree_.root() / file);
  ASSERT_TRUE(install({{"client", "cursor"}}));
  EXPECT_TRUE(std::filesystem::is_symlink(tree_.root() / file));
  const auto after = tree_.read(file);
  for (const char* part : {"// mine", "\"timeout\": 5", "\"other\": {}", "\"mcp\""})
    EXPECT_THAT(after, HasSubstr(part));
  EXPECT_THAT(after, testing::Not(HasSubstr("\"old\"")));
  EXPECT_EQ(tree_.read("home/.cursor/real.json.before-gpumod"), before);
}

TEST_F(McpInstall, WhatWasThereFirstIsNeverWrittenOver) {
  const std::string before = R"({"mcpServers": {"gpumod": {"command": "mine"}}})";
  tree_.write(file, before);
  ASSERT_TRUE(install({{"client", "cursor"}}));
  tree_.write(file, R"({"mcpServers": {"gpumod": {"command": "mine again"}}})");
  ASSERT_TRUE(install({{"client", "cursor"}}));
  EXPECT_EQ(tree_.read(std::string(file) + ".before-gpumod"), before);
  EXPECT_THAT(tree_.read(std::string(file) + ".before-gpumod.2"), HasSubstr("mine again"));
}

TEST_F(McpInstall, ALinkToNowhereStaysALink) {
  tree_.write("home/.cursor/other", "");
  std::filesystem::create_symlink(tree_.root() / "home/unmounted/mcp.json", tree_.root() / file);
  const auto answer = install({{"client", "cursor"}});
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error().message, HasSubstr("unmounted/mcp.json, which is not there"));
  EXPECT_TRUE(std::filesystem::is_symlink(tree_.root() / file));
}

TEST_F(McpInstall, CodexHasAFileThatIsNoJson) {
  const ScopedVariable nowhere("CODEX_HOME", "");
  const char* codex = "home/.codex/config.toml";
  const std::string before = "model = \"x\" # mine\n", other = "[mcp_servers.gpumod]\ncommand = \"mine\"\n";
  tree_.write(codex, before);
  const auto shown = install({{"client", "codex"}, {"print", true}});
  ASSERT_TRUE(shown) << shown.error().message;
  const std::string text(shown->at("shown").at("text").as_string());
  EXPECT_THAT(text, testing::StartsWith("[mcp_servers.gpumod]\ncommand = "));
  ASSERT_TRUE(install({{"client", "codex"}}));
  EXPECT_EQ(tree_.read(codex), before + "\n" + text);
  EXPECT_EQ(tree_.read(std::string(codex) + ".before-gpumod"), before);
  EXPECT_FALSE(install({{"client", "codex"}})->at("installed").at("changed").as_bool());
  tree_.write(codex, other);
  const auto refused = install({{"client", "codex"}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::refused);
  EXPECT_THAT(refused.error().message, HasSubstr("mcp_servers.gpumod is there already, and says something else"));
  EXPECT_THAT(refused.error().hint, HasSubstr("--print"));
  EXPECT_EQ(tree_.read(codex), other);
}

TEST_F(McpInstall, AClientThatKeepsItsFilesElsewhereIsFoundThere) {
  const ScopedVariable there("COPILOT_HOME", (tree_.root() / "elsewhere").string());
  ASSERT_TRUE(install({{"client", "copilot"}}));
  const auto entry = json::parse(tree_.read("elsewhere/mcp-config.json")).at("mcpServers").at("gpumod");
  EXPECT_EQ(entry.at("type").as_string(), "stdio");
  EXPECT_EQ(json::serialize(entry.at("tools")), R"(["*"])");
}

TEST_F(McpInstall, LeavesWhatItCannotRead) {
  tree_.write(file, "{ not json");
  const auto answer = install({{"client", "cursor"}});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::configuration);
  EXPECT_THAT(answer.error().hint, HasSubstr("--print"));
  EXPECT_EQ(tree_.read(file), "{ not json");
}

TEST_F(McpInstall, ShowsWithoutWriting) {
  const auto answer = install({{"client", "vscode"}, {"print", true}});
  EXPECT_EQ(answer->at("shown").at("entry").at("servers").at("gpumod").at("type").as_string(), "stdio");
  EXPECT_FALSE(std::filesystem::exists(tree_.root() / "home"));
  EXPECT_EQ(install({{"client", "emacs"}}).error().code, ErrorCode::usage);
  EXPECT_EQ(install({{"client", "windsurf"}, {"project", true}}).error().code, ErrorCode::usage);
}

}  // namespace
}  // namespace gpumod
