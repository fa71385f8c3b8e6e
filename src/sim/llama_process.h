// A llama-server as a process: its end, the signals it hears, the lines it reads.
#pragma once

#include <functional>
#include <string>

#include "base/async.h"

namespace gpumod::sim {

/// Ends the process at once. What it holds is the kernel's to take back, as with the real one; no destructor runs.
[[noreturn]] void leave(int code);

/// From now on SIGTERM and SIGINT no longer kill: the first calls `first`, the second ends the process with 1.
void hear_signals(Loop& loop, std::function<void()> first);
/// Neither of them does anything any more.
void ignore_signals();

/// Calls `line` for each line that comes from the descriptor, and `end` once nothing more will. The descriptor is made
/// non-blocking and stays the caller's.
Task<void> read_lines(int fd, std::function<void(std::string)> line, std::function<void()> end);

}  // namespace gpumod::sim
