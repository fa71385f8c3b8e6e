// The reports of a quality run: Markdown for people and their repositories, JSON for programs, and one HTML file that
// needs nothing else, neither scripts nor a network. What models, logs and files say stands in them as text, whatever it is
// made of. Pure, but for writing them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <boost/json.hpp>

#include "base/result.h"

namespace gpumod {

std::string qa_markdown(const boost::json::value& run);
std::string qa_html(const boost::json::value& run);

/// Writes NAME.md, NAME.json and NAME.html into `directory`, which is made where it is not there, and returns their
/// paths. Errors: environment.
Result<std::vector<std::filesystem::path>> write_reports(const std::filesystem::path& directory,
                                                         const std::string& name, const boost::json::value& run);

}  // namespace gpumod
