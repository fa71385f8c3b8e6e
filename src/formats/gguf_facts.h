// The facts of a model that lies in GGUF files.
#pragma once

#include "formats/gguf.h"
#include "formats/model_facts.h"

namespace gpumod {

/// Errors: configuration when a key has a value that no model can have.
Result<ModelFacts> facts_of(const GgufModel& model);

}  // namespace gpumod
