// The failure catalogue as data: what each engine's log says when a start is lost, in what words people are told, and
// what they can do about it. The reader of these tables is failures.cpp.
//
// A signature's pattern is literal text, compared without regard to case, found anywhere in a line, with these holes:
//   *    any text, the shortest that lets the rest match
//   <n>  a number, its digits grouped or fractional: 12288, 131,072, 5.43
//   <w>  a word without blanks, quotes or brackets
//   <t>  any text up to what follows, or to the end of the line
// Holes in <> are captured; "{1}" in cause and remedy stands for the first. Regular expressions lost here: the standard
// library's recurse once per character, and a hostile log line could end the process.
#pragma once

#include <span>
#include <string_view>

#include "engines/engine.h"

namespace gpumod {

struct FailureSignature {
  /// What the line means while its process still runs.
  ///   ended    programs have been seen to survive such a line (an optional import, an allocation that is tried again
  ///            smaller): it counts once the process has ended, or does nothing any more
  ///   at_once  nobody survives it, whatever the process still does: vLLM's API server lives on for seconds beside an
  ///            engine that is dead, and people's units restart themselves
  enum class Proof { ended, at_once };

  std::string_view pattern;
  FailureCause::Class kind;
  std::string_view cause;
  std::string_view remedy;
  Proof proof = Proof::ended;
  /// What the machine can tell more about, and the hole that names it; 0: the service's own.
  FailureCause::Subject subject = FailureCause::Subject::none;
  std::size_t subject_hole = 0;
};

/// Each table in the order in which it is tried: the special before the general.
std::span<const FailureSignature> vllm_failures();
std::span<const FailureSignature> llama_failures();
std::span<const FailureSignature> python_failures();   ///< everything that runs on Python, PyTorch and uvicorn
std::span<const FailureSignature> machine_failures();  ///< what the loader, systemd and the local supervisor say

}  // namespace gpumod
