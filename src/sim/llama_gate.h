// What stands before every route, of a single server and of a router alike.
#pragma once

#include <optional>

#include "sim/llama_flags.h"
#include "sim/llama_replies.h"

namespace gpumod::sim {

/// Keys from --api-key and --api-key-file; empty: everybody may ask.
Result<std::vector<std::string>> llama_keys(const LlamaSettings& settings);
/// An answer for preflights and for those without a key; nothing for everyone else.
std::optional<ServerReply> llama_gate(const std::vector<std::string>& keys, const ServerRequest& request);
bool is_health(const ServerRequest& request);
/// "GET" for HEAD, too.
std::string llama_method(const ServerRequest& request);
/// The headers that are on every answer.
ServerReply with_llama_headers(ServerReply reply);

/// Writes what every llama-server writes first.
void log_beginning(const LlamaSettings& settings);
void log_security(const LlamaSettings& settings);

}  // namespace gpumod::sim
