// The command line as data: what was asked for, before anything is done about it.
//
// Commands come from the verbs' declarations: their words are the command, their parameters its options. What is not a
// verb (help, completion, --version) belongs to this face alone.
#pragma once

#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "verbs/verb.h"

namespace gpumod::cli {

struct Invocation {
  enum class Kind { verb, help, version, completion, complete, reference, mcp };
  Kind kind = Kind::help;
  const Verb* verb = nullptr;   ///< verb
  boost::json::object request;  ///< verb: checked
  std::vector<std::string>
      words;  ///< help: about what; completion: the shell; complete: the line so far; reference: of what
  bool json = false;
  bool no_colour = false;
};

/// `arguments` without the program's name. Errors: usage, with the nearest names.
Result<Invocation> parse(const std::vector<std::string>& arguments, const std::vector<Verb>& verbs);

/// Whether --json was asked for, even if the rest makes no sense.
bool wants_json(const std::vector<std::string>& arguments);

/// Parameters that faces send by themselves, and people do not.
bool is_internal(const Parameter& parameter);

/// "mode" of "mode switch"; "" for a verb of one word.
std::string group_of(const Verb& verb);
/// The groups, in the order of the verbs.
std::vector<std::string> groups(const std::vector<Verb>& verbs);

/// "gpumod mode switch MODE [--dry-run]"
std::string usage_of(const Verb& verb);
/// "--lines N" or "MODE"
std::string spelled(const Parameter& parameter);

}  // namespace gpumod::cli

namespace gpumod {

/// The whole command line: returns the process's exit code.
int cli_main(int argc, char** argv);

}  // namespace gpumod
