// What the demo plays: the chain of switches, and what goes wrong in it when a fault is asked for. Data, so that the list
// of faults, the guide and the demo itself cannot tell different stories.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "sim/box.h"

namespace gpumod {

/// One row of the demo's table: a mode switch, or a service that is put to sleep.
struct DemoRow {
  std::string target;
  bool sleep = false;  ///< `target` is a service
};

/// Something done to the simulated machine at one row of the chain.
struct DemoAct {
  enum class When { before, after } when = When::before;
  std::string target;                ///< of the row; the first that matches
  std::string tell;                  ///< a line for the GPU's broker; may be empty
  std::vector<std::string> desktop;  ///< a foreign process to start, by the words of `gpumod-sim desktop`; may be empty
  bool quit = false;                 ///< the foreign processes end
};

struct DemoFault {
  std::string name;
  std::string what;           ///< what goes wrong
  std::string outcome;        ///< what gpumod does about it, and how the demo ends
  bool passes = true;         ///< every row is expected to pass
  std::vector<DemoRow> rows;  ///< empty: the usual chain
  std::vector<DemoAct> acts;
  std::string vllm_options;
  std::map<std::string, std::string> model_options;
  /// In their place where each row is examined for a report: an examination asks a question more.
  std::map<std::string, std::string> model_options_examined;
};

const std::vector<DemoFault>& demo_faults();
/// Errors: usage, with the nearest names.
Result<const DemoFault*> find_demo_fault(std::string_view name);

/// blank → code → rag → code → nemotron → blank, without the first: that is where it begins.
std::vector<DemoRow> usual_chain();

}  // namespace gpumod
