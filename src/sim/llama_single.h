// The simulated llama-server with one model: a process of its own, or a router's child.
//
// States: listening and loading (everything is answered 503, a signal kills) → ready ⇄ asleep (--sleep-idle-seconds) →
// ending. What the real one does when it is to end was found by trying, and is worth knowing:
//   - idle: the listener closes, the process ends with 0; as a router's child it then waits for its router's word.
//   - with a request in flight: the listener closes and the process stays for ever, holding its memory: its thread
//   waits
//     for an answer that nobody makes any more. A second signal ends it with 1, or SIGKILL.
// A child hears its router on standard input and tells it of itself on standard output, a line each (child_order,
// child_report). The end of standard input ends it, but only once it has loaded.
#pragma once

#include "base/async.h"
#include "sim/llama_flags.h"

namespace gpumod::sim {

constexpr std::string_view child_order = "gpumod-sim:exit";
constexpr std::string_view child_report = "gpumod-sim:report ";  ///< then {"status", "progress" or "info"}

/// Serves until the process ends; the exit code when it never came to that.
int run_llama_single(const LlamaSettings& settings, bool is_child);

}  // namespace gpumod::sim
