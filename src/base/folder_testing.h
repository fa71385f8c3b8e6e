// For tests: a folder of a test's own, which goes with it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace gpumod {

class TestFolder {
 public:
  TestFolder() {
    // mkdtemp(3) replaces the six X.
    std::string name = (std::filesystem::temp_directory_path() / "gpumod-test-XXXXXX").string();
    if (!::mkdtemp(name.data())) std::abort();
    path_ = std::filesystem::canonical(name);
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& below) const { return path_ / below; }

  /// Makes the folders on the way.
  std::filesystem::path write(const std::filesystem::path& below, std::string_view text) const {
    const auto path = path_ / below;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  std::filesystem::path program(const std::filesystem::path& below, std::string_view script) const {
    auto path = write(below, script);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace gpumod
