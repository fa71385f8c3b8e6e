// fit/ — VRAM arithmetic: what a service takes, where it goes, whether it fits. Pure.
// It knows base/ and model/; it must never know how memory is measured or how a service is started.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/gpu.h"
#include "model/service.h"
#include "model/snapshot.h"

namespace gpumod {

/// What the service takes on a GPU of `total` at its peak. For vLLM that is ceil(total × utilization), whatever its
/// file declares: vLLM reserves by utilization. Unset: unknown (a llama-server without `vram:`).
std::optional<Bytes> claim_on(const Service& service, Bytes total);

/// True when the service cannot run without a GPU that we can see: it claims memory, or its engine always does.
bool needs_gpu(const Service& service);

/// llama-server may shrink itself (--fit, on by default): fewer layers on the GPU, a smaller context, so that it fits
/// what is free at its start. It then looks healthy and is slow for ever. True when it may, and holds less than half of
/// its claim. Never for a service that pins both, or forbids it.
bool is_squeezed(const Service& service, Bytes claim, Bytes held);

/// Chooses GPUs for services one after the other.
class Placement {
 public:
  /// `free` per GPU: what will be free when the starts begin, the margin already taken off.
  Placement(const std::vector<GpuSample>& gpus, std::map<GpuIndex, Bytes> free);

  struct Place {
    std::vector<GpuIndex> gpus;
    std::map<GpuIndex, Bytes> claim;  ///< empty when the claim is unknown
  };
  /// Takes room for the service. A service that uses no GPU gets an empty place. With a free choice it takes the GPU
  /// that fits most tightly. Errors: refused, saying how much is missing where; configuration for an unknown device.
  Result<Place> place(const Service& service);
  /// The same where the place is given: `claim` on each of these GPUs.
  Result<Place> take(const ServiceId& service, const std::map<GpuIndex, Bytes>& claim);

 private:
  const std::vector<GpuSample>& gpus_;
  std::map<GpuIndex, Bytes> free_;
};

}  // namespace gpumod
