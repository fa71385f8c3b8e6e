// The log of a simulated llama-server, line for line as the real one writes it: time since the start, level, text.
#pragma once

#include <string>
#include <string_view>

namespace gpumod::sim {

/// "0.00.245.475 I srv    load_model: …" to standard error, in one write: a router joins the lines of many processes.
void llama_log(char level, std::string_view text);
/// The same without time and level.
void llama_print(std::string_view text);

}  // namespace gpumod::sim
