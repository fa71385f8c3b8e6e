// A machine of a test's own: a temporary home, files in it, small GGUF heads.
#pragma once

#include <fstream>
#include <map>

#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/paths.h"

namespace gpumod {

class TestTree {
 public:
  TestTree() {
    std::string name = (std::filesystem::temp_directory_path() / "gpumod-verbs-XXXXXX").string();
    root_ = std::filesystem::canonical(::mkdtemp(name.data()));
  }
  ~TestTree() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  TestTree(const TestTree&) = delete;
  TestTree& operator=(const TestTree&) = delete;

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path operator/(const std::filesystem::path& below) const { return root_ / below; }

  std::filesystem::path write(const std::filesystem::path& below, std::string_view text) const {
    const auto path = root_ / below;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  std::filesystem::path program(const std::filesystem::path& below, std::string_view script) const {
    auto path = write(below, script);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }
  std::string read(const std::filesystem::path& below) const {
    return read_file(root_ / below, 1 << 20).value_or("(not there)");
  }
  Paths paths() const {
    Paths paths;
    paths.home = root_ / "home";
    paths.config = root_ / "home/.config/gpumod";
    paths.state = root_ / "home/.local/state/gpumod";
    paths.cache = root_ / "home/.cache/gpumod";
    paths.runtime = root_ / "run";
    return paths;
  }

 private:
  std::filesystem::path root_;
};

/// The head of a GGUF file: pairs of text or of u32 numbers.
class GgufHead {
 public:
  GgufHead& text(std::string_view key, std::string_view value) {
    begin(key, 8);
    string(value);
    return *this;
  }
  GgufHead& number(std::string_view key, std::uint32_t value) {
    begin(key, 4);
    little_endian(value, 4);
    return *this;
  }
  GgufHead& texts(std::string_view key, const std::vector<std::string>& values) {
    begin(key, 9);
    little_endian(8, 4);
    little_endian(values.size(), 8);
    for (const auto& value : values)
      string(value);
    return *this;
  }
  std::string bytes(std::uint64_t tensors = 1, std::uint32_t version = 3) const {
    GgufHead whole;
    whole.bytes_ = "GGUF";
    whole.little_endian(version, 4);
    whole.little_endian(tensors, 8);
    whole.little_endian(pairs_, 8);
    return whole.bytes_ + bytes_;
  }

 private:
  void begin(std::string_view key, std::uint32_t type) {
    ++pairs_;
    string(key);
    little_endian(type, 4);
  }
  void string(std::string_view value) {
    little_endian(value.size(), 8);
    bytes_ += value;
  }
  void little_endian(std::uint64_t value, int size) {
    for (int i = 0; i < size; ++i)
      bytes_ += static_cast<char>(value >> (8 * i) & 0xFF);
  }
  std::string bytes_;
  std::uint64_t pairs_ = 0;
};

inline std::string chat_model(std::uint32_t context = 40960) {
  return GgufHead().text("general.architecture", "qwen3").number("qwen3.context_length", context).bytes();
}
inline std::string embedding_model() {
  return GgufHead()
      .text("general.architecture", "nomic-bert")
      .number("nomic-bert.context_length", 2048)
      .number("nomic-bert.pooling_type", 1)
      .bytes();
}

/// Sets a variable for the life of the object.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = ::getenv(name)) old_ = old;
    ::setenv(name, value.c_str(), 1);
  }
  ~ScopedVariable() {
    if (old_)
      ::setenv(name_, old_->c_str(), 1);
    else
      ::unsetenv(name_);
  }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace gpumod
