// What leaves this machine through an assistant: no home directory, no keys; and text of others marked as such, so that
// what a log or a model file says is never taken for what gpumod says.
#pragma once

#include <string>
#include <string_view>

#include <boost/json/value.hpp>

namespace gpumod::mcp {

class Scrubber {
 public:
  /// `home`: the person's home directory; it becomes "~".
  explicit Scrubber(std::string home);

  /// What stands after the name of a key (api_key, HF_TOKEN, Authorization …) and what looks like one (hf_…, sk-…)
  /// becomes "***".
  std::string text(std::string_view text) const;
  /// Every text in it, and every key.
  boost::json::value value(const boost::json::value& value) const;

 private:
  std::string home_;
};

/// Between two lines that carry `mark`, under a line that says what it is. `mark` has to be one that nobody could know.
std::string quoted(std::string_view text, std::string_view mark);
/// A new one.
std::string new_mark();

}  // namespace gpumod::mcp
