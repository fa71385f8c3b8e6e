// Starting a shim: a detached process that shares nothing with us but a memory file and a pipe for its one answer.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/async.h"
#include "host/local_state.h"
#include "model/unit.h"

namespace gpumod::local {

/// The environment of a service, as a user service under systemd would see it: a few variables of ours, then the
/// specification's, then the marks by which its processes are found.
std::vector<std::string> service_environment(const UnitSpec& spec, const std::filesystem::path& home,
                                             const std::string& mark);

/// Starts a shim and waits for its report. Errors: failed, when it could not be started or did not answer.
Task<Result<LaunchReport>> launch_shim(std::vector<std::string> command, LaunchSpec spec);

}  // namespace gpumod::local
