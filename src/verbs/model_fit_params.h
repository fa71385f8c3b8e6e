// llama-fit-params: llama.cpp's own word on what a model would take, from a load without memory, in about a second. It
// stands beside llama-server where that is built; what it says counts more than arithmetic.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/async.h"
#include "fit/llama_estimate.h"

namespace gpumod {

/// One line of its answer: "CUDA0 4561 1024 301", in MiB.
struct FitLine {
  std::string device;
  GpuNeed need;  ///< weights, kv, compute
};
/// Lines of another shape are passed over.
std::vector<FitLine> parse_fit_params(std::string_view output);

/// Its command line for these flags. `model`: the first file.
std::vector<std::string> fit_params_command(const std::filesystem::path& binary, const std::filesystem::path& model,
                                            const ModelFacts& facts, const LlamaFlags& flags);

/// The estimate with what the program says in place of arithmetic: weights, caches, computation; CUDA's context stays.
/// Nothing when it says nothing of a GPU. It cannot be asked for slots that share one cache: where that matters, the
/// cache stays arithmetic, and the assumptions say so.
std::optional<VramEstimate> with_fit_params(const VramEstimate& estimate, const std::vector<FitLine>& lines,
                                            const ModelFacts& facts, const LlamaFlags& flags);

}  // namespace gpumod
