// `gpumod doctor`: shows what was found, the worst last, and asks before anything is mended.
#pragma once

#include "faces/cli/run.h"

namespace gpumod::cli {

/// 0 when all is in order, notes included; else one of the exit codes of help.
int run_doctor(const Paths& paths, const Invocation& invocation, const Output& output);

/// A line for each check in its group; then each finding that asks for something, with why and what to do, the worst
/// last; then their number and what to type next.
std::string render_doctor(const boost::json::value& answer, const Screen& screen);

}  // namespace gpumod::cli
