// The simulated llama-server: a single model's server or a router, told apart by its arguments as the real one does it.
//
// It is held beside a real one by tests/e2e/test_sim_llama.py, which also lists where it deliberately differs.
#include <csignal>
#include <cstdio>

#include "base/paths.h"
#include "sim/llama_flags.h"
#include "sim/llama_replies.h"
#include "sim/llama_router.h"
#include "sim/llama_single.h"
#include "sim/programs.h"

namespace gpumod::sim {

int llama_server_main(const Arguments& arguments) {
  const auto settings = parse_llama_arguments(arguments);
  if (!settings) {
    std::fprintf(stderr, "%s\n", settings.error().message.c_str());
    return 1;
  }
  if (settings->has("usage")) {
    std::fputs(llama_help().c_str(), stdout);
    return 0;
  }
  if (settings->has("version")) {
    std::fprintf(stderr, "version: 0.7.0 (build 11669, commit simulated)\nbuilt as %s\n", llama_build);
    return 0;
  }
  std::signal(SIGPIPE, SIG_IGN);
  const bool is_child = !environment_variable("LLAMA_SERVER_ROUTER_PORT").empty();
  if (settings->has("model") || settings->has("hf-repo")) return run_llama_single(*settings, is_child);
  return run_llama_router(*settings);
}

}  // namespace gpumod::sim
