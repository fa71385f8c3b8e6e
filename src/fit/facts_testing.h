// For tests: what the file of a usual model says.
#pragma once

#include "formats/model_facts.h"

namespace gpumod {

/// 32 layers of 200 MiB; each keeps 128 MiB for 32768 tokens at 16 bit.
inline ModelFacts model_of_8b(Bytes layer = Bytes::mib(200), const std::string& file = "/models/m-Q8_0.gguf") {
  ModelFacts facts;
  facts.architecture = "llama";
  facts.context_length = 32768;
  facts.embedding_length = 4096;
  facts.feed_forward_length = 14336;
  facts.vocabulary = 128256;
  facts.parameters = 8'000'000'000;
  facts.files = {file};
  for (int i = 0; i < 32; ++i) {
    LayerFacts one;
    one.attention = true;
    one.heads = 32;
    one.kv_heads = 8;
    one.key_length = one.value_length = 128;
    facts.layers.push_back(one);
    TensorFacts tensor;
    tensor.name = "blk." + std::to_string(i) + ".ffn_up.weight";
    tensor.bytes = layer;
    facts.tensors.push_back(tensor);
    facts.weights += layer;
  }
  return facts;
}

}  // namespace gpumod
