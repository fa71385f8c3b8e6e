// Where gpumod keeps things, by the XDG rules, each with an override for tests and for people with several setups.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"

namespace gpumod {

struct Paths {
  std::filesystem::path home;     ///< $HOME, or the password database's word
  std::filesystem::path config;   ///< $GPUMOD_CONFIG_DIR or $XDG_CONFIG_HOME/gpumod: people's YAML
  bool config_named = false;      ///< by $GPUMOD_CONFIG_DIR: people count on it being there
  std::filesystem::path state;    ///< $GPUMOD_STATE_DIR or $XDG_STATE_HOME/gpumod: the database
  std::filesystem::path cache;    ///< $GPUMOD_CACHE_DIR or $XDG_CACHE_HOME/gpumod: may be deleted at any time
  std::filesystem::path runtime;  ///< $GPUMOD_RUNTIME_DIR, or gpumod/ below the user's: lock, sockets, shims; 0700

  /// Errors: environment, when neither HOME nor the password database gives a home.
  static Result<Paths> from_environment();
};

/// Creates a directory of gpumod's own (0700). Errors: unwritable(), with a remedy that names `variable`, which puts it
/// elsewhere.
Result<void> make_own_directory(const std::filesystem::path& path, std::string_view variable);
/// "… Or set VARIABLE to a folder elsewhere." added to the remedy.
Error or_elsewhere(Error error, std::string_view variable);

/// The value of an environment variable, or "".
std::string environment_variable(const char* name);

/// $XDG_RUNTIME_DIR, or where that is not told (cron, sudo -u, an assistant's client) the directory that logind made for
/// us, /run/user/UID. Empty where there is neither.
std::filesystem::path user_runtime_directory(const std::filesystem::path& of_users = "/run/user");

/// The path of this very program: for starting ourselves again as worker or shim.
Result<std::filesystem::path> own_executable();

}  // namespace gpumod
