// A model as Hugging Face lays it out: a folder with config.json, safetensors files, perhaps an index of them, perhaps
// configurations of the tokenizer and of generation. What vLLM, SGLang and transformers read.
#pragma once

#include "formats/model_facts.h"

namespace gpumod {

/// Shards named by model.safetensors.index.json, else model.safetensors, else every *.safetensors of the folder. The
/// index is not believed: each shard's header is read, and each tensor must be where the index says.
/// Errors: not_found without config.json or a shard; configuration, naming the file, when one of them is malformed.
Result<ModelFacts> read_hf_model(const std::filesystem::path& folder);

/// The facts of a configuration alone, without tensors. `file` is for messages.
Result<ModelFacts> facts_of_hf_config(std::string_view file, std::string_view config);

}  // namespace gpumod
