// A unit's environment as a file for EnvironmentFile=: values reach the process without ever being a unit property
// (every user of the bus may read those) or an argument (every user of the machine may).
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "model/secret.h"

namespace gpumod {

/// The file's text. Any value that is UTF-8 text (no NUL, no noncharacters) arrives byte for byte. Errors:
/// configuration, naming the variable and never its value: a name that is no identifier, a value that is not UTF-8,
/// contains NUL, or exceeds the kernel's 128 KiB for one variable.
Result<std::string> environment_file_text(const std::map<std::string, Secret>& environment);

/// A path as systemd takes it where it expands globs (systemd.exec(5), EnvironmentFile=): it stands for itself alone.
std::string without_glob(std::string_view path);

/// Writes `name`.env below `folder` (mode 0600 below 0700) and returns its path.
Result<std::filesystem::path> write_environment_file(const std::filesystem::path& folder, const std::string& unit,
                                                     const std::map<std::string, Secret>& environment);
std::filesystem::path environment_file_path(const std::filesystem::path& folder, const std::string& unit);

}  // namespace gpumod
