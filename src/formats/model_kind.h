// What a service for a GGUF model is asked for: chat, embeddings, a ranking; or nothing, because no server serves such a
// file alone.
#pragma once

#include <string_view>

#include "formats/model_facts.h"

namespace gpumod {

enum class ModelKind { chat, embedding, reranker, unusable };
std::string_view to_string(ModelKind kind);

struct ModelGuess {
  ModelKind kind = ModelKind::chat;  ///< unusable: a projector, an adapter, a vocabulary: no server serves it alone
  bool certain = false;              ///< the header says so; otherwise the name does, or nothing
};
/// On doubt it is a chat model: that is what people start with, and its probe says at once when it is none.
ModelGuess guess_kind(const ModelFacts& facts, std::string_view file_name);

}  // namespace gpumod
