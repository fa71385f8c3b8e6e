// `gpumod gpu watch`: the ledger redrawn whenever it changes, until somebody ends it.
#pragma once

#include "faces/cli/run.h"

namespace gpumod::cli {

int run_gpu_watch(const Paths& paths, const Invocation& invocation, const Output& output);

}  // namespace gpumod::cli
