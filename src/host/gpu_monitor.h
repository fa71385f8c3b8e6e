// GPUs through NVML, loaded at run time: gpumod neither links nor needs the driver. NVML calls can take hundreds of
// milliseconds on a busy driver, so they run on a helper thread, never on the loop's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/async.h"
#include "base/time.h"
#include "model/gpu.h"

namespace gpumod {

class GpuMonitor {
 public:
  virtual ~GpuMonitor() = default;
  virtual std::string driver_version() const = 0;
  /// One sample of every GPU, its processes included. Errors: environment when a GPU or the driver is lost; a
  /// lost GPU stays lost until it is reset, and is named in the details: {"gpu_lost": INDEX}.
  virtual Task<Result<std::vector<GpuSample>>> sample() = 0;
  /// What a sample leaves out because nobody needs it twice a second. Errors: environment, as for sample().
  virtual Task<Result<GpuInventory>> inventory() = 0;
};

/// The library that is loaded: $GPUMOD_NVML_LIBRARY or libnvidia-ml.so.1.
std::string nvml_file();

/// Loads nvml_file(). Errors: environment, saying which step failed (no library, no
/// symbol, driver not running) and what to do. A question that the driver has not answered after `patience` is an
/// error of its own: whoever asks about a stuck GPU must get an answer.
Result<std::unique_ptr<GpuMonitor>> open_nvml(Duration patience = std::chrono::seconds(10));

}  // namespace gpumod
