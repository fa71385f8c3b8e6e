// For the tests of this room: a configuration directory written from text, and problems as the lines that people see.
#pragma once

#include <cstdlib>
#include <fstream>
#include <string>

#include <fmt/format.h>

#include "base/folder_testing.h"
#include "catalog/catalog.h"

namespace gpumod::testing {

class Folder {
 public:
  Folder() {
    paths.home = "/home/ada";
    paths.config = root_ / "config";
    std::filesystem::create_directory(paths.config);
  }
  std::filesystem::path write(const std::string& file, const std::string& text, bool secret = true) {
    const auto path = paths.config / file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    using std::filesystem::perms;
    std::filesystem::permissions(path,
                                 perms::owner_read | perms::owner_write | (secret ? perms::none : perms::others_read));
    return path;
  }

  /// Other users may go through the folders; what a file says of itself still counts.
  void let_others_in() const {
    using std::filesystem::perms;
    for (const auto& folder : {root_.path(), paths.config, paths.config / "services"})
      std::filesystem::permissions(folder, static_cast<perms>(0755));
  }

  Catalog load() const {
    auto catalog = load_catalog(paths, [](const std::string& name) -> std::optional<std::string> {
      if (name == "HOME") return "/home/ada";
      if (name == "USER") return "ada";
      return std::nullopt;
    });
    if (!catalog) std::abort();
    return std::move(*catalog);
  }

  Paths paths;

 private:
  TestFolder root_;
};

inline std::vector<std::string> lines_of(const std::vector<Problem>& problems) {
  std::vector<std::string> lines;
  for (const auto& problem : problems)
    lines.push_back(to_string(problem));
  return lines;
}

}  // namespace gpumod::testing
