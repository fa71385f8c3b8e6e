// Services as they would be with other settings, and what would then be known of them.
#pragma once

#include <vector>

#include "base/result.h"
#include "fit/alternatives.h"

namespace gpumod {

struct Changed {
  Service service;
  Footprint known;
  const ModelFacts* model = nullptr;  ///< as in Subject
  std::optional<LlamaFlags> flags;    ///< as in Subject
  std::vector<std::string> words;     ///< as in Subject
};
/// The service as these changes make it; those of other services are passed over. Its flags are read anew from what its
/// file would say and from its further arguments, which have the last word. With other settings a llama-server was
/// never measured, and what is declared speaks of the settings it had: then only the estimate of what they come to is
/// known, as it will be once they stand in its file.
/// Sleeping and leaving out are not the service's. Errors: usage where a type of caches does not go with the model.
Result<Changed> with_changes(const Subject& subject, const std::vector<Change>& changes);

/// False where its further arguments say something else in its place, so that the change would change nothing.
bool takes_effect(const Subject& subject, const Change& change);

/// By arithmetic, for a llama-server on one GPU. Errors: as estimate_llama.
Result<EstimatedMemory> estimated_memory(const ModelFacts& model, const LlamaFlags& flags);

/// The same model, quantized differently: the architecture, its dimensions, and as many parameters but for the rounding
/// of who packed it.
bool same_model(const ModelFacts& one, const ModelFacts& other);

}  // namespace gpumod
