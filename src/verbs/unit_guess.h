// What a command line of people's own unit says about the server that it starts: enough to propose the service that
// adopts it. Nothing is run, and what cannot be read stays unset.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/service.h"

namespace gpumod {

struct UnitGuess {
  EngineKind engine = EngineKind::command;
  std::string server;                 ///< "llama-server", "vllm", "uvicorn", "ollama", "text-embeddings-router"
  std::optional<std::uint16_t> port;  ///< unset: the command line does not say; see usual_port
  std::uint16_t usual_port = 0;       ///< the server's own default
  std::string host;                   ///< empty: not said, or every address
  std::string model;                  ///< a path or a hub id
  std::string served_name;
  std::optional<double> utilization;  ///< vLLM's --gpu-memory-utilization
  bool embedding = false;
  bool router = false;  ///< a llama-server without a model of its own
};

/// Nothing when no inference server is recognised. `words` as command_words() gives them.
std::optional<UnitGuess> guess_server(const std::vector<std::string>& words);

}  // namespace gpumod
