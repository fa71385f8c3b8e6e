// `gpumod demo` with a person: the switches while they happen, the memory under them, and the table at the end.
#pragma once

#include "faces/cli/run.h"

namespace gpumod::cli {

int run_demo(const Paths& paths, const Invocation& invocation, const Output& output);

/// The table, the orphan check and what to try next; or the list of faults.
std::string render_demo(const boost::json::value& answer, const Screen& screen);

}  // namespace gpumod::cli
