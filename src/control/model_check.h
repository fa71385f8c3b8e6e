// What can be known to be wrong with a service's model, and with how its engine would be started on it, before
// anything is stopped: files that are missing, headers that make no sense, flags that the model cannot have, a
// tokenizer or an architecture that this build of the engine is known to fail on.
//
// Only what is certain is a problem. On doubt the engine decides: a wrong refusal would stand in the way for ever.
#pragma once

#include <filesystem>
#include <vector>

#include "base/paths.h"
#include "base/result.h"
#include "control/additions.h"
#include "model/service.h"

namespace gpumod {

/// Reads files, so it may block. `added`: what it is started with beyond its options. `binary`: the engine's program,
/// resolved; empty when it was not found. Errors are of kind refused, each with the service in its message and the place
/// to mend it in its hint.
std::vector<Error> model_problems(const Service& service, const Additions& added, const std::filesystem::path& home,
                                  const std::filesystem::path& binary);

/// The version of a Python package that a program of a virtual environment imports; "" where that cannot be told.
std::string installed_package_version(const std::filesystem::path& binary, std::string_view package);

/// Of "0.24.1", "5.0rc1" …; false for what does not begin like a version.
bool is_at_least(std::string_view version, int major, int minor);

/// An adopted unit whose own command line rules out what the service declares of it: sleep without the flag for it.
/// `fragment`: the unit's file. Nothing when that cannot be told for certain.
std::vector<Error> adopted_unit_problems(const Paths& paths, const Service& service,
                                         const std::filesystem::path& fragment);

}  // namespace gpumod
