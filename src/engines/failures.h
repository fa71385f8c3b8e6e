// What failed starts look like in a log: a catalogue as data, and the one reader of it.
//
// A signature's pattern is literal text, compared without regard to case, found anywhere in a line, with these holes:
//   *    any text, the shortest that lets the rest match
//   <n>  a number, its digits grouped or fractional: 12288, 131,072, 5.43
//   <w>  a word without blanks, quotes or brackets
//   <t>  any text up to what follows, or to the end of the line
// Holes in <> are captured; "{1}" in cause and remedy stands for the first. Regular expressions lost here: the standard
// library's recurse once per character, and a hostile log line could end the process.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engines/engine.h"

namespace gpumod {

struct FailureSignature {
  std::string_view pattern;
  FailureCause::Class kind;
  std::string_view cause;
  std::string_view remedy;
};

/// The signatures that may appear in a log of this engine, the special before the general.
std::vector<const FailureSignature*> signatures_of(EngineKind engine);

/// The captured holes if the pattern occurs in the line.
std::optional<std::vector<std::string>> match_pattern(std::string_view pattern, std::string_view line);

/// The first cause. A line that a signature knows wins; else the first line that reads like an exception (Python) or an
/// error (llama.cpp), with kind unknown. Warnings are passed over: what was only warned of was survived.
FailureCause first_cause(EngineKind engine, const std::vector<LogLine>& log);

}  // namespace gpumod
