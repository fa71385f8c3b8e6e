// A simulated vLLM's log: lines in the shape of the real one's, on standard output as they happen, so that whoever
// reads them from a journal or a pipe sees what it would see of vLLM.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gpumod::sim {

/// One entry of a traceback: "vllm/v1/engine/core.py", 1103, "run_engine_core".
struct Frame {
  std::string_view file;
  int line;
  std::string_view function;
};

class VllmLog {
 public:
  explicit VllmLog(std::string_view process);  ///< "APIServer" or "EngineCore"

  void info(std::string_view place, std::string_view text) const { leveled("INFO", place, text); }
  void warning(std::string_view place, std::string_view text) const { leveled("WARNING", place, text); }
  void error(std::string_view place, std::string_view text) const { leveled("ERROR", place, text); }
  /// The headline and the traceback, each line with its level.
  void failure(std::string_view place, std::string_view headline, std::string_view exception,
               const std::vector<Frame>& frames) const;
  /// As Python itself prints what nobody caught.
  void uncaught(std::string_view exception, const std::vector<Frame>& frames) const;
  /// A line with nothing but the process before it: uvicorn's, Python's.
  void plain(std::string_view text) const;
  /// A line with nothing before it: progress bars.
  void bare(std::string_view text) const;

 private:
  void leveled(std::string_view level, std::string_view place, std::string_view text) const;
  std::string prefix_;
};

}  // namespace gpumod::sim
