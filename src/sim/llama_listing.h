// Which models a simulated router knows, and how each is started: from the files of --models-dir, the sections of
// --models-preset and the router's own command line. The command line wins over a section, a section over [*].
#pragma once

#include <string>
#include <vector>

#include "base/time.h"
#include "sim/llama_flags.h"

namespace gpumod::sim {

struct ListedModel {
  std::string name;
  std::vector<std::string> aliases;
  LlamaSettings settings;  ///< the child's, without host, port and alias
  bool from_preset = false;
  bool load_on_startup = false;
  Duration stop_timeout{};
  std::string preset_text;  ///< as /models shows it
  int context = 0;          ///< 0: not known
};

/// Sorted by name. Errors: configuration, with the words of the real router.
Result<std::vector<ListedModel>> list_models(const LlamaSettings& router);

}  // namespace gpumod::sim
