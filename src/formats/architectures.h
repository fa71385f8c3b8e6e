// What is known of model architectures that their GGUF files do not say: llama.cpp has it in its code, by name. The rest
// of gpumod reads facts only.
//
// Source: the hyperparameters that llama.cpp reads for each architecture (src/models/*.cpp, src/llama-model.cpp,
// src/llama-arch.cpp). Every sliding-window row was compared with what a llama-server of build 11669 says of its layers
// ("layer N assigned to device …, is_swa = 1") for a file of that architecture.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace gpumod {

/// Which layers of an architecture slide: all but one of `period`, the exception last in each group or first.
struct SlidingRule {
  std::string_view architecture;
  std::uint32_t period = 0;  ///< 0: only where the file lists the layers
  bool dense_first = false;
  std::uint32_t usual_window = 0;  ///< where the file names none; 0: then nothing slides
  std::uint32_t fixed_window = 0;  ///< whatever the file says, unless it says 0
  std::uint32_t only_layers = 0;   ///< only models with this many layers slide; 0: all
};
/// Null: llama.cpp lets no layer slide, even if the file names a window (phi3, qwen2, mistral).
const SlidingRule* sliding_rule(std::string_view architecture);

/// How the recurrent layers of a hybrid architecture are told from the others.
enum class RecurrentRule {
  none,          ///< attention everywhere
  all,           ///< mamba, rwkv: recurrent everywhere
  no_kv_heads,   ///< where head_count_kv is 0
  no_kv_no_ffn,  ///< where head_count_kv and feed_forward_length are both 0; layers with only the former keep nothing
  interval,      ///< all but every full_attention_interval-th (4; 8 for minimax-01)
  beside,        ///< every layer has both
};
RecurrentRule recurrent_rule(std::string_view architecture);

/// True for encoders and diffusion models: every token is computed anew, nothing is kept.
bool keeps_no_kv(std::string_view architecture);

/// Layers counted from the first that have keys and values of their own; the others use theirs. 0: all have.
std::uint32_t layers_with_own_kv(std::string_view architecture);

}  // namespace gpumod
