// The demo's private box: a directory with a configuration as people have it, a broker that owns a simulated GPU, and
// the simulated engines as the programs that the configuration names. Whoever enters it works with a gpumod that knows
// nothing of the real machine. When the box goes, the broker and every process it started go with it.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <boost/json/object.hpp>
#include <sys/types.h>

#include "base/fd.h"
#include "base/result.h"

namespace gpumod::sim {

struct BoxOptions {
  double speed = 12;                                 ///< simulated seconds per second
  bool keep = false;                                 ///< leave the directory behind
  std::string vllm_options;                          ///< beyond the usual ones: "fault=engine-survives"
  std::map<std::string, std::string> model_options;  ///< the same for a model of the router, by its name
};

/// The names that the demo's files, plots and tests share.
constexpr const char* coder_model = "Qwen3-Coder-30B-A3B-Instruct-Q4_K_M";
constexpr const char* nemotron_model = "Nemotron-3-Nano-30B-A3B-Q4_K_M";

class Box {
 public:
  /// Errors: environment when gpumod-sim and its library are not beside gpumod, or nothing can be started.
  static Result<Box> build(const BoxOptions& options);
  Box(Box&&) noexcept;
  Box& operator=(Box&&) = delete;
  ~Box();

  const std::filesystem::path& directory() const { return directory_; }
  /// From here on this process and its children see the box instead of the machine.
  void enter() const;

  /// The broker's state: {"gpus": [{"total", "free", "holders": [{"pid", "command", "bytes"}], …}]}.
  Result<boost::json::object> gpu() const;
  /// One line of the broker's protocol that is answered with ok: "curve 90s 0s listed".
  Result<void> tell(const std::string& line) const;

  /// Somebody else's process on the GPU, by the words of `gpumod-sim desktop`. Errors: environment.
  Result<pid_t> start_desktop(const std::vector<std::string>& words);
  void end_desktop(pid_t pid);
  const std::vector<pid_t>& desktops() const { return desktops_; }

 private:
  Box() = default;
  Result<void> find_programs();
  Result<void> write_files(const BoxOptions& options) const;
  Result<void> start_broker();
  Result<pid_t> start_program(std::vector<std::string> words) const;
  Result<std::string> ask(const std::string& line) const;

  std::filesystem::path directory_;
  std::filesystem::path program_;  // gpumod-sim
  std::filesystem::path library_;  // libgpumod-sim-nvml.so
  double speed_ = 1;
  bool keep_ = false;
  pid_t broker_ = -1;
  std::vector<pid_t> desktops_;
};

}  // namespace gpumod::sim
