// The command lines of our own simulated programs: `--name value`, `--name=value` or a bare `--name`. The stand-ins for
// real engines read the real engines' command lines, and have no use for it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "base/units.h"
#include "sim/programs.h"

namespace gpumod::sim {

class Flags {
 public:
  /// `valued` take a value, `bare` take none; names without the dashes. Errors: usage, naming the argument.
  static Result<Flags> parse(const Arguments& arguments, const std::vector<std::string_view>& valued,
                             const std::vector<std::string_view>& bare);

  bool has(std::string_view name) const { return values_.contains(name); }
  /// Every value of a flag, in the order they were given.
  std::vector<std::string> all(std::string_view name) const;
  /// The last one.
  std::string text(std::string_view name, std::string fallback = {}) const;
  /// Errors: usage, naming the flag.
  Result<Bytes> amount(std::string_view name, Bytes fallback) const;
  Result<Duration> duration(std::string_view name, Duration fallback) const;
  Result<int> number(std::string_view name, int fallback) const;

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
};

}  // namespace gpumod::sim
