// What leaves this machine through an assistant: no home directory, no keys, whether they look like some or are known by
// their value; and text of others marked as such, so that
// what a log or a model file says is never taken for what gpumod says.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/value.hpp>

namespace gpumod::mcp {

class Scrubber {
 public:
  /// `home`: the person's home directory; it becomes "~".
  explicit Scrubber(std::string home);

  /// These become "***" wherever they stand, except those of fewer than 8 characters: they would hide words by chance. A
  /// value of several lines is hidden line by line, as logs show it.
  void learn(const std::set<std::string>& secrets);

  /// What stands after the name of a key (api_key, HF_TOKEN, Authorization …) and what looks like one (hf_…, sk-…)
  /// becomes "***".
  std::string text(std::string_view text) const;
  /// Every text in it, and every key.
  boost::json::value value(const boost::json::value& value) const;

 private:
  std::string without_secrets(std::string_view text) const;

  std::string home_;
  std::set<std::string> learned_;
  std::vector<std::string> secrets_;  ///< the longest first: one may hold another
};

/// Between two lines that carry `mark`, under a line that says what it is. `mark` has to be one that nobody could know.
std::string quoted(std::string_view text, std::string_view mark);
/// A new one.
std::string new_mark();

}  // namespace gpumod::mcp
