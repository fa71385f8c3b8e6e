// A command line written as one string becomes arguments, by rules that need no shell:
//   * blanks and line ends separate arguments;
//   * between '…' everything is taken as it stands;
//   * between "…" a backslash protects " and \, and is itself otherwise;
//   * elsewhere a backslash makes the next character an ordinary one, and joins lines at the end of one;
//   * '' and "" are an empty argument.
// There are no comments, no patterns, no commands. $NAME is replaced afterwards, in each argument by itself, so that a
// value with blanks stays one argument.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gpumod {

/// Errors (configuration): a quote that does not end, a backslash at the very end.
Result<std::vector<std::string>> split_arguments(std::string_view text);

}  // namespace gpumod
