#include "formats/model_kind.h"

#include <algorithm>

#include "base/text.h"

namespace gpumod {

namespace {

bool contains_any(std::string_view text, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](std::string_view part) { return text.find(part) != std::string_view::npos; });
}

}  // namespace

std::string_view to_string(ModelKind kind) {
  switch (kind) {
    case ModelKind::chat: return "chat";
    case ModelKind::embedding: return "embedding";
    case ModelKind::reranker: return "reranker";
    case ModelKind::unusable: return "unusable";
  }
  return "unknown";
}

ModelGuess guess_kind(const ModelFacts& facts, std::string_view file_name) {
  const auto name = lower(file_name);
  const std::string_view architecture = facts.architecture;

  if (architecture == "clip" || facts.kind == "mmproj" || facts.kind == "adapter" || facts.kind == "imatrix" ||
      name.starts_with("mmproj") || facts.tensors.empty())
    return {ModelKind::unusable, true};

  if (facts.pooling == 4) return {ModelKind::reranker, true};
  const bool encoder = architecture.find("bert") != std::string_view::npos || architecture == "t5encoder" ||
                       architecture.ends_with("-embedding");
  if (encoder) return {name.find("rerank") != std::string::npos ? ModelKind::reranker : ModelKind::embedding, true};
  if (facts.pooling && *facts.pooling >= 1 && *facts.pooling <= 3) return {ModelKind::embedding, true};

  if (name.find("rerank") != std::string::npos) return {ModelKind::reranker, false};
  if (contains_any(name, {"embed", "bge-", "minilm", "gte-", "e5-"})) return {ModelKind::embedding, false};
  return {ModelKind::chat, !architecture.empty()};
}

}  // namespace gpumod
