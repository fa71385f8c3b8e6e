// GPUs that are not there: what people want to try a mode on. Pure.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "model/footprint.h"
#include "model/gpu.h"

namespace gpumod {

/// The driver's own share where nothing runs.
constexpr Bytes kept_by_driver = Bytes::mib(400);

/// Empty GPUs, numbered in the order in which they are asked for, each as "NAME=SIZE" ("mine=24GiB", "small=8192": MiB) or
/// as the name of a card that is known ("RTX 4090"). Of their memory the driver keeps some for itself, so a little less is
/// free than there is. Errors: usage, with the nearest names.
Result<std::vector<GpuSample>> imagined_gpus(const std::vector<std::string>& asked);

/// What was measured on a card of this kind is known under the driver's name for it ("NVIDIA GeForce RTX 4090"): an
/// imagined one takes that name, wherever people's name can mean it.
void name_as_measured(std::vector<GpuSample>& imagined, const Footprints& known);

}  // namespace gpumod
