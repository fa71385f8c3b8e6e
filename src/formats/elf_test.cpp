#include "formats/elf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/elf_testing.h"

namespace gpumod {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::StartsWith;

Result<ProgramLibraries> read(std::string_view bytes) {
  return read_program_libraries(MemorySource("program", bytes));
}

TEST(Elf, AProgramSaysWhichLibrariesItNeedsAndWhereTheyAre) {
  const auto libraries = read(elf_program({"libllama.so.0", "libc.so.6"}, "$ORIGIN:/opt/llama"));
  ASSERT_TRUE(libraries) << libraries.error().message;
  EXPECT_THAT(libraries->needed, ElementsAre("libllama.so.0", "libc.so.6"));
  EXPECT_EQ(libraries->search, "$ORIGIN:/opt/llama");
  EXPECT_EQ(read(elf_program({"libc.so.6"}, ""))->search, "");
}

TEST(Elf, ThisVeryProgramIsRead) {
  const auto libraries = read_program_libraries(**open_byte_source("/proc/self/exe"));
  ASSERT_TRUE(libraries) << libraries.error().message;
  EXPECT_THAT(libraries->needed, Contains(StartsWith("libc.so")));
}

TEST(Elf, NothingIsReadOutsideOfTheFile) {
  EXPECT_FALSE(read("#!/bin/sh\nexec llama-server\n"));
  const auto whole = elf_program({"libllama.so.0"}, "$ORIGIN");
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const auto libraries = read(std::string_view(whole).substr(0, length));
    ASSERT_FALSE(libraries) << length;
    EXPECT_EQ(libraries.error().code, ErrorCode::configuration);
  }
}

}  // namespace
}  // namespace gpumod
