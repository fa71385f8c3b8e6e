#include "host/gpu_monitor.h"

#include <atomic>
#include <mutex>

#include "base/paths.h"
#include "host/nvml_library.h"

namespace gpumod {

namespace {

/// More calls than this waiting on one another means that the driver hangs. Each holds a helper thread, and those are
/// few.
constexpr int most_waiting_calls = 3;

/// What a call needs, alive as long as it runs: the monitor, and the coroutine that waits, may go before.
struct Shared {
  std::shared_ptr<nvml::Library> library;
  std::mutex one_at_a_time;
  std::atomic<int> calls{0};
};

class NvmlMonitor final : public GpuMonitor {
 public:
  explicit NvmlMonitor(std::shared_ptr<nvml::Library> library) : shared_(std::make_shared<Shared>()) {
    shared_->library = std::move(library);
  }

  std::string driver_version() const override { return shared_->library->driver_version(); }

  Task<Result<std::vector<GpuSample>>> sample() override {
    return ask<std::vector<GpuSample>>(shared_, [](nvml::Library& library) { return library.sample(); });
  }
  Task<Result<GpuInventory>> inventory() override {
    return ask<GpuInventory>(shared_,
                             [](nvml::Library& library) -> Result<GpuInventory> { return library.inventory(); });
  }

 private:
  template <typename T>
  static Task<Result<T>> ask(std::shared_ptr<Shared> shared, Result<T> (*question)(nvml::Library&)) {
    if (shared->calls.fetch_add(1) >= most_waiting_calls) {
      shared->calls.fetch_sub(1);
      co_return fail(ErrorCode::environment, "the NVIDIA driver does not answer: earlier questions still wait",
                     "See whether `nvidia-smi` hangs too; a hung driver needs a reboot.");
    }
    auto answer = std::make_shared<Result<T>>();
    std::function<void()> work = [shared, answer, question] {
      {
        const std::lock_guard only(shared->one_at_a_time);
        *answer = question(*shared->library);
      }
      shared->calls.fetch_sub(1);
    };
    co_await run_blocking(std::move(work));
    co_return std::move(*answer);
  }

  std::shared_ptr<Shared> shared_;
};

}  // namespace

std::string nvml_file() {
  const auto named = environment_variable("GPUMOD_NVML_LIBRARY");
  return named.empty() ? "libnvidia-ml.so.1" : named;
}

Result<std::unique_ptr<GpuMonitor>> open_nvml() {
  auto library = TRY(nvml::Library::open(nvml_file()));
  return std::unique_ptr<GpuMonitor>(std::make_unique<NvmlMonitor>(std::move(library)));
}

}  // namespace gpumod
