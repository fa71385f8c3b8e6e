#include "formats/model_facts.h"

#include <algorithm>

namespace gpumod {

std::string_view to_string(ModelFormat format) {
  return format == ModelFormat::gguf ? "gguf" : "safetensors";
}

std::uint32_t ModelFacts::prediction_layers() const {
  return static_cast<std::uint32_t>(
      std::count_if(layers.begin(), layers.end(), [](const LayerFacts& layer) { return layer.prediction; }));
}

}  // namespace gpumod
