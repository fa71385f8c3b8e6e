// Facts and estimates of a model as JSON: the answer of `model inspect`.
#pragma once

#include <cstdint>
#include <string>

#include <boost/json/object.hpp>

#include "fit/estimate.h"
#include "fit/llama_estimate.h"
#include "fit/vllm_estimate.h"
#include "formats/model_facts.h"

namespace gpumod {

/// What a file does not say is null, not nought.
boost::json::value known_or_null(std::uint64_t number);
boost::json::value known_or_null(const std::string& text);

enum class TensorList { counted, listed };

/// "architecture", "parameters", "layers", … Unknown numbers are null.
boost::json::object model_json(const ModelFacts& facts, TensorList tensors);

/// {"weights","kv","compute","context","total"}, in bytes.
boost::json::object need_json(const GpuNeed& need);
/// {"source", the sum, "gpus", "host", "assumptions"}.
boost::json::object vram_json(const VramEstimate& estimate, std::string_view source);
boost::json::object vram_json(const VllmEstimate& estimate);

}  // namespace gpumod
