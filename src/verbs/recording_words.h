// What people ask of a recording first: why did it take so long? In sentences, the most telling first.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/recording.h"

namespace gpumod {

/// Empty where there is nothing to say: it was short, and as expected.
std::vector<std::string> why_so_long(const Recording& recording);

/// "getting ready", "stopping": what a step of this action is at.
std::string_view in_words(Action action, Recording::Stage stage);

}  // namespace gpumod
