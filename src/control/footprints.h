// What is known of services beyond their files: what their models' files let expect, and what was measured in runs under
// the same key as they would have today.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/paths.h"
#include "catalog/catalog.h"
#include "model/footprint.h"

namespace gpumod {

/// By subject (each service, and each router's unit): a hash of everything that may decide how much memory it takes or how
/// long its steps last, except for the GPU. The rule is in docs/decisions/0007-what-a-service-claims.md. What cannot be
/// started (no binary, no unit file) has none. `driver`: its version, "" without one.
std::map<std::string, std::string> footprint_keys(const Paths& paths, const Catalog& catalog,
                                                  const std::string& driver);

/// Estimates of the llama-servers among `wanted`, in `known`. Reads the headers of model files, once for each file and set
/// of flags: what came of it is kept in the cache. May block for as long as that takes.
void add_estimates(const Paths& paths, const Catalog& catalog, const std::set<ServiceId>& wanted, Footprints& known);

/// What was measured, in `known`.
void add_measurements(const std::vector<Measurement>& remembered, Footprints& known);

}  // namespace gpumod
