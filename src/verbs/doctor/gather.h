// Finding out what a doctor judges. Everything is looked at beside everything else, and each look has a deadline: a
// driver, a network drive or a unit manager that hangs costs that long once, and is itself the finding.
#pragma once

#include "verbs/context.h"
#include "verbs/doctor/facts.h"

namespace gpumod {

/// `root`: "/", or a planted machine for /proc, /sys and /dev.
Task<DoctorFacts> gather(Context& context, std::filesystem::path root);

/// The answer of `gpumod gpu list --json`. Errors: its own, or failed when it makes no sense.
Result<DriverAnswer> driver_answer_in(std::string_view json);

/// What can be told of a program without starting it.
ProgramFacts program_facts(const std::filesystem::path& binary);

}  // namespace gpumod
