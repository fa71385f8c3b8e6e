#include "catalog/yaml_plain.h"

#include <random>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace gpumod {
namespace {

/// Everything of a tree, as text.
std::string told(const Yaml& node) {
  if (!node) return "nothing";
  auto text = fmt::format("{}{}@{}:{}*{}", static_cast<int>(node->kind), node->quoted ? "q" : "", node->line,
                          node->column, node->weight);
  if (node->is_scalar()) text += fmt::format("<{}>", node->text);
  for (const auto& item : node->items)
    text += "[" + told(item) + "]";
  for (const auto& [key, value] : node->entries)
    text += "{" + told(key) + "=" + told(value) + "}";
  return text;
}

void expect_the_same(const std::string& text) {
  const auto full = parse_any_yaml(text);
  EXPECT_TRUE(full.problems.empty()) << text << "\n" << full.problems.front().message;
  EXPECT_EQ(told(read_plain_yaml(text)), told(full.root)) << text;
}

TEST(PlainYaml, usual_files_need_no_yaml_cpp) {
  const std::string usual[] = {
      "engine: command\nport: 7070\ncmd: [\"/usr/bin/x\", \"${PORT}\", \"0\", '/dev/null']\ncheck: /health\nvram: 0\n",
      "# a service\nengine: llamacpp   # of ours\n\nmodels_dir: ~/models\nmodel: Qwen3-Coder-30B-Q4_K_M\nvram: 20 "
      "GiB\n",
      "services: [coder, embedding]\n",
      "services: []\ndescription: what it's like, a:b c#d #1: x",
      "services:\n  - a\n  # between\n  - 'b c'\n  - [x, \"y\",z ]\ndefault: true\n",
      "a:\n    b:\n        c: 1\n        d: ~\n    e: null\nf: -1\ng: --flag\nh: \"\"\ni: ~/x\n",
      "env:\n  A: 1\n  B_2: $HOME/x\n\n  \nlist:\n- same\n",
  };
  for (const auto& text : usual) {
    if (&text == &usual[6]) continue;
    EXPECT_TRUE(read_plain_yaml(text)) << text;
    expect_the_same(text);
  }
  EXPECT_FALSE(read_plain_yaml(usual[6])) << "a list that is no deeper than its key is left to yaml-cpp";
}

TEST(PlainYaml, leaves_every_doubt_to_yaml_cpp) {
  for (const char* text : {"",
                           "# nothing",
                           "a",
                           "- a",
                           "a: b: c",
                           "a: b:",
                           "a:b",
                           "a : b",
                           "a: 1\na: 2",
                           "a: 1\n  b",
                           "a:\nb: 1",
                           "a: |\n  x",
                           "a: >\n  x",
                           "a: &x 1",
                           "a: *x",
                           "a: !t 1",
                           "a: {b: 1}",
                           "a: [b",
                           "a: [b,]",
                           "a: [,b]",
                           "a: [b: c]",
                           "a: [{b: c}]",
                           "a: \"x\\n\"",
                           "a: 'it''s'",
                           "a: \"x",
                           "a: \"x\" y",
                           "a: \"x\"#y",
                           "a: @x",
                           "a: %x",
                           "a: - b",
                           "a: ? b",
                           "a:\tb",
                           "a: \xC3\xA9",
                           "a: 1\r\nb: 2",
                           "---\na: 1",
                           "a: 1\n---\nb: 2",
                           "a: 1\n...\n",
                           "%YAML 1.2\n---\na: 1",
                           "<<: x",
                           "null: 1",
                           "a:\n  - b: 1",
                           "a:\n  - b\n    c",
                           "a:\n  b: 1\n c: 2",
                           " a: 1",
                           "\"a\": 1"})
    EXPECT_FALSE(read_plain_yaml(text)) << text;
}

TEST(PlainYaml, gives_what_yaml_cpp_gives) {
  const std::string pieces[] = {"a: ", "b:",  "c: ",  "dd: ",  "- ",     "- ",       "x",        "y z", "\"q r\"",
                                "'s'", "[",   "]",    ", ",    "[a, b]", " #c",      "#",        "~",   "null",
                                ":",   ": ",  "-",    "--o",   "$X/y",   "1.5",      "{",        "}",   "\"",
                                "'",   " ",   "/p",   "\\",    "?",      "&a",       "*a",       "!",   "|",
                                ">",   "---", "e: [", "f: \"", "[]",     "g:\n  - ", "h:\n  i: "};
  const std::string values[] = {"x",
                                "y z",
                                "20 GiB",
                                "/bin/x -y",
                                "\"q: [r\"",
                                "'s #'",
                                "[a, 'b']",
                                "[]",
                                "[ c ]",
                                "~",
                                "-1 # no",
                                "a:b",
                                "\"\" # c",
                                "[\"x\",y-z,1]",
                                "\n  - a\n  - [b, c]",
                                "\n  m: 1\n  n: 'o'",
                                "\n  # c\n  p:\n    - q"};
  const std::string indents[] = {"", "", "", "", "  ", "  ", "    ", " "};
  std::mt19937 random(7);
  const auto any_of = [&](const auto& choices) -> const std::string& { return choices[random() % std::size(choices)]; };
  int read = 0;
  for (int round = 0; round < 30000; ++round) {
    std::string text;
    for (auto lines = 1 + random() % 4; lines > 0; --lines) {
      text += any_of(indents);
      // Mostly what people write, and in between anything at all.
      if (random() % 8 != 0) text += fmt::format("k{}: ", random() % 9);
      if (random() % 4 != 0)
        text += any_of(values);
      else
        for (auto count = random() % 4; count > 0; --count)
          text += any_of(pieces);
      if (lines > 1 || random() % 2 == 0) text += '\n';
    }
    if (!read_plain_yaml(text)) continue;
    ++read;
    expect_the_same(text);
    if (HasFailure()) break;
  }
  EXPECT_GT(read, 3000) << "too few of them were of the forms that it reads";
}

}  // namespace
}  // namespace gpumod
