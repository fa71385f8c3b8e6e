// What both processes of a simulated vLLM share as processes: its version, and how they are ended.
#pragma once

#include <string_view>

#include "base/async.h"
#include "base/fd.h"

namespace gpumod::sim {

constexpr std::string_view vllm_version = "0.15.1";

/// SIGTERM and SIGINT come through descriptors from now on. Before any thread and any child.
void block_ending_signals();
/// Readable when one of them came.
Fd ending_signals();
/// Its number; -1 if it cannot be told.
Task<int> next_ending_signal(int signals);

}  // namespace gpumod::sim
