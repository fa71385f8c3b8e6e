#include "formats/architectures.h"

#include <algorithm>
#include <iterator>

namespace gpumod {

namespace {

constexpr bool last = false, first = true;  // where the layer that sees everything stands in its group

constexpr SlidingRule sliding_rules[] = {
    {"afmoe", 4, last},
    {"cohere2", 4, last},
    {"cohere2moe", 4, first},
    {"exaone-moe", 4, last, 128},
    {"exaone4", 4, last, 4096, 0, 64},
    {"gemma-embedding", 6, last},
    {"gemma2", 2, last, 4096},
    {"gemma3", 6, last},
    {"gemma3n", 5, last},
    {"gemma4", 0, last},
    {"gpt-oss", 2, last},
    {"laguna", 4, first},
    {"llama4", 4, last, 8192, 8192},
    {"mellum", 4, last},
    {"mimo2", 0, last},
    {"modern-bert", 3, first},
    {"olmo2", 4, last},
    {"plamo3", 8, last},
    {"smallthinker", 4, first, 0, 4096},
    {"step35", 0, last},
};

struct Recurrent {
  std::string_view architecture;
  RecurrentRule rule;
};
constexpr Recurrent recurrent_rules[] = {
    {"arwkv7", RecurrentRule::all},
    {"falcon-h1", RecurrentRule::beside},
    {"granitehybrid", RecurrentRule::no_kv_heads},
    {"jamba", RecurrentRule::no_kv_heads},
    {"kimi-linear", RecurrentRule::no_kv_heads},
    {"lfm2", RecurrentRule::no_kv_heads},
    {"lfm2moe", RecurrentRule::no_kv_heads},
    {"mamba", RecurrentRule::all},
    {"mamba2", RecurrentRule::all},
    {"minimax-01", RecurrentRule::interval},
    {"nemotron_h", RecurrentRule::no_kv_no_ffn},
    {"nemotron_h_moe", RecurrentRule::no_kv_no_ffn},
    {"plamo2", RecurrentRule::no_kv_heads},
    {"qwen35", RecurrentRule::interval},
    {"qwen35moe", RecurrentRule::interval},
    {"qwen3next", RecurrentRule::interval},
    {"rwkv6", RecurrentRule::all},
    {"rwkv6qwen2", RecurrentRule::all},
    {"rwkv7", RecurrentRule::all},
};

constexpr std::string_view without_kv[] = {
    "bert",      "dream",       "eurobert", "gemma-embedding", "jina-bert-v2",   "jina-bert-v3", "llada",
    "llada-moe", "modern-bert", "neo-bert", "nomic-bert",      "nomic-bert-moe", "rnd1",         "wavtokenizer-dec",
};

}  // namespace

const SlidingRule* sliding_rule(std::string_view architecture) {
  const auto found = std::find_if(std::begin(sliding_rules), std::end(sliding_rules),
                                  [&](const auto& rule) { return rule.architecture == architecture; });
  return found == std::end(sliding_rules) ? nullptr : found;
}

RecurrentRule recurrent_rule(std::string_view architecture) {
  const auto found = std::find_if(std::begin(recurrent_rules), std::end(recurrent_rules),
                                  [&](const auto& rule) { return rule.architecture == architecture; });
  return found == std::end(recurrent_rules) ? RecurrentRule::none : found->rule;
}

bool keeps_no_kv(std::string_view architecture) {
  return std::find(std::begin(without_kv), std::end(without_kv), architecture) != std::end(without_kv);
}

std::uint32_t layers_with_own_kv(std::string_view architecture) {
  return architecture == "gemma3n" ? 20 : 0;
}

}  // namespace gpumod
