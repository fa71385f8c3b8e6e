// From a service's file, and the arguments that people add to it, to the flags that decide a llama-server's memory.
#pragma once

#include "base/result.h"
#include "fit/llama_estimate.h"
#include "model/service.h"

namespace gpumod {

/// `words`: the further arguments of its command line, in their order. Errors: refused, saying in a few words what
/// estimate_llama() does not cover: then nothing can be said beforehand.
Result<LlamaFlags> llama_flags_of(const Service& service, const std::vector<std::string>& words);

}  // namespace gpumod
