#include "sim/programs.h"

namespace gpumod::sim {

int vllm_main(const Arguments&) {
  return 70;
}

}  // namespace gpumod::sim
