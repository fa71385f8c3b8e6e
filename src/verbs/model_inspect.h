// What is said of a model whose facts are known: for `model inspect` and `model info`.
#pragma once

#include "formats/model_facts.h"
#include "verbs/handlers.h"

namespace gpumod {

enum class ModelIs { here, elsewhere };

/// model_json() with "notes" and "vram". `request` may hold every option of `model inspect`. `elsewhere`: its files are
/// not on this machine, so no program can be asked about them. Errors: usage, for options that do not fit.
Task<Result<boost::json::object>> describe_model(Context& context, ModelFacts facts, Request request, ModelIs where);

}  // namespace gpumod
