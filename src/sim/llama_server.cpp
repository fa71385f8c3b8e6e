#include "sim/programs.h"

namespace gpumod::sim {

int llama_server_main(const Arguments&) {
  return 70;
}

}  // namespace gpumod::sim
