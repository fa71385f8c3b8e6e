#include "sim/llama_log.h"

#include <unistd.h>

#include "base/time.h"

namespace gpumod::sim {

namespace {
const TimePoint started = now();
}

void llama_log(char level, std::string_view text) {
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now() - started).count();
  llama_print(fmt::format("{}.{:02}.{:03}.{:03} {} {}", micros / 60'000'000, micros / 1'000'000 % 60,
                          micros / 1000 % 1000, micros % 1000, level, text));
}

void llama_print(std::string_view text) {
  const auto line = std::string(text) + '\n';
  // Nobody can be told that the log cannot be written.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace gpumod::sim
