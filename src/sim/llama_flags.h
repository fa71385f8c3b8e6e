// The command line of the simulated llama-server: every flag of the real one (build 11669) is known by name, so that
// what is refused here would be refused there. Most do nothing here; those that do are looked up by their long name.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gpumod::sim {

struct LlamaFlag {
  std::vector<std::string> names;      ///< "-ngl", "--gpu-layers", "--n-gpu-layers": the last one is the full name
  std::vector<std::string> opposites;  ///< "--no-jinja"
  std::string value;                   ///< what the help calls its value; empty: it takes none
  std::string variable;                ///< the environment variable that sets it, too

  /// "ctx-size": what it is called in settings and in a models preset.
  std::string_view key() const { return std::string_view(names.back()).substr(2); }
};

const std::vector<LlamaFlag>& llama_flags();
/// By any of its names, with dashes ("-c"), or as a models preset writes it ("c", "ctx-size", "LLAMA_ARG_CTX_SIZE").
const LlamaFlag* llama_flag_named(std::string_view name);

/// What was said of each flag, by its key. A flag without value is "1", its opposite "0".
class LlamaSettings {
 public:
  void set(std::string_view key, std::string value) { values_[std::string(key)] = std::move(value); }
  void remove(std::string_view key) { values_.erase(std::string(key)); }
  bool has(std::string_view key) const { return values_.contains(key); }
  std::string text(std::string_view key, std::string fallback = {}) const;
  bool flag(std::string_view key, bool fallback = false) const;
  /// The leading number of the value, as stoi reads it.
  std::optional<int> number(std::string_view key) const;
  /// Entries of `other` replace ours.
  void merge(const LlamaSettings& other);
  const std::map<std::string, std::string, std::less<>>& all() const { return values_; }

 private:
  std::map<std::string, std::string, std::less<>> values_;
};

/// Environment first, then the words. Errors: usage, with the text that llama-server writes to standard error.
Result<LlamaSettings> parse_llama_arguments(const std::vector<std::string>& words);

/// The words that say these settings, in the order in which a router writes them: by each flag's first name.
std::vector<std::string> llama_words(const LlamaSettings& settings);
/// The settings in that order, as (key, value).
std::vector<std::pair<std::string, std::string>> in_router_order(const LlamaSettings& settings);

bool says_yes(std::string_view value);  ///< "1", "true", "on", "yes", "enabled"

/// One line a flag, as `--help` prints it.
std::string llama_help();

}  // namespace gpumod::sim
