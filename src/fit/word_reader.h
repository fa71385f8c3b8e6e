// The arguments of a server's command line, word by word: what it is started with beyond what its file says by name.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gpumod {

class WordReader {
 public:
  /// `words` must outlive it.
  explicit WordReader(const std::vector<std::string>& words) : words_(words) {}

  /// On to the next word, which may be a flag ("-c", "--flag", "-f=value": the value is taken off). False at the end.
  bool next();
  const std::string& flag() const { return flag_; }
  bool is(std::initializer_list<std::string_view> names) const;
  /// As Python's servers read it: "--max_model_len" is "--max-model-len".
  void dashes_for_underscores();

  /// What stands behind the flag, and is passed with it; "" at the end.
  std::string value();
  /// The same, only where it is one of these.
  std::optional<std::string> value_among(std::initializer_list<std::string_view> values);
  /// Errors: refused, with the flag and its value.
  Result<std::int64_t> number();

 private:
  const std::vector<std::string>& words_;
  std::size_t next_ = 0;
  std::string flag_;
  std::optional<std::string> attached_;
};

}  // namespace gpumod
