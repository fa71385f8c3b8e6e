// A value that must not be seen: an environment variable's content. It formats as "•••"; whoever needs the text says
// so.
#pragma once

#include <string>
#include <utility>

namespace gpumod {

class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string value) : value_(std::move(value)) {}
  const std::string& reveal() const { return value_; }
  bool operator==(const Secret&) const = default;

 private:
  std::string value_;
};

inline const char* redacted() {
  return "•••";
}

}  // namespace gpumod
