// `gpumod mode edit` with a person: the editor works on a copy, and only a valid text is swapped in.
#pragma once

#include <string>
#include <vector>

#include "faces/cli/run.h"

namespace gpumod::cli {

/// $VISUAL or $EDITOR, split at blanks; else sensible-editor or vi when `on_terminal`. Errors: environment.
Result<std::vector<std::string>> editor_command(bool on_terminal);

int run_editor(const Paths& paths, const Invocation& invocation, const Output& output);

}  // namespace gpumod::cli
