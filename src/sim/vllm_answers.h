// What a simulated model says: the answer people set, cut into tokens; gibberish when its weights are gone; vectors for
// texts. Pure and deterministic.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gpumod::sim {

/// Words with the blank before them: "I am it." is "I", " am", " it.".
std::vector<std::string> tokens_of(std::string_view text);

/// Replaces "{model}" and "{prompt}".
std::string filled_answer(std::string_view pattern, std::string_view model, std::string_view prompt);

/// A unit vector. Texts with words in common lie nearer to each other than texts without; the empty text has one, too.
std::vector<double> embedding_of(std::string_view text, int dimensions);

}  // namespace gpumod::sim
