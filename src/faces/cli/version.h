// Which build this is.
#pragma once

#include <string>

#include <boost/json/object.hpp>

namespace gpumod::cli {

std::string version_line();          ///< "gpumod 0.2.0 (v0.2.0-3-gabc; GCC 12.2)"
boost::json::object version_json();  ///< {"name","version","git","compiler"}

}  // namespace gpumod::cli
