#include "faces/cli/version.h"

#include <boost/json.hpp>
#include <fmt/format.h>

namespace gpumod::cli {

namespace {

constexpr std::string_view version = GPUMOD_VERSION;
constexpr std::string_view git = GPUMOD_GIT;  // as configured: "" outside a clone

std::string compiler() {
#if defined(__clang__)
  return fmt::format("Clang {}.{}", __clang_major__, __clang_minor__);
#else
  return fmt::format("GCC {}.{}", __GNUC__, __GNUC_MINOR__);
#endif
}

}  // namespace

std::string version_line() {
  return fmt::format("gpumod {} ({}{}{})", version, git, git.empty() ? "" : "; ", compiler());
}

boost::json::object version_json() {
  return {{"name", "gpumod"},
          {"version", version},
          {"git", git.empty() ? boost::json::value(nullptr) : boost::json::value(git)},
          {"compiler", compiler()}};
}

}  // namespace gpumod::cli
