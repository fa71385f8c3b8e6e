// sim/ — a GPU in software and stand-ins for the inference servers, as nasty as the real ones: a broker process owns
// the video memory, libgpumod-sim-nvml.so shows it to whoever asks NVML, and the engines are processes of their own
// which allocate from it. Used by `gpumod demo` and by tests; nothing that runs on a real GPU comes through here. It
// knows base/ and model/ (and, for the demo's private box, host/); it must never know how a switch is planned: the
// product is measured against it.
//
// Options: what a simulated process is told beyond the real program's command line. They come as text, "key=value"
// separated by ';' or line breaks, from $GPUMOD_SIM_OPTIONS or from a file beside a model (NAME.sim beside NAME.gguf).
// Amounts are written "1100MiB" or "16GiB", durations "1.5s" or "250ms" of simulated time.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "base/units.h"

namespace gpumod::sim {

class Options {
 public:
  Options() = default;
  /// Errors: usage, naming the entry that has no '=' or stands twice.
  static Result<Options> parse(std::string_view text);

  bool has(std::string_view key) const { return values_.contains(key); }
  std::string text(std::string_view key, std::string fallback = {}) const;
  /// Errors: usage, naming key and value, when the value is no amount, duration or number.
  Result<Bytes> amount(std::string_view key, Bytes fallback) const;
  Result<Duration> duration(std::string_view key, Duration fallback) const;
  Result<double> number(std::string_view key, double fallback) const;
  /// Entries of `other` replace ours.
  void merge(const Options& other);
  /// Keys that stand here and not in `known`: a misspelt fault must not pass for its absence.
  std::vector<std::string> unknown(const std::vector<std::string_view>& known) const;

 private:
  std::map<std::string, std::string, std::less<>> values_;
};

Result<Bytes> parse_amount(std::string_view text);
Result<Duration> parse_duration(std::string_view text);

/// Simulated time runs this many times faster than the clock: $GPUMOD_SIM_SPEED, 1 if unset or nonsense.
double speed();
/// How long a simulated duration takes on the clock.
Duration scaled(Duration simulated);

}  // namespace gpumod::sim
