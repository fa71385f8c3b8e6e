#include "base/paths.h"

#include <cstdlib>

#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

namespace gpumod {

namespace fs = std::filesystem;

std::string environment_variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

namespace {

/// XDG says: a relative path in these variables is invalid and ignored.
fs::path from_variable(const char* name) {
  const fs::path value = environment_variable(name);
  return value.is_absolute() ? value : fs::path();
}

fs::path choose(const char* own, const char* xdg, const fs::path& fallback) {
  if (const fs::path value = environment_variable(own); !value.empty()) return fs::absolute(value);
  if (const auto base = from_variable(xdg); !base.empty()) return base / "gpumod";
  return fallback / "gpumod";
}

}  // namespace

Result<Paths> Paths::from_environment() {
  Paths paths;
  paths.home = from_variable("HOME");
  if (paths.home.empty())
    if (const passwd* entry = ::getpwuid(::getuid())) paths.home = entry->pw_dir;
  if (!paths.home.is_absolute())
    return fail(ErrorCode::environment, "HOME is not set and the password database knows no home directory",
                "Set HOME, or GPUMOD_CONFIG_DIR, GPUMOD_STATE_DIR and GPUMOD_CACHE_DIR.");
  paths.config_named = !environment_variable("GPUMOD_CONFIG_DIR").empty();
  paths.config = choose("GPUMOD_CONFIG_DIR", "XDG_CONFIG_HOME", paths.home / ".config");
  paths.state = choose("GPUMOD_STATE_DIR", "XDG_STATE_HOME", paths.home / ".local/state");
  paths.cache = choose("GPUMOD_CACHE_DIR", "XDG_CACHE_HOME", paths.home / ".cache");
  if (const fs::path value = environment_variable("GPUMOD_RUNTIME_DIR"); !value.empty())
    paths.runtime = fs::absolute(value);
  else if (const auto base = user_runtime_directory(); !base.empty())
    paths.runtime = base / "gpumod";
  else
    paths.runtime = fmt::format("/tmp/gpumod-{}", ::getuid());
  return paths;
}

Error or_elsewhere(Error error, std::string_view variable) {
  error.hint += fmt::format("{}Or set {} to a folder elsewhere.", error.hint.empty() ? "" : " ", variable);
  return error;
}

Result<void> make_own_directory(const fs::path& path, std::string_view variable) {
  auto made = make_directories(path, 0700);
  return made ? made : fail(or_elsewhere(std::move(made).error(), variable));
}

fs::path user_runtime_directory(const fs::path& of_users) {
  if (auto told = from_variable("XDG_RUNTIME_DIR"); !told.empty()) return told;
  auto usual = of_users / std::to_string(::getuid());
  struct stat info {};
  return ::lstat(usual.c_str(), &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == ::geteuid() ? usual : fs::path();
}

Result<fs::path> own_executable() {
  std::error_code problem;
  auto path = fs::read_symlink("/proc/self/exe", problem);
  if (problem) return fail(ErrorCode::environment, fmt::format("read /proc/self/exe: {}", problem.message()));
  return path;
}

}  // namespace gpumod
