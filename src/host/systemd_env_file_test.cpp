#include "host/systemd_env_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/fd.h"

namespace gpumod {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string text_of(const std::string& name, const std::string& value) {
  const auto text = environment_file_text({{name, Secret(value)}});
  return text ? *text : "error: " + text.error().message;
}

TEST(EnvironmentFile, QuotesEachValueSoThatOnlyFourCharactersNeedABackslash) {
  EXPECT_EQ(text_of("A", ""), "A=\"\"\n");
  EXPECT_EQ(text_of("A", " two  words "), "A=\" two  words \"\n");
  EXPECT_EQ(text_of("A", "a\"b\\c`d$e'f#g;h%i"), "A=\"a\\\"b\\\\c\\`d\\$e'f#g;h%i\"\n");
  EXPECT_EQ(text_of("A", "one\ntwo\r\n"), "A=\"one\ntwo\r\n\"\n");
}

TEST(EnvironmentFile, RefusesWhatCannotArriveAndNamesTheVariableOnly) {
  const std::vector<std::string> values{std::string("secret\0x", 8), "secret\xff",
                                        "secret\xef\xbf\xbf",        "secret\xf0\x9f\xbf\xbe",
                                        "secret\xef\xb7\x90",        "secret" + std::string(128 * 1024, 'x')};
  for (const auto& value : values) {
    const auto text = environment_file_text({{"TOKEN", Secret(value)}});
    ASSERT_FALSE(text);
    EXPECT_EQ(text.error().code, ErrorCode::configuration);
    EXPECT_THAT(text.error().message, HasSubstr("TOKEN"));
    EXPECT_THAT(text.error().message, Not(HasSubstr("secret")));
  }
}

TEST(EnvironmentFile, TakesTheLargestValueTheKernelTakes) {
  const std::string value(128 * 1024 - 1 - 2, 'x');
  EXPECT_TRUE(environment_file_text({{"A", Secret(value)}}));
  EXPECT_FALSE(environment_file_text({{"A", Secret(value + "x")}}));
}

TEST(EnvironmentFile, RefusesNamesThatAreNoIdentifiers) {
  for (const char* name : {"", "1A", "A B", "A=B", "Ä", "A\nB", "A-B"}) {
    const auto text = environment_file_text({{name, Secret("x")}});
    ASSERT_FALSE(text) << name;
    EXPECT_EQ(text.error().code, ErrorCode::configuration);
  }
  EXPECT_TRUE(environment_file_text({{"_a1", Secret("x")}}));
}

TEST(EnvironmentFile, IsReadableByItsOwnerAlone) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "gpumod-env-test" / "env";
  std::filesystem::remove_all(folder.parent_path());
  const auto path = write_environment_file(folder, "gpumod-a.service", {{"A", Secret("b")}});
  ASSERT_TRUE(path) << path.error().message;
  EXPECT_EQ(*path, folder / "gpumod-a.service.env");
  struct stat file {
  }, directory{};
  ASSERT_EQ(::stat(path->c_str(), &file), 0);
  ASSERT_EQ(::stat(folder.c_str(), &directory), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600u);
  EXPECT_EQ(directory.st_mode & 0777, 0700u);
  EXPECT_EQ(read_file(*path, 100).value_or(""), "A=\"b\"\n");
  std::filesystem::remove_all(folder.parent_path());
}

TEST(EnvironmentFile, PathsStandForThemselvesWhereSystemdExpandsGlobs) {
  EXPECT_EQ(without_glob("/run/user/1/a b"), "/run/user/1/a b");
  EXPECT_EQ(without_glob("/a*[b]?\\c"), "/a\\*\\[b]\\?\\\\c");
}

}  // namespace
}  // namespace gpumod
