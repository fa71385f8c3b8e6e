// A script whose interpreter is gone cannot be executed, and the kernel says only "No such file or directory", of a file
// that is there. Virtual environments come to this when the Python they were made with is upgraded or removed.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"

namespace gpumod {

/// What the first line of a script names; empty when the file is no script, or cannot be read.
std::string interpreter_of(const std::filesystem::path& program);

/// In words and with a remedy, when the first line of the program names an interpreter that is not there. Nothing when
/// it is there, and when the file is no script or cannot be read.
std::optional<Error> lost_interpreter(const std::filesystem::path& program);

}  // namespace gpumod
