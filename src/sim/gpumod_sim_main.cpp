// gpumod-sim: every simulated process in one program, told apart by the name it is called by (a link named `vllm` or
// `llama-server` is that engine) or by its first word.
#include <cstdio>
#include <string>
#include <string_view>

#include "sim/programs.h"

int main(int argc, char** argv) {
  using namespace gpumod::sim;
  Arguments arguments(argv + 1, argv + (argc > 0 ? argc : 1));
  std::string_view name = argc > 0 ? argv[0] : "";
  if (const auto slash = name.rfind('/'); slash != std::string_view::npos) name.remove_prefix(slash + 1);
  std::string program(name);
  if (program == "gpumod-sim") {
    program = arguments.empty() ? "" : arguments.front();
    if (!arguments.empty()) arguments.erase(arguments.begin());
  }
  if (program == "broker") return broker_main(arguments);
  if (program == "desktop") return desktop_main(arguments);
  if (program == "vllm") return vllm_main(arguments);
  if (program == "VLLM::EngineCore") return vllm_engine_main();
  if (program == "llama-server") return llama_server_main(arguments);
  std::fputs("usage: gpumod-sim broker | desktop | vllm | llama-server …\n", stderr);
  return 2;
}
