// verbs/ — each operation of gpumod once: what it is called, what it takes, what it answers, whether it changes the
// world, and the handler that does it. Every face (command line, HTTP, MCP, dashboards) renders verbs and decides
// nothing. It knows every room above it; it must never know how a request arrived or how its answer is shown.
//
// A request is a JSON object checked against the declared parameters; an answer is a JSON value whose shape is part of
// the interface: scripts rely on it. docs/cli.md, shell completion and tool schemas are generated from the
// declarations.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "base/async.h"
#include "base/paths.h"
#include "base/result.h"

namespace gpumod {

class Context;

struct Parameter {
  enum class Kind { text, integer, flag, list };
  /// What completes it in a shell: nothing, or the ids of the catalogue and of models.
  enum class Names { none, modes, services, models };
  std::string name;  ///< "dry-run": the option --dry-run, the key "dry-run"
  Kind kind = Kind::text;
  bool positional = false;
  bool required = false;
  std::string help = {};
  Names names = Names::none;
  std::string value_name = {};  ///< "ID", "N": for usage lines
  char letter = 0;              ///< a short option, or 0
};

struct Verb {
  std::string name;     ///< words of the command line: "mode switch"
  std::string summary;  ///< one line
  std::string details;  ///< what a person wants to know before using it; may be empty
  /// reads: runs at once, in any number. mutates: changes what runs; one at a time, in a worker that outlives its
  /// caller. edits: changes files of people's, or records; runs at once.
  enum class Effect { reads, mutates, edits } effect = Effect::reads;
  std::vector<Parameter> parameters;
  std::string answer;  ///< the shape of the answer, for the reference
  Task<Result<boost::json::value>> (*handler)(Context& context, boost::json::object request) = nullptr;
};

/// In the order in which they are listed.
const std::vector<Verb>& all_verbs();
/// Errors: usage, with the nearest names.
Result<const Verb*> find_verb(std::string_view name);
/// Required parameters are there, nothing unknown is, kinds are right. Errors: usage.
Result<void> check_request(const Verb& verb, const boost::json::object& request);

/// Typed access to a checked request.
std::string text_of(const boost::json::object& request, std::string_view name);
bool flag_of(const boost::json::object& request, std::string_view name);
std::optional<std::int64_t> integer_of(const boost::json::object& request, std::string_view name);
std::vector<std::string> list_of(const boost::json::object& request, std::string_view name);

}  // namespace gpumod
