// libFuzzer entry: any bytes, read as a model file, or as what the hub says of one. The first byte chooses which; the
// rest is the file. Besides not crashing and not hanging: what is read lies inside the file, every refusal says in which
// file it is, and an estimate of whatever was read is a sum of parts that are not negative.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "fit/llama_estimate.h"
#include "fit/vllm_estimate.h"
#include "formats/gguf_facts.h"
#include "formats/hf_model.h"
#include "formats/hub_listing.h"
#include "formats/safetensors.h"

namespace {

using namespace gpumod;

void require(bool holds) {
  if (!holds) std::abort();
}

void check(const Error& error) {
  require(error.message.find("x.model") != std::string::npos || error.code == ErrorCode::usage);
}

void check(const GpuNeed& need) {
  require(need.weights >= Bytes() && need.kv >= Bytes() && need.compute >= Bytes() && need.total() >= need.kv);
}

void estimate(const ModelFacts& facts) {
  LlamaFlags flags;
  flags.parallel = 3;
  flags.n_cpu_moe = 2;
  flags.split = {2, 1};
  for (const char* type : {"f16", "q8_0"}) {
    flags.cache_k = flags.cache_v = type;
    if (const auto found = estimate_llama(facts, flags))
      for (const auto& gpu : found->gpus)
        check(gpu);
    else
      check(found.error());
  }
  VllmFlags vllm;
  vllm.gpu_total = Bytes::gib(24);
  vllm.tensor_parallel = 2;
  const auto found = estimate_vllm(facts, vllm);
  require(found.has_value());
  check(found->need.sum());
}

void fuzz_gguf(std::string_view bytes) {
  const MemorySource source("x.model", bytes);
  auto file = read_gguf(source);
  if (!file) return check(file.error());
  std::uint64_t sum = 0;
  for (const auto& tensor : file->tensors) {
    require(file->data_offset + tensor.offset + tensor.bytes <= bytes.size() || tensor.bytes == 0);
    sum += tensor.bytes;
  }
  require(sum <= bytes.size());
  GgufModel model;
  model.paths.emplace_back("x.model");
  model.parts.push_back(std::move(*file));
  const auto facts = facts_of(model);
  if (!facts) return check(facts.error());
  require(facts->weights == Bytes(static_cast<std::int64_t>(sum)));
  estimate(*facts);
}

void fuzz_safetensors(std::string_view bytes) {
  const MemorySource source("x.model", bytes);
  const auto tensors = read_safetensors(source);
  if (!tensors) return check(tensors.error());
  Bytes sum;
  for (const auto& tensor : *tensors)
    sum += tensor.bytes;
  require(sum <= Bytes(static_cast<std::int64_t>(bytes.size())));
}

void fuzz_listing(std::string_view bytes) {
  const auto repository = read_hub_listing("x.model", bytes);
  if (!repository) return check(repository.error());
  for (const auto& file : repository->files)
    require(!file.name.empty() && file.name.front() != '/' &&
            ("/" + file.name + "/").find("/../") == std::string::npos);
  for (const auto& model : gguf_models_of(*repository))
    require(!files_of_hub_model(*repository, model).empty());
  if (const auto facts = facts_of_hub_model(*repository, "x.model", "{}"); !facts) check(facts.error());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  if (data[0] == 'L') {
    fuzz_listing(bytes);
    return 0;
  }
  switch (data[0] % 3) {
    case 0: fuzz_gguf(bytes); break;
    case 1: fuzz_safetensors(bytes); break;
    default:
      if (const auto facts = facts_of_hf_config("x.model", bytes))
        estimate(*facts);
      else
        check(facts.error());
  }
  return 0;
}
