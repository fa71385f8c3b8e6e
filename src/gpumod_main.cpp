// One binary. The two processes that gpumod starts of itself come first: they need nothing of the command line.
#include <cstdio>
#include <string_view>

#include <unistd.h>

#include "faces/cli/cli.h"
#include "host/shim.h"
#include "verbs/worker.h"

int main(int argc, char** argv) {
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (first == "worker") return gpumod::worker_main();
  if (first == "shim") return gpumod::shim_main(argc, argv);
  const int code = gpumod::cli_main(argc, argv);
  // Nothing is left to do: the kernel takes back memory faster than destructors of globals and unloading libraries do.
  std::fflush(nullptr);
  ::_exit(code);
}
