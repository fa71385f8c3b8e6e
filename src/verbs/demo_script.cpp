#include "verbs/demo_script.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace {

using When = DemoAct::When;

std::vector<DemoFault> declare() {
  std::vector<DemoFault> faults;
  {
    DemoFault fault;
    fault.name = "slow-release";
    fault.what = "The driver takes 90 s to give back the memory of the model that code leaves.";
    fault.outcome =
        "The switch to rag waits until NVML lists the ended process no more, then starts. Every row passes.";
    fault.acts = {{When::before, "rag", "curve 90s 0s listed", {}, false},
                  {When::after, "rag", "curve 0s 0s listed", {}, false}};
    faults.push_back(std::move(fault));
  }
  {
    DemoFault fault;
    fault.name = "profile-abort";
    fault.what = "Somebody's program takes 8 GiB and gives them back while vLLM profiles, so vLLM aborts its start.";
    fault.outcome =
        "The cause is recognised as one that passes: what is left of the attempt is cleared away, and once memory has "
        "settled vLLM is started again. Every row passes; rag needed two attempts.";
    fault.acts = {{When::before,
                   "rag",
                   "",
                   {"--as", "blender", "--grab", "8GiB", "--when-free", "20GiB", "--until-label", "profiling"},
                   false},
                  {When::after, "rag", "", {}, true}};
    faults.push_back(std::move(fault));
  }
  {
    DemoFault fault;
    fault.name = "engine-survivor";
    fault.what = "vLLM's engine process outlives its API server: it ignores SIGTERM and has a session of its own.";
    fault.outcome =
        "The stop is not believed until the process is gone: it is killed, and its memory proven free, before the next "
        "model starts. Every row passes.";
    fault.vllm_options = "fault=engine-survives";
    faults.push_back(std::move(fault));
  }
  {
    DemoFault fault;
    fault.name = "residual-sleep";
    fault.what = "vLLM says that it sleeps, and keeps 4800 MiB on the GPU.";
    fault.outcome =
        "The sleep is not believed: the service is woken again, answers, and the row fails with the figure. The next "
        "switch stops it and proves its memory free. One row does not pass, so the exit code is 1.";
    fault.passes = false;
    fault.rows = {{"code"}, {"rag"}, {"vllm-embedding", true}, {"code"}, {"nemotron"}, {"blank"}};
    fault.vllm_options = "residual1=4800MiB";
    faults.push_back(std::move(fault));
  }
  {
    DemoFault fault;
    fault.name = "wedged-child";
    fault.what =
        "The process that holds the coder's model answers a question or two and no other, behind a router that says it "
        "is "
        "healthy.";
    fault.outcome =
        "Switching to the mode that runs already asks every service a real question: the wedge is found, the router "
        "restarted and the model loaded again. Later switches end the process that heeds no order. Every row passes.";
    fault.rows = {{"code"}, {"code"}, {"rag"}, {"code"}, {"nemotron"}, {"blank"}};
    fault.model_options[sim::coder_model] = "fault=wedged-child\nwedge-after=1\n";
    fault.model_options_examined[sim::coder_model] = "fault=wedged-child\nwedge-after=2\n";
    faults.push_back(std::move(fault));
  }
  {
    DemoFault fault;
    fault.name = "foreign-noise";
    fault.what = "A browser on the same GPU takes and gives back up to 300 MiB all the time.";
    fault.outcome = "It is counted, never touched, and neither stalls nor fails a switch. Every row passes.";
    fault.acts = {{When::before, "code", "", {"--as", "firefox", "--holds", "400MiB", "--noise", "300MiB"}, false}};
    faults.push_back(std::move(fault));
  }
  {
    DemoFault fault;
    fault.name = "foreign-grab";
    fault.what =
        "A renderer takes 8 GiB at the worst moment: when the embedding has gone and the coder is about to load.";
    fault.outcome =
        "The coder is not started into memory that is not there: the process is named with pid, user and MiB, it is "
        "left "
        "alone, and rag runs again. That row does not pass, so the exit code is 1; the renderer then ends by itself, "
        "and "
        "the chain goes on.";
    fault.passes = false;
    // The chain meets code twice: the grabber comes before the one that follows rag.
    fault.acts = {{When::after, "rag", "", {"--as", "blender", "--grab", "8GiB", "--when-free", "20GiB"}, false},
                  {When::before, "nemotron", "", {}, true}};
    faults.push_back(std::move(fault));
  }
  return faults;
}

}  // namespace

const std::vector<DemoFault>& demo_faults() {
  static const std::vector<DemoFault> faults = declare();
  return faults;
}

Result<const DemoFault*> find_demo_fault(std::string_view name) {
  const auto& faults = demo_faults();
  const auto found =
      std::find_if(faults.begin(), faults.end(), [&](const DemoFault& fault) { return fault.name == name; });
  if (found != faults.end()) return &*found;
  std::vector<std::string> names;
  for (const auto& fault : faults)
    names.push_back(fault.name);
  return fail(ErrorCode::usage, fmt::format("the demo knows no fault '{}'", printable(name)),
              did_you_mean(name, names) + " gpumod demo --fault list describes them.");
}

std::vector<DemoRow> usual_chain() {
  return {{"code"}, {"rag"}, {"code"}, {"nemotron"}, {"blank"}};
}

}  // namespace gpumod
