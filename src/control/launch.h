// From a service of the catalogue to a unit that can be started, and everything that can be known to be wrong with it
// before anything else is stopped for it.
#pragma once

#include "catalog/catalog.h"
#include "control/machine.h"
#include "model/gpu.h"

namespace gpumod {

/// As people named the program that the service is started with: a path, or what is looked up in PATH.
struct NamedBinary {
  std::string name;
  std::string said_in;  ///< "binary: in services/chat.yaml"; empty: nobody named one, the engine's usual name
};
NamedBinary named_binary(const Catalog& catalog, const Service& service);

/// The program that the service is started with, absolute: by its file, the settings, or PATH. Errors: refused.
Result<std::filesystem::path> binary_of(const Paths& paths, const Catalog& catalog, const Service& service);

/// Null when there are none.
const EngineSettings* engine_settings(const Catalog& catalog, EngineKind kind);

/// The unit for `name`: argv, environment, deadlines. Writes a router's model preset where it needs one.
/// `gpus`: where it was placed; empty leaves CUDA_VISIBLE_DEVICES alone.
/// Errors: refused (no binary), configuration.
Result<UnitSpec> unit_spec_for(const Machine& machine, const Catalog& catalog, const std::string& unit,
                               const std::vector<GpuSample>& gpus);

/// Binary found and executable, model there, readable and sane (model_check.h), no unit of people's own in the way, flags
/// known to the binary. Errors: refused, with every problem of every service; `details` lists them.
Task<Result<void>> preflight(Machine& machine, const Catalog& catalog, std::vector<ServiceId> services);

}  // namespace gpumod
