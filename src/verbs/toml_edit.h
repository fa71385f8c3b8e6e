// Adds one table to a TOML text that people wrote, and leaves every byte that is there as it is. A table that is there
// already is never changed: of TOML only so much is read here as it takes to know what stands at a place.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "base/result.h"

namespace gpumod {

/// `text` with a table at `path` that has these members (texts, lists of texts, objects of texts), at its end. The same
/// text where the table is there and has them, whatever else it has. Errors: configuration, when it cannot be read as
/// TOML; refused, when something else is at `path`, or no table can be added there.
Result<std::string> with_toml_table(std::string_view text, const std::vector<std::string>& path,
                                    const boost::json::object& members);

/// The table alone, as it is added.
std::string toml_table(const std::vector<std::string>& path, const boost::json::object& members);

}  // namespace gpumod
