// From a service's file, and the arguments that people add to it, to what decides a vLLM's memory.
#pragma once

#include "base/result.h"
#include "fit/vllm_estimate.h"
#include "model/service.h"

namespace gpumod {

/// The service with its options as its server reads them: `words`, the further arguments of its command line in their
/// order, stand behind what its file says by name, and the last one counts. A word that makes no sense changes nothing:
/// the server refuses it at its start. Only a vLLM of ours is changed; what people's own unit passes is not known.
Service as_started(Service service, const std::vector<std::string>& words);

/// On GPUs of `total`. Errors: refused, saying in a few words what estimate_vllm() does not cover: then nothing can be
/// said of what is inside its share.
Result<VllmFlags> vllm_flags_of(const Service& service, const std::vector<std::string>& words, Bytes total);

}  // namespace gpumod
