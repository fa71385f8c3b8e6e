// A verb declares the shape of its answer as people read it: {"modes":[{"id","name",…}]}. Tools need the same as JSON
// Schema, so it is read from there, and said nowhere twice.
#pragma once

#include <string_view>

#include <boost/json/object.hpp>

namespace gpumod::mcp {

/// JSON Schema 2020-12 of whatever fits the shape. It promises little: no key is required, what is told in words or by
/// "or" may be anything, and objects and lists may be null. What cannot be read is any object.
boost::json::object schema_of_shape(std::string_view shape);

}  // namespace gpumod::mcp
