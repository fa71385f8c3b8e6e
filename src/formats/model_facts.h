// What a model file says, whatever its format: the facts that memory, flags and people ask for. Values; no judgement.
//
// A layer is described by what it keeps in memory for each token or sequence, because that is where architectures
// differ: attention (with its own number of heads, perhaps only over a window), a recurrent state, both, or nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace gpumod {

enum class ModelFormat { gguf, safetensors };
std::string_view to_string(ModelFormat format);

struct TensorFacts {
  std::string name;
  std::vector<std::uint64_t>
      shape;         ///< GGUF: the fastest dimension first; safetensors: the slowest first, as it has it
  std::string type;  ///< "q4_K", "bf16"; "type 77" for one that is not known
  std::uint64_t elements = 0;
  Bytes bytes;
  std::size_t file = 0;  ///< index into ModelFacts::files
};

/// What one type contributes to a model.
struct TypeShare {
  std::uint64_t tensors = 0;
  std::uint64_t parameters = 0;
  Bytes bytes;
};

struct LayerFacts {
  bool attention = false;   ///< it has keys and values
  bool recurrent = false;   ///< it has a state a sequence
  bool sliding = false;     ///< its attention sees only the window
  bool shares_kv = false;   ///< it uses the keys and values of an earlier layer
  bool prediction = false;  ///< it predicts further tokens (MTP); servers leave it out unless they are told otherwise
  std::uint32_t heads = 0;
  std::uint32_t kv_heads = 0;
  std::uint32_t key_length = 0;      ///< of a head, as it is kept
  std::uint32_t value_length = 0;    ///< 0: no values are kept beside the keys (MLA)
  std::uint32_t indexer_length = 0;  ///< of the key that a sparse attention's indexer keeps beside them; 0: none
};

/// Multi-head latent attention: keys and values are kept compressed.
struct MlaFacts {
  std::uint32_t kv_rank = 0;
  std::uint32_t q_rank = 0;
  std::uint32_t rope_length = 0;
  bool compressed = false;  ///< the file is laid out so that the compressed form is what is kept
};

/// The state of a recurrent layer, in elements of a sequence.
struct StateFacts {
  std::uint32_t conv_kernel = 0;
  std::uint32_t inner_size = 0;
  std::uint32_t state_size = 0;
  std::uint32_t group_count = 0;
  std::uint32_t time_step_rank = 0;
  std::uint64_t rolling = 0;  ///< elements of the convolution's window ("R")
  std::uint64_t state = 0;    ///< elements of the state ("S")
};

struct ExpertFacts {
  std::uint32_t count = 0;
  std::uint32_t used = 0;
  std::uint32_t shared = 0;
  std::uint32_t feed_forward = 0;  ///< inner width of one
};

struct ModelFacts {
  ModelFormat format = ModelFormat::gguf;
  std::vector<std::filesystem::path> files;
  Bytes file_bytes;
  std::string architecture;  ///< GGUF: "qwen3moe"; safetensors: the model_type of config.json
  std::string model_class;   ///< safetensors: the first of "architectures"
  std::string name;
  std::string kind;          ///< GGUF's general.type; "" is a model
  std::string quantization;  ///< "Q4_K_M", "fp8", "awq 4 bit"; "" when the file does not say
  std::map<std::string, TypeShare> types;
  std::uint64_t parameters = 0;
  Bytes weights;
  std::uint32_t context_length = 0;  ///< 0: unknown, as for every number below
  std::uint32_t embedding_length = 0;
  std::uint32_t feed_forward_length = 0;  ///< the widest
  std::uint32_t vocabulary = 0;
  std::uint32_t sliding_window = 0;  ///< tokens; 0 when no layer slides
  bool keeps_kv = true;              ///< false for encoders: what they compute is not kept
  std::vector<LayerFacts> layers;
  std::optional<MlaFacts> mla;
  std::optional<StateFacts> state;
  std::optional<ExpertFacts> experts;
  std::optional<std::int64_t> pooling;  ///< GGUF's pooling_type: 0 none, 1 mean, 2 cls, 3 last, 4 rank
  std::string tokenizer;                ///< "gpt2", "llama", "bert" …; a class name for safetensors
  std::string pre_tokenizer;
  bool chat_template = false;
  std::vector<TensorFacts> tensors;
  std::vector<std::string> remarks;  ///< what was concluded although the file does not say it, in words

  std::uint32_t prediction_layers() const;
};

}  // namespace gpumod
