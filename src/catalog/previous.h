// Files of gpumod 0.1, read as they are: their keys become ours, each value keeping its place in the file, and the
// ordinary reader does the rest. So no value is checked twice, and a key of ours works in an old file too.
#pragma once

#include <string>
#include <vector>

#include "catalog/reading.h"

namespace gpumod {

/// True for a map that says `driver:`.
bool is_previous(const YamlNode& map);

/// The same service in our keys. Null when it cannot be said in them; the problem is reported then.
/// Unknown `unit_vars` are warnings, with their name and place; they go nowhere.
Yaml from_previous(Reading& reading, const YamlNode& map);

/// For the reference: what each old key became.
struct Renaming {
  std::string old_key;  ///< "unit_vars.gpu_mem_util"
  std::string new_key;  ///< "gpu_memory_utilization"; empty: read and left aside
  std::string engine;   ///< empty: any
};
std::vector<Renaming> previous_renamings();

}  // namespace gpumod
