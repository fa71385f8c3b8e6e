// What the reports of a quality run, and whoever shows one, say alike. Pure.
#pragma once

#include <string>
#include <vector>

#include <boost/json.hpp>

namespace gpumod {

/// "PASS", "PASS*" (after something was dealt with), "ROLLED BACK", "REFUSED", "CANCELLED", "FAIL".
std::string result_word(const boost::json::value& transition);

/// "2048 dimensions", "171 tok/s, prompt 203 tok/s, first token after 0.05 s": what was measured of a service.
std::string figures_words(const boost::json::value& service);

/// What there is to say of a transition, shortest first: who answered how, what was dealt with, what went wrong.
std::vector<std::string> notes_on(const boost::json::value& transition);

/// "513 MiB → 23027 MiB → 22529 MiB": before, peak, after; "" where nothing is known.
std::string vram_words(const boost::json::value& transition);

/// "5 of 6 transitions passed, 1 with something dealt with on the way".
std::string summary_words(const boost::json::value& run);

/// Whether what ran before the run was brought back; "" when it ran all the time.
std::string restored_words(const boost::json::value& run);

/// "blank → code → rag".
std::string sequence_words(const boost::json::value& run);

/// "1.2 s"; "" for null.
std::string seconds_words(const boost::json::value* amount);
/// "20512 MiB"; "" for null.
std::string bytes_words(const boost::json::value* amount);

}  // namespace gpumod
