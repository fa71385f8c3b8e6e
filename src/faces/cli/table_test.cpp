#include "faces/cli/table.h"

#include <gtest/gtest.h>

#include "base/text.h"

namespace gpumod::cli {
namespace {

Screen screen(int width) {
  Screen it;
  it.width = width;
  return it;
}

TEST(DisplayWidth, CountsCellsNotBytes) {
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("größe"), 5);
  EXPECT_EQ(display_width("模型"), 4);
  EXPECT_EQ(display_width("🚀"), 2);
  EXPECT_EQ(display_width("e\u0301"), 1);  // a combining accent
  EXPECT_EQ(display_width(""), 0);
}

TEST(Fit, CutsWithAnEllipsisAndNeverExceeds) {
  EXPECT_EQ(fit(screen(80), "abcdef", 6), "abcdef");
  EXPECT_EQ(fit(screen(80), "abcdef", 5), "abcd…");
  EXPECT_EQ(fit(screen(80), "模型模型", 5), "模型…");
  EXPECT_EQ(fit(screen(80), "模型模型", 4), "模…");  // a half character is not shown
  EXPECT_EQ(fit(screen(80), "abc", 0), "");
  Screen ascii = screen(80);
  ascii.unicode = false;
  EXPECT_EQ(fit(ascii, "abcdef", 4), "abc~");
}

TEST(Wrapped, BreaksAtBlanks) {
  EXPECT_EQ(wrapped("one two three", 8), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(wrapped("one two three", 0), (std::vector<std::string>{"one two three"}));
  EXPECT_EQ(wrapped("a/very/long/path x", 5), (std::vector<std::string>{"a/very/long/path", "x"}));
  EXPECT_TRUE(wrapped("", 10).empty());
}

Table services() {
  Table table({{"SERVICE"}, {"PORT", true}, {"EMPTY"}, {"NOTE", false, true}});
  table.add({{"chat"}, {"8000"}, {""}, {"a long note about this service"}});
  table.add({{"模型"}, {"80"}, {""}, {""}});
  return table;
}

TEST(Table, AlignsColumnsAndLeavesOutEmptyOnes) {
  EXPECT_EQ(services().render(screen(0)),
            "SERVICE  PORT  NOTE\n"
            "chat     8000  a long note about this service\n"
            "模型       80\n");
}

Table sentences() {
  Table table({{""}, {"", false, true, true}});
  table.add({{"gpumod init"}, {"find engines and models, and write a configuration"}});
  table.add({{"gpumod status"}, {"what runs"}});
  return table;
}

TEST(Table, SentencesGoOnBelowAndNothingIsCut) {
  EXPECT_EQ(sentences().render(screen(0), 2, false),
            "  gpumod init    find engines and models, and write a configuration\n"
            "  gpumod status  what runs\n");
  EXPECT_EQ(sentences().render(screen(44), 2, false),
            "  gpumod init    find engines and models,\n"
            "                 and write a configuration\n"
            "  gpumod status  what runs\n");
  EXPECT_EQ(sentences().render(screen(32), 2, false),
            "  gpumod init\n"
            "      find engines and models,\n"
            "      and write a configuration\n"
            "  gpumod status\n"
            "      what runs\n");
}

TEST(Table, NarrowScreensCutTheWillingColumnFirst) {
  EXPECT_EQ(services().render(screen(30)),
            "SERVICE  PORT  NOTE\n"
            "chat     8000  a long note ab…\n"
            "模型       80\n");
}

TEST(Table, WhatMattersLeastGoesBeforeAnythingIsCutBeyondReading) {
  Table table({{"NAME"},
               {.title = "FIGURE", .right = true, .goes = 1},
               {.title = "OTHER", .right = true, .goes = 2},
               {"PATH", false, true}});
  table.add({{"service"}, {"1234 MiB"}, {"12 s"}, {"some/folder/that/is/long/model.gguf"}});
  EXPECT_EQ(table.render(screen(60)),
            "NAME       FIGURE  OTHER  PATH\n"
            "service  1234 MiB   12 s  some/folder/that/is/long/model.gg…\n");
  EXPECT_EQ(table.render(screen(48)),
            "NAME       FIGURE  PATH\n"
            "service  1234 MiB  some/folder/that/is/long/mod…\n");
  EXPECT_EQ(table.render(screen(30)),
            "NAME     PATH\n"
            "service  some/folder/that/is/…\n");
}

TEST(Table, NoLineIsWiderThanTheScreen) {
  for (int width = 1; width < 60; ++width) {
    const auto text = services().render(screen(width), 2);
    for (const auto line : split_lines(text))
      EXPECT_LE(display_width(line), std::max(width, 9)) << width << ": " << line;
  }
}

TEST(Table, ControlCharactersNeverReachTheTerminal) {
  Table table({{""}});
  table.add({{"\x1b[2J\nbad\xff"}});
  EXPECT_EQ(table.render(screen(0), 0, false), "\uFFFD[2J\uFFFDbad\uFFFD\n");
}

TEST(Table, ColourDoesNotChangeTheLayout) {
  Screen coloured = screen(0);
  coloured.colour = true;
  Table table({{"A"}, {"B"}});
  table.add({{"x", Ink::green}, {"y"}});
  table.add({{"long"}, {"z"}});
  EXPECT_EQ(table.render(coloured, 0, false), "\x1b[32mx\x1b[0m     y\nlong  z\n");
}

}  // namespace
}  // namespace gpumod::cli
