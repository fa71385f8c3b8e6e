#include "sim/programs.h"

namespace gpumod::sim {

int desktop_main(const Arguments&) {
  return 70;
}

}  // namespace gpumod::sim
