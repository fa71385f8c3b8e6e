// Questions to a person.
#pragma once

#include <string_view>

namespace gpumod::cli {

/// Whether there is somebody to ask: standard input and output are terminals.
bool can_ask();
/// Asks until the answer is yes or no. `otherwise`: what an empty line, or the end of the input, means.
bool ask(std::string_view question, bool otherwise);

}  // namespace gpumod::cli
