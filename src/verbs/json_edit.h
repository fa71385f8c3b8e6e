// Changes one value in a JSON text that people wrote, and leaves every other byte as it is: comments, order, indentation,
// commas at the end (JSONC, as editors read it).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/json/value.hpp>

#include "base/result.h"

namespace gpumod {

/// `text` with `value` at `path`, a list of keys from the root; missing objects on the way are made. An empty text is an
/// empty object. Errors: configuration, when it cannot be read as JSON with comments, or something on the way is no
/// object.
Result<std::string> with_json_value(std::string_view text, const std::vector<std::string>& path,
                                    const boost::json::value& value);

/// Two blanks a level, as editors write it.
std::string pretty_json(const boost::json::value& value);

}  // namespace gpumod
