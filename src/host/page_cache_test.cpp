#include "host/page_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/folder_testing.h"

namespace gpumod {
namespace {

TEST(PageCache, WhatWasWrittenIsDroppedWhereTheFileSystemHasADisk) {
  const TestFolder folder;
  const auto path = folder.write("model.gguf", std::string(3 << 20, 'x'));
  {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_EQ(::fsync(file.get()), 0);  // what is not written back yet cannot be dropped
  }
  const auto dropped = drop_from_page_cache({path});
  EXPECT_EQ(dropped.files, 1u);
  EXPECT_EQ(dropped.size, Bytes(3 << 20));
  EXPECT_EQ(dropped.cached_before, Bytes(3 << 20)) << "it was just written";
  struct statfs system {};
  ASSERT_EQ(::statfs(path.c_str(), &system), 0);
  EXPECT_EQ(dropped.cached_after, system.f_type == TMPFS_MAGIC ? Bytes(3 << 20) : Bytes());
}

TEST(PageCache, WhatCannotBeOpenedIsSaid) {
  const TestFolder folder;
  const auto dropped = drop_from_page_cache({folder / "nothing", folder.path()});
  EXPECT_EQ(dropped.files, 0u);
  ASSERT_EQ(dropped.problems.size(), 1u) << "a folder is passed over";
  EXPECT_NE(dropped.problems[0].find("nothing"), std::string::npos);
}

}  // namespace
}  // namespace gpumod
