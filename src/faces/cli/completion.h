// Completion in shells. The scripts only hand over the words typed so far; what could follow is decided here, from the
// verbs' declarations and the ids in the catalogue's files.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/paths.h"
#include "verbs/reference.h"
#include "verbs/verb.h"

namespace gpumod::cli {

/// "" for a shell we do not know.
std::string_view completion_script(std::string_view shell);

struct Candidate {
  std::string word;
  std::string help;
};
/// What the last of `words` (the one being typed, perhaps empty) could become. A candidate ":files" or ":folders"
/// leaves it to the shell.
using NameLookup = std::function<std::vector<KnownName>(Parameter::Names)>;
std::vector<Candidate> candidates_for(const std::vector<std::string>& words, const std::vector<Verb>& verbs,
                                      const NameLookup& names);

/// `gpumod __complete WORD…`: one "word<TAB>help" a line.
std::string completions(const Paths& paths, const std::vector<std::string>& words, const std::vector<Verb>& verbs);

}  // namespace gpumod::cli
