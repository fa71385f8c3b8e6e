// The programs of gpumod-sim. Each gets its arguments without the program's name, and returns its exit code.
#pragma once

#include <string>
#include <vector>

namespace gpumod::sim {

using Arguments = std::vector<std::string>;

int broker_main(const Arguments& arguments);
int desktop_main(const Arguments& arguments);  ///< somebody else's process on the GPU: a browser, a game
int vllm_main(const Arguments& arguments);
int vllm_engine_main();  ///< vLLM's second process; only vllm_main starts it
int llama_server_main(const Arguments& arguments);

}  // namespace gpumod::sim
