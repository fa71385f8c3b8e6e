// A machine of a test's own: a temporary home, files in it, small GGUF files.
#pragma once

#include <fstream>
#include <map>

#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/folder_testing.h"
#include "base/paths.h"
#include "formats/gguf_testing.h"

namespace gpumod {

class TestTree : public TestFolder {
 public:
  const std::filesystem::path& root() const { return path(); }
  std::string read(const std::filesystem::path& below) const {
    return read_file(path() / below, 1 << 20).value_or("(not there)");
  }
  Paths paths() const {
    Paths paths;
    paths.home = path() / "home";
    paths.config = path() / "home/.config/gpumod";
    paths.state = path() / "home/.local/state/gpumod";
    paths.cache = path() / "home/.cache/gpumod";
    paths.runtime = path() / "run";
    return paths;
  }
};

/// A whole model that any server would refuse, and every reader of headers takes.
inline GgufWriter tiny_model(std::string_view architecture, std::uint32_t context) {
  return GgufWriter()
      .text("general.architecture", architecture)
      .number(std::string(architecture) + ".context_length", context)
      .tensor("token_embd.weight", {8, 4});
}
inline std::string chat_model(std::uint32_t context = 40960) {
  return tiny_model("qwen3", context).bytes();
}
inline std::string embedding_model() {
  return tiny_model("nomic-bert", 2048).number("nomic-bert.pooling_type", 1).bytes();
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
