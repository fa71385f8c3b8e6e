#include "faces/cli/cli.h"

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "faces/cli/help.h"
#include "faces/cli/run.h"

namespace gpumod::cli {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;

const std::vector<Verb>& verbs() {
  using Kind = Parameter::Kind;
  using Names = Parameter::Names;
  static const std::vector<Verb> all{
      {"status", "Show how things are", "", Verb::Effect::reads, {}, "{…}", nullptr},
      {"mode switch",
       "Switch to a mode",
       "It is a transaction.",
       Verb::Effect::mutates,
       {{"mode", Kind::text, true, true, "the mode's id", Names::modes, "MODE"},
        {"dry-run", Kind::flag, false, false, "print the plan", Names::none, ""}},
       R"({"switch":…})",
       nullptr},
      {"mode create",
       "Write a mode",
       "",
       Verb::Effect::edits,
       {{"mode", Kind::text, true, true, "the mode's id", Names::modes, "MODE"},
        {"services", Kind::list, false, false, "its services", Names::services, "SERVICE"},
        {"name", Kind::text, false, false, "its name", Names::none, "NAME"},
        {"apply", Kind::flag, false, false, "internal", Names::none, ""}},
       "",
       nullptr},
      {"service logs",
       "Show lines",
       "",
       Verb::Effect::reads,
       {{"service", Kind::text, true, true, "the service's id", Names::services, "SERVICE"},
        {"lines", Kind::integer, false, false, "how many", Names::none, "N", 'n'},
        {"follow", Kind::flag, false, false, "go on", Names::none, "", 'f'}},
       "",
       nullptr},
  };
  return all;
}

Result<Invocation> parsed(std::vector<std::string> arguments) {
  return parse(arguments, verbs());
}

std::string request_of(std::vector<std::string> arguments) {
  const auto invocation = parsed(std::move(arguments));
  return invocation ? json::serialize(invocation->request) : "error: " + invocation.error().message;
}

TEST(Parsing, WordsBecomeTheRequestOfAVerb) {
  const auto invocation = parsed({"mode", "switch", "code"});
  ASSERT_TRUE(invocation);
  EXPECT_EQ(invocation->kind, Invocation::Kind::verb);
  EXPECT_EQ(invocation->verb->name, "mode switch");
  EXPECT_EQ(json::serialize(invocation->request), R"({"mode":"code"})");
  EXPECT_FALSE(invocation->json);
}

TEST(Parsing, OptionsOfEveryKind) {
  EXPECT_EQ(request_of({"mode", "switch", "--dry-run", "code"}), R"({"mode":"code","dry-run":true})");
  EXPECT_EQ(request_of({"service", "logs", "chat", "-n", "20", "-f"}),
            R"({"service":"chat","lines":20,"follow":true})");
  EXPECT_EQ(request_of({"service", "logs", "chat", "-fn20"}), R"({"service":"chat","lines":20,"follow":true})");
  EXPECT_EQ(request_of({"service", "logs", "--lines=3", "chat"}), R"({"service":"chat","lines":3})");
}

TEST(Parsing, TwoDashesEndTheOptions) {
  EXPECT_EQ(request_of({"mode", "switch", "--", "code"}), R"({"mode":"code"})");
  EXPECT_EQ(request_of({"mode", "switch", "--dry-run", "--", "code"}), R"({"mode":"code","dry-run":true})");
  EXPECT_EQ(request_of({"mode", "switch", "--", "--dry-run"}), R"({"mode":"--dry-run"})");
}

TEST(Parsing, AVerbMayBeCalledLikeTheGroupOfOthers) {
  const auto named = [](std::vector<std::string> words) {
    const auto invocation = parse(words, all_verbs());
    return invocation ? invocation->verb->name : "error: " + invocation.error().message;
  };
  EXPECT_EQ(named({"history"}), "history");
  EXPECT_EQ(named({"history", "--limit", "5"}), "history");
  EXPECT_EQ(named({"history", "show", "last"}), "history show");
  EXPECT_EQ(named({"history", "--json", "show"}), "history show");
  EXPECT_THAT(named({"history", "shoe"}), HasSubstr("no use for 'shoe'"));
}

TEST(Parsing, ListsAreSeparatedByCommasOrRepeated) {
  const std::string expected = R"({"mode":"rag","services":["chat","embedding"]})";
  EXPECT_EQ(request_of({"mode", "create", "rag", "--services", "chat,embedding"}), expected);
  EXPECT_EQ(request_of({"mode", "create", "--services=chat, embedding", "rag"}), expected);
  EXPECT_EQ(request_of({"mode", "create", "--services", "chat", "--services", "embedding", "rag"}), expected);
}

TEST(Parsing, AListOptionDoesNotSwallowTheNextWord) {
  EXPECT_EQ(request_of({"mode", "create", "--services", "chat", "rag"}), R"({"mode":"rag","services":["chat"]})");
}

TEST(Parsing, GlobalOptionsStandAnywhere) {
  for (const auto& line : std::vector<std::vector<std::string>>{{"--json", "mode", "switch", "code"},
                                                                {"mode", "--json", "switch", "code"},
                                                                {"mode", "switch", "code", "--json"}}) {
    const auto invocation = parsed(line);
    ASSERT_TRUE(invocation);
    EXPECT_TRUE(invocation->json);
    EXPECT_EQ(json::serialize(invocation->request), R"({"mode":"code"})");
  }
  const auto plain = parsed({"status", "--no-color"});
  ASSERT_TRUE(plain);
  EXPECT_TRUE(plain->no_colour);
}

struct Wrong {
  std::vector<std::string> arguments;
  std::string message;
  std::string hint;
};

class UsageErrors : public testing::TestWithParam<Wrong> {};

TEST_P(UsageErrors, NameWhatIsWrongAndWhatIsNear) {
  const auto result = parsed(GetParam().arguments);
  ASSERT_FALSE(result);
  EXPECT_EQ(exit_code(result.error()), 2);
  EXPECT_THAT(result.error().message, HasSubstr(GetParam().message));
  EXPECT_THAT(result.error().hint, HasSubstr(GetParam().hint));
}

INSTANTIATE_TEST_SUITE_P(
    Cli, UsageErrors,
    testing::Values(Wrong{{"statsu"}, "no command 'statsu'", "'status'"},
                    Wrong{{"switch", "code"}, "no command 'switch'", "'mode switch'"},
                    Wrong{{"zzzzzz"}, "no command 'zzzzzz'", "gpumod help"},
                    Wrong{{"mode", "swich", "code"}, "no command 'swich'", "'switch'"},
                    Wrong{{"mode"}, "needs one more word", "switch, create"},
                    Wrong{{"mode", "switch"}, "needs MODE", "gpumod mode switch MODE [--dry-run]"},
                    Wrong{{"mode", "switch", "code", "--dry"}, "no option '--dry'", "'--dry-run'"},
                    Wrong{{"mode", "switch", "code", "rag"}, "no use for 'rag'", "Usage:"},
                    Wrong{{"mode", "create", "x", "--apply"}, "no option '--apply'", ""},
                    Wrong{{"service", "logs", "chat", "-n", "many"}, "whole number, not 'many'", ""},
                    Wrong{{"service", "logs", "chat", "-n"}, "--lines", "Usage:"},
                    Wrong{{"service", "logs", "chat", "--lines", "99999999999999999999"}, "cannot be as large", ""},
                    Wrong{{"service", "logs", "chat", "--lines"}, "--lines needs a value", "Usage:"},
                    Wrong{{"mode", "create", "x", "--name", "\xff"}, "not UTF-8", ""},
                    Wrong{{"--bogus"}, "no option '--bogus'", ""},
                    Wrong{{"help", "stats"}, "no command 'stats'", "'status'"},
                    Wrong{{"nope", "--help"}, "no command 'nope'", ""}));

TEST(Parsing, JsonIsHonouredWhenTheRestIsWrong) {
  EXPECT_TRUE(wants_json({"bogus", "--json"}));
  EXPECT_FALSE(wants_json({"bogus", "--", "--json"}));
}

TEST(Parsing, WhatIsNoVerb) {
  const auto nothing = parsed({});
  ASSERT_TRUE(nothing);
  EXPECT_EQ(nothing->kind, Invocation::Kind::help);
  EXPECT_TRUE(nothing->words.empty());
  EXPECT_EQ(parsed({"--version"})->kind, Invocation::Kind::version);
  const auto help = parsed({"mode", "switch", "code", "--bogus", "--help"});
  ASSERT_TRUE(help);
  EXPECT_EQ(help->kind, Invocation::Kind::help);
  EXPECT_EQ(help->words.front(), "mode");
  const auto completing = parsed({"__complete", "mode", "--json", ""});
  ASSERT_TRUE(completing);
  EXPECT_EQ(completing->kind, Invocation::Kind::complete);
  EXPECT_THAT(completing->words, testing::ElementsAre("mode", "--json", ""));
}

TEST(Parsing, McpAloneIsTheServer) {
  EXPECT_EQ(parse({"mcp"}, all_verbs())->kind, Invocation::Kind::mcp);
  EXPECT_FALSE(parse({"mcp", "--nonsense"}, all_verbs()));
  const auto setup = parse({"mcp", "install", "--print", "vscode"}, all_verbs());
  ASSERT_TRUE(setup);
  EXPECT_EQ(setup->verb->name, "mcp install");
  EXPECT_EQ(parse({"mcp", "--help"}, all_verbs())->kind, Invocation::Kind::help);
  const auto help = help_about({"mcp"}, all_verbs());
  ASSERT_TRUE(help);
  EXPECT_THAT(*help, HasSubstr("mcp install"));
}

TEST(Help, OfAVerbSaysWhatAPersonNeeds) {
  const auto help = help_about({"mode", "switch", "code"}, verbs());
  ASSERT_TRUE(help);
  EXPECT_THAT(*help, HasSubstr("Usage: gpumod mode switch MODE [--dry-run]"));
  EXPECT_THAT(*help, HasSubstr("It is a transaction."));
  EXPECT_THAT(*help, HasSubstr("gpumod mode switch code"));
  EXPECT_THAT(*help, HasSubstr("130  cancelled by Ctrl-C"));
  EXPECT_FALSE(help_about({"nope"}, verbs()));
  EXPECT_THAT(*help_about({"mode", "create"}, verbs()), Not(HasSubstr("apply")));
}

TEST(Help, AloneSaysWhatToTypeNext) {
  EXPECT_THAT(short_help({}, false, {}), HasSubstr("gpumod init"));
  const auto configured = short_help({}, true, {"code", "rag"});
  EXPECT_THAT(configured, HasSubstr("switch to: code, rag"));
  EXPECT_THAT(configured, Not(HasSubstr("gpumod init")));
}

TEST(Help, TheReferenceNamesEveryVerbAndExitCode) {
  const auto text = reference_markdown(verbs());
  for (const auto& verb : verbs())
    EXPECT_THAT(text, HasSubstr("## gpumod " + verb.name + "\n"));
  for (const auto& code : exit_codes())
    EXPECT_THAT(text, HasSubstr("| " + std::to_string(code.number) + " |"));
  EXPECT_THAT(text, HasSubstr("| `-n`, `--lines N` | how many |"));
}

TEST(Errors, ExitCodesAreThoseOfTheInterface) {
  EXPECT_EQ(exit_code(Error{ErrorCode::failed, "", {}, {}}), 1);
  EXPECT_EQ(exit_code(Error{ErrorCode::refused, "", {}, {}}), 3);
  EXPECT_EQ(exit_code(Error{ErrorCode::not_found, "", {}, {}}), 4);
  EXPECT_EQ(exit_code(Error{ErrorCode::busy, "", {}, {}}), 5);
  EXPECT_EQ(exit_code(Error{ErrorCode::configuration, "", {}, {}}), 6);
  EXPECT_EQ(exit_code(Error{ErrorCode::environment, "", {}, {}}), 7);
  EXPECT_EQ(exit_code(Error{ErrorCode::cancelled, "", {}, {}}), 130);
}

TEST(Errors, AJsonErrorHasTheShapeOfTheInterface) {
  EXPECT_EQ(json::serialize(error_document(Error{ErrorCode::not_found, "no 'x'", "Did you mean 'y'?", {}})),
            R"({"error":{"code":"not_found","message":"no 'x'","hint":"Did you mean 'y'?","details":null}})");
}

TEST(Errors, TheReportOfAFailedSwitchStandsWhereItStandsWhenItSucceeds) {
  Error error{ErrorCode::failed, "it failed", "",
              json::parse(R"({"switch":{"id":3,"result":"rolled_back"},"fits":["a"]})")};
  const auto document = error_document(error);
  EXPECT_EQ(document.at("switch").at("result"), "rolled_back");
  EXPECT_EQ(json::serialize(document.at("error").at("details")), R"({"fits":["a"]})");
  error.details = json::parse(R"({"switch":{"id":3}})");
  EXPECT_TRUE(error_document(error).at("error").at("details").is_null());
}

TEST(Json, NumbersAreWrittenAsPeopleWriteThem) {
  EXPECT_EQ(json_text(json::parse(R"({"a":[1,2.5,{"b":"{"}],"c":{"d":1.069E0,"e":null},"f\"":true})")),
            R"({"a":[1,2.5,{"b":"{"}],"c":{"d":1.069,"e":null},"f\"":true})");
}

std::vector<std::string> names_in(const json::object& document) {
  std::vector<std::string> names;
  for (const auto& command : document.at("commands").as_array())
    names.emplace_back(command.at("name").as_string());
  return names;
}

TEST(HelpDocument, IsOfOneCommandOfAGroupOrOfAll) {
  using testing::Contains;
  using testing::ElementsAre;
  const auto one = help_document({"mode", "switch"}, verbs());
  EXPECT_THAT(names_in(one), ElementsAre("mode switch"));
  const auto& command = one.at("commands").at(0);
  EXPECT_EQ(command.at("usage").as_string(), "gpumod mode switch MODE [--dry-run]");
  EXPECT_EQ(command.at("effect").as_string(), "mutates");
  EXPECT_EQ(command.at("parameters").at(1).at("kind").as_string(), "flag");
  EXPECT_THAT(names_in(help_document({"mode"}, verbs())), ElementsAre("mode switch", "mode create"));
  EXPECT_THAT(names_in(help_document({"completion"}, verbs())), ElementsAre("completion"));
  const auto all = help_document({}, verbs());
  EXPECT_EQ(all.at("exit_codes").as_array().size(), exit_codes().size());
  EXPECT_THAT(names_in(all), Contains("service logs"));
  EXPECT_THAT(json::serialize(all), Not(HasSubstr("apply"))) << "what only faces send is nobody's option";
}

}  // namespace
}  // namespace gpumod::cli
