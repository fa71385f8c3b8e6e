#include "control/interpreter.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/folder_testing.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

struct InterpreterTest : ::testing::Test {
  fs::path script(const std::string& text) const { return scratch.write("program", text); }
  TestFolder scratch;
  const fs::path& folder = scratch.path();
};

TEST_F(InterpreterTest, OneThatIsThereIsNoProblem) {
  EXPECT_FALSE(lost_interpreter(script("#!/bin/sh\n")));
  EXPECT_FALSE(lost_interpreter(script("#! /usr/bin/env python3\n")));
  EXPECT_FALSE(
      lost_interpreter(script("\x7f"
                              "ELF")));
  EXPECT_FALSE(lost_interpreter(script("")));
  EXPECT_FALSE(lost_interpreter(script("#!relative/path\n")));
  EXPECT_FALSE(lost_interpreter(folder / "nothing"));
  EXPECT_FALSE(lost_interpreter(folder));
}

TEST_F(InterpreterTest, AMissingOneIsNamed) {
  const auto lost = lost_interpreter(script("#! /nowhere/python3 -E\nprint()\n"));
  ASSERT_TRUE(lost);
  EXPECT_THAT(lost->message, HasSubstr("its first line names /nowhere/python3, which is not there"));
}

TEST_F(InterpreterTest, AVirtualEnvironmentIsToldToBeMadeAnew) {
  fs::create_directories(folder / "venv/bin");
  std::ofstream(folder / "venv/pyvenv.cfg") << "home = /gone\n";
  fs::create_symlink("/gone/python3.11", folder / "venv/bin/python");
  const auto lost = lost_interpreter(script("#!" + (folder / "venv/bin/python").string() + "\n"));
  ASSERT_TRUE(lost);
  EXPECT_THAT(lost->message,
              HasSubstr("the virtual environment " + (folder / "venv").string() + " has lost its Python"));
  EXPECT_THAT(lost->message, HasSubstr("a link to /gone/python3.11"));
  EXPECT_THAT(lost->hint, HasSubstr("python3 -m venv --clear " + (folder / "venv").string()));
}

TEST_F(InterpreterTest, AFifoDoesNotHoldUsUp) {
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_FALSE(lost_interpreter(folder / "fifo"));
}

}  // namespace
}  // namespace gpumod
