// The door of formats/: a path of people's, and what model is there.
#pragma once

#include "formats/model_facts.h"

namespace gpumod {

/// A GGUF file or any part of a series; a folder with one GGUF model, or with a Hugging Face layout; one of the latter's
/// files. Errors: not_found, configuration (malformed, or nothing that can be told), failed.
Result<ModelFacts> read_model(const std::filesystem::path& path);

}  // namespace gpumod
