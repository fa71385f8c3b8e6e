#include "faces/cli/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod::cli {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

const std::vector<Verb>& verbs() {
  using Kind = Parameter::Kind;
  using Names = Parameter::Names;
  static const std::vector<Verb> all{
      {"init",
       "Begin",
       "",
       Verb::Effect::edits,
       {{"models", Kind::list, false, false, "", Names::none, "DIR"},
        {"apply", Kind::flag, false, false, "", Names::none, ""}},
       "",
       nullptr},
      {"mode switch",
       "Switch",
       "",
       Verb::Effect::mutates,
       {{"mode", Kind::text, true, true, "", Names::modes, "MODE"},
        {"dry-run", Kind::flag, false, false, "", Names::none, ""}},
       "",
       nullptr},
      {"mode create",
       "Create",
       "",
       Verb::Effect::edits,
       {{"mode", Kind::text, true, true, "", Names::none, "MODE"},
        {"services", Kind::list, false, false, "", Names::services, "SERVICE"}},
       "",
       nullptr},
      {"history",
       "List",
       "",
       Verb::Effect::reads,
       {{"limit", Kind::integer, false, false, "", Names::none, "N"}},
       "",
       nullptr},
      {"history show",
       "Show",
       "",
       Verb::Effect::reads,
       {{"trace", Kind::text, false, false, "", Names::none, "FILE"}},
       "",
       nullptr},
  };
  return all;
}

std::vector<std::string> completed(std::vector<std::string> words) {
  std::vector<std::string> found;
  const auto names = [](Parameter::Names which) {
    return which == Parameter::Names::modes ? std::vector<KnownName>{{"code", "Coding"}, {"rag", ""}}
                                            : std::vector<KnownName>{{"chat", ""}, {"embedding", ""}};
  };
  for (const auto& candidate : candidates_for(words, verbs(), names))
    found.push_back(candidate.word);
  return found;
}

TEST(Completion, CommandsThenIdsThenOptions) {
  EXPECT_THAT(completed({""}), ElementsAre("init", "history", "mode", "help", "completion", "mcp"));
  EXPECT_THAT(completed({"mo"}), ElementsAre("mode"));
  EXPECT_THAT(completed({"mode", ""}), ElementsAre("switch", "create"));
  EXPECT_THAT(completed({"mode", "switch", ""}), ElementsAre("code", "rag"));
  EXPECT_THAT(completed({"mode", "switch", "--dry-run", "r"}), ElementsAre("rag"));
  EXPECT_THAT(completed({"mode", "switch", "rag", ""}), IsEmpty());
  EXPECT_THAT(completed({"mode", "switch", "rag", "--d"}), ElementsAre("--dry-run"));
  EXPECT_THAT(completed({"help", "mode", "s"}), ElementsAre("switch"));
  EXPECT_THAT(completed({"completion", ""}), ElementsAre("bash", "zsh", "fish"));
}

TEST(Completion, ValuesOfOptionsAndLists) {
  EXPECT_THAT(completed({"mode", "create", "x", "--services", ""}), ElementsAre("chat", "embedding"));
  EXPECT_THAT(completed({"mode", "create", "--services", "chat,"}), ElementsAre("chat,embedding"));
  EXPECT_THAT(completed({"mode", "create", "--services=c"}), ElementsAre("--services=chat"));
  EXPECT_THAT(completed({"mode", "create", "--services", "=", "c"}), ElementsAre("chat"));  // bash
  EXPECT_THAT(completed({"mode", "create", "--services", "="}), ElementsAre("chat", "embedding"));
  EXPECT_THAT(completed({"init", "--models", ""}), ElementsAre(":folders"));
}

TEST(Completion, WhatFacesSendThemselvesIsNotOffered) {
  EXPECT_THAT(completed({"init", "--"}), Not(Contains("--apply")));
  EXPECT_THAT(completed({"init", "--"}), Contains("--models"));
}

TEST(Completion, NonsenseYieldsNothing) {
  EXPECT_THAT(completed({"nope", ""}), IsEmpty());
  EXPECT_THAT(completed({"mode", "nope", "x", ""}), IsEmpty());
  EXPECT_THAT(completed({}), Contains("mode"));
}

TEST(Completion, AScriptForEachShell) {
  for (const char* shell : {"bash", "zsh", "fish"})
    EXPECT_NE(completion_script(shell).find("gpumod __complete"), std::string_view::npos);
  EXPECT_TRUE(completion_script("tcsh").empty());
}

TEST(Completion, AVerbThatIsAlsoAGroupOffersBoth) {
  EXPECT_THAT(completed({"history", ""}), ElementsAre("show"));
  EXPECT_THAT(completed({"history", "--l"}), ElementsAre("--limit"));
  EXPECT_THAT(completed({"history", "show", "--t"}), ElementsAre("--trace"));
}

}  // namespace
}  // namespace gpumod::cli
