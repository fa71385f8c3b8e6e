// Asking a service the questions of its examination (engines/examination.h), one after the other, so that none is measured
// beside another.
#pragma once

#include "control/machine.h"
#include "engines/examination.h"

namespace gpumod {

/// Ends with the first question that gets no reply at all: a server that hangs costs one deadline.
/// Nothing when it is given up: at once, and its connection is closed.
Task<std::optional<Examination>> examine(Machine& machine, Service service, Signal& given_up);

}  // namespace gpumod
