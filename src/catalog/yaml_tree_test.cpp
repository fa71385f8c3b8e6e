#include "catalog/yaml_tree.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

using ::testing::HasSubstr;

std::string first_problem(std::string_view text) {
  const auto document = parse_yaml(text);
  if (document.problems.empty()) return "none";
  const auto& problem = document.problems.front();
  return fmt::format("{}:{}: {}", problem.line, problem.column, problem.message);
}

std::string repeated(std::string_view unit, std::size_t bytes) {
  std::string text;
  while (text.size() + unit.size() <= bytes)
    text += unit;
  return text;
}

TEST(YamlTree, keeps_values_with_their_places) {
  const auto document = parse_yaml("a: 1\nb:\n  - x\n  - \"2\"\n");
  ASSERT_TRUE(document.root);
  EXPECT_TRUE(document.problems.empty());
  const auto* a = document.root->find("a");
  ASSERT_TRUE(a);
  EXPECT_EQ(a->value->text, "1");
  EXPECT_EQ(a->value->line, 1);
  EXPECT_EQ(a->value->column, 4);
  const auto& items = document.root->find("b")->value->items;
  ASSERT_EQ(items.size(), 2u);
  EXPECT_FALSE(items[0]->quoted);
  EXPECT_TRUE(items[1]->quoted);
  EXPECT_EQ(items[1]->line, 4);
}

TEST(YamlTree, columns_count_characters) {
  const auto document = parse_yaml("\xEF\xBB\xBFné: {ü: x, y: z}\r\nb: 2\r\n");
  ASSERT_TRUE(document.root);
  EXPECT_EQ(document.root->entries[0].value->find("y")->value->column, 15);
  EXPECT_EQ(document.root->entries[1].key->line, 2);
}

TEST(YamlTree, refuses_with_the_place) {
  const std::pair<std::string, std::string> cases[] = {
      {"a: 1\nb: 2\na: 3\n", "3:1: the key 'a' stands twice"},
      {"a: {b: 1, b: 2}\n", "1:11: the key 'b' stands twice"},
      {"a: 1\n---\nb: 2\n", "2:1: a second document begins here"},
      {"a: 1\n\tb: 2\n", "2:1: a tab stands in the indentation"},
      {"a:\n  \tb: 2\n", "2:3: a tab stands in the indentation"},
      {"\ta: 1\n", "1:1: a tab stands in the indentation"},
      {"a: 1\nb: \xFF\n", "2:4: the file is not UTF-8: byte 0xFF"},
      {"\xFF\xFE"
       "a",
       "1:1: the file is not UTF-8: byte 0xFF"},
      {std::string("a: x\0y\n", 7), "1:5: a control character (0x00) stands in the file"},
      {"a: x\x04y\n", "1:5: a control character (0x04) stands in the file"},
      {"a: !!binary aGk=\n", "1:4: the tag 'tag:yaml.org,2002:binary' means nothing here"},
      {"a: !secret x\n", "1:4: the tag '!secret' means nothing here"},
      {"? [a, b]\n: 1\n", "1:3: a key must be a plain word"},
      {"~: 1\n", "1:1: a key must be a plain word"},
      {"a: &x [*x]\n", "1:8: an alias stands inside the very value that it names"},
      {"a: *nowhere\n", "1:4: this is not valid YAML: the referenced anchor is not defined"},
      {"a: 1\n<<: 3\n", "2:5: a merge key (<<) takes a map, or a list of maps"},
      {"a: [1, 2\n", "2:1: this is not valid YAML: end of sequence flow not found"},
      {"a: 'x\n", "2:1: this is not valid YAML: illegal EOF in scalar"},
      {"a: \"x\nb: 2\n", "3:1: this is not valid YAML: illegal EOF in scalar"},
      {"a: 'x\nb: 'y'\n", "2:5: this is not valid YAML: end of map not found"},
      {repeated("[", 400) + repeated("]", 400), "1:65: values are nested more than 64 levels deep"},
      {repeated("- ", 400), "1:129: values are nested more than 64 levels deep"},
      {repeated("a", yaml_file_limit + 1), "0:0: the file is larger than 1024 KiB"},
      {"[" + repeated("a,", 2 * yaml_node_limit + 2) + "a]",
       "1:200000: the file holds more than 100000 values, its aliases counted each time"},
  };
  for (const auto& [text, expected] : cases)
    EXPECT_EQ(first_problem(text), expected) << text.substr(0, 60);
}

TEST(YamlTree, an_alias_bomb_is_counted_not_built) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 60; ++i) {
    bomb += fmt::format("a{}: &a{} [", i, i);
    for (int j = 0; j < 9; ++j)
      bomb += fmt::format("*a{}{}", i - 1, j < 8 ? ", " : "]\n");
  }
  EXPECT_THAT(first_problem(bomb), HasSubstr("the file holds more than 100000 values"));
  std::string merges = "a0: &a0 {k0: 1}\n";
  for (int i = 1; i < 60; ++i)
    merges += fmt::format("a{}: &a{} {{x: *a{}, y: *a{}, <<: *a{}}}\n", i, i, i - 1, i - 1, i - 1);
  EXPECT_THAT(first_problem(merges), HasSubstr("the file holds more than 100000 values"));
}

TEST(YamlTree, merge_keys_fill_in_what_is_missing) {
  const auto document = parse_yaml("base: &b {x: 1, y: 2}\nmore: &m {y: 9, z: 3}\nitem:\n  x: 7\n  <<: [*b, *m]\n");
  ASSERT_TRUE(document.root);
  EXPECT_TRUE(document.problems.empty());
  const auto& item = *document.root->find("item")->value;
  EXPECT_EQ(item.entries.size(), 3u);
  EXPECT_EQ(item.find("x")->value->text, "7");
  EXPECT_EQ(item.find("y")->value->text, "2");
  EXPECT_EQ(item.find("z")->value->text, "3");
}

TEST(YamlTree, a_quoted_merge_key_is_an_ordinary_key) {
  const auto document = parse_yaml("\"<<\": 3\n");
  ASSERT_TRUE(document.root);
  EXPECT_TRUE(document.problems.empty());
  EXPECT_TRUE(document.root->find("<<"));
}

TEST(YamlTree, nothing_is_an_empty_document) {
  for (const char* text : {"", "\n\n", "# only words\n", "\xEF\xBB\xBF"}) {
    const auto document = parse_yaml(text);
    EXPECT_FALSE(document.root) << text;
    EXPECT_TRUE(document.problems.empty()) << text;
  }
}

// None of these may hang or crash; what they mean does not matter.
TEST(YamlTree, survives_much_of_anything) {
  for (const char* unit : {"[",   "{",     "- ",     "? ",    ": ",   "a: ",  "!",     "&a ",   "*a ",   "'",
                           "\"",  "%",     "]",      "- -\n", "[a, ", "{a: ", "a:\n ", "? ?\n", "---\n", "...\n",
                           "|\n", "\"\\x", "[a,b],", "{a,",   "- [",  "[]:",  "\t",    "#",     "\\"}) {
    const auto document = parse_yaml(repeated(unit, yaml_file_limit / 8));
    EXPECT_LE(document.problems.size(), 101u) << unit;
  }
}

}  // namespace
}  // namespace gpumod
