#include "sim/programs.h"

namespace gpumod::sim {

int broker_main(const Arguments&) {
  return 70;
}

}  // namespace gpumod::sim
