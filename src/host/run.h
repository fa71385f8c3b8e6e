// Runs a program to its end and keeps what it printed. For asking a binary about itself (--help, --version).
#pragma once

#include <string>
#include <vector>

#include "base/async.h"

namespace gpumod {

struct RunOutcome {
  int exit_code = -1;  ///< -1: ended by a signal, or killed at the deadline
  std::string output;  ///< stdout and stderr together, at most 1 MiB
  bool timed_out = false;
};

/// argv[0] must be absolute. Standard input is empty. A program that not even SIGKILL ends holds nobody up: a second
/// after its deadline it is left to init. Errors: failed when it cannot be started.
Task<Result<RunOutcome>> run_program(std::vector<std::string> argv, Duration timeout);

/// The first executable of that name in the directories of PATH (`path_variable`); a name with a slash is taken as it
/// is. Errors: not_found.
Result<std::filesystem::path> find_program(const std::string& name, const std::string& path_variable);

}  // namespace gpumod
