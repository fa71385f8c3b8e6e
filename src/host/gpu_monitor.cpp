#include "host/gpu_monitor.h"

#include <atomic>
#include <mutex>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

#include "base/paths.h"
#include "host/nvml_library.h"

namespace gpumod {

namespace {

/// More calls than this waiting at once means that the driver hangs. Each holds a helper thread, perhaps for ever, and
/// those are few: what is counted is of the whole process, whoever opened the library.
constexpr int most_waiting_calls = 5;
std::atomic<int> waiting_calls{0};

/// What a call needs, alive as long as it runs: the monitor, and the coroutine that waits, may go before.
struct Shared {
  std::shared_ptr<nvml::Library> library;
  std::mutex one_at_a_time;
};

struct Ending {
  Ending(boost::asio::any_io_executor executor, Duration patience) : wake(std::move(executor), patience) {}
  boost::asio::steady_timer wake;
  bool done = false;
};

Task<void> finish(std::function<void()> work, std::shared_ptr<Ending> ending) {
  co_await run_blocking(std::move(work));
  ending->done = true;
  ending->wake.cancel();
}

/// False when it has not ended after `patience`; it then goes on with nobody waiting for it.
Task<bool> run_within(Duration patience, std::function<void()> work) {
  const auto executor = co_await boost::asio::this_coro::executor;
  const auto ending = std::make_shared<Ending>(executor, patience);
  boost::asio::co_spawn(executor, finish(std::move(work), ending), boost::asio::detached);
  (void)co_await ending->wake.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  co_return ending->done;
}

Error no_answer(const std::string& why) {
  return {ErrorCode::environment,
          "the NVIDIA driver does not answer: " + why,
          "See whether `nvidia-smi` hangs too, and what `dmesg` says of NVRM; a hung driver needs a reboot.",
          {}};
}

class NvmlMonitor final : public GpuMonitor {
 public:
  NvmlMonitor(std::shared_ptr<nvml::Library> library, Duration patience)
      : shared_(std::make_shared<Shared>()), patience_(patience) {
    shared_->library = std::move(library);
  }

  std::string driver_version() const override { return shared_->library->driver_version(); }

  Task<Result<std::vector<GpuSample>>> sample() override {
    return ask<std::vector<GpuSample>>(shared_, patience_, [](nvml::Library& library) { return library.sample(); });
  }
  Task<Result<GpuInventory>> inventory() override {
    return ask<GpuInventory>(shared_, patience_,
                             [](nvml::Library& library) -> Result<GpuInventory> { return library.inventory(); });
  }

 private:
  template <typename T>
  static Task<Result<T>> ask(std::shared_ptr<Shared> shared, Duration patience, Result<T> (*question)(nvml::Library&)) {
    if (waiting_calls.fetch_add(1) >= most_waiting_calls) {
      waiting_calls.fetch_sub(1);
      co_return tl::unexpected(no_answer("earlier questions still wait"));
    }
    auto answer = std::make_shared<Result<T>>();
    std::function<void()> work = [shared, answer, question] {
      {
        const std::lock_guard only(shared->one_at_a_time);
        *answer = question(*shared->library);
      }
      waiting_calls.fetch_sub(1);
    };
    if (!co_await run_within(patience, std::move(work)))
      co_return tl::unexpected(no_answer(fmt::format("it was asked {} s ago", seconds(patience))));
    co_return std::move(*answer);
  }

  std::shared_ptr<Shared> shared_;
  Duration patience_;
};

}  // namespace

std::string nvml_file() {
  const auto named = environment_variable("GPUMOD_NVML_LIBRARY");
  return named.empty() ? "libnvidia-ml.so.1" : named;
}

Result<std::unique_ptr<GpuMonitor>> open_nvml(Duration patience) {
  auto library = TRY(nvml::Library::open(nvml_file()));
  return std::unique_ptr<GpuMonitor>(std::make_unique<NvmlMonitor>(std::move(library), patience));
}

}  // namespace gpumod
