// The simulated llama-server as a router: one child process a model, loaded and unloaded on demand.
//
// A model is unloaded → loading → loaded ⇄ sleeping → unloaded; with the end of its process it is unloaded, and failed
// when that end was no clean one. What is easy to get wrong, and is as the real one has it (found by trying):
//   - /models/unload answers at once; until the child has ended, the model is still "loaded", and counts.
//   - A child that loads is killed, and is failed then. A child that does not end is killed after its stop-timeout
//     (10 s), and is failed then. Meanwhile requests reach it, or find its listener closed.
//   - Beyond --models-max the one that was used longest ago goes first, if it is loaded, has no request in flight and
//   is
//     not ending already; the load answers only when it has gone. If there is none: 500.
//   - A request that loads its model waits until there is room, however long that takes.
//   - A router that is to end first waits for all requests that are on their way: one that a child will never answer
//     keeps it for ever, with all its children. A second signal ends it with 1.
//   - /health is 200 whatever its children do.
#pragma once

#include "sim/llama_flags.h"

namespace gpumod::sim {

/// Serves until the process ends; the exit code when it never came to that.
int run_llama_router(const LlamaSettings& settings);

}  // namespace gpumod::sim
