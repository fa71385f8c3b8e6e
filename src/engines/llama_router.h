// llama.cpp's router mode: one llama-server that starts a child per model, shared by several services.
//
// Where a model's settings come from, seen with the real binary: a section of the preset is merged into the model of
// the same name from --models-dir (a section without one makes a model of its own), and what stands on the router's
// command line overrides every section. So the command line carries only what all members agree on; what they want
// differently goes into sections of a generated preset. The preset's values cannot be quoted, and `;` and `#` begin
// comments anywhere in a line.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engines/engine.h"

namespace gpumod {

/// One setting of a model, as the flag's name without dashes and its value; "true" for a flag without one.
using ModelSetting = std::pair<std::string, std::string>;
std::vector<ModelSetting> model_settings(const LlamaOptions& options);

/// The members' union.
struct RouterPlan {
  std::filesystem::path models_dir;
  std::filesystem::path models_preset;  ///< people's own; empty if none
  std::optional<int> models_max;
  bool no_models_autoload = false;
  std::vector<ModelSetting> common;                                         ///< for the command line
  std::vector<std::pair<std::string, std::vector<ModelSetting>>> sections;  ///< for the generated preset, by model
  std::vector<std::string> extra_args;
  std::map<std::string, Secret> environment;
  Duration stop_timeout = {};
};

/// Errors: configuration, when the members want what one process cannot give.
Result<RouterPlan> plan_router(const std::vector<const Service*>& members);

/// Judging GET /models.
Result<Residency> router_residency(const Service& service, const HttpReply& reply);
std::string router_failure_reason(const Service& service, const HttpReply& reply);
Result<void> router_identity(const Service& service, const HttpReply& reply);
/// Judging POST /models/load and /models/unload.
Result<void> router_load(const Service& service, const HttpReply& reply);
Result<void> router_unload(const Service& service, const HttpReply& reply);

}  // namespace gpumod
