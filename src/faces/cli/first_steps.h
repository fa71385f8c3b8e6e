// `gpumod init` with a person: what was found, what would be written, and only then the question.
#pragma once

#include "faces/cli/run.h"

namespace gpumod::cli {

int run_init(const Paths& paths, const Invocation& invocation, const Output& output);

}  // namespace gpumod::cli
