// The tools are the verbs. Each verb is one, under a name that assistants know, with schemas made of its declaration; a
// row in tools.cpp is needed only where the name, or what it does to the machine, does not follow from the verb.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "base/result.h"
#include "model/service.h"
#include "verbs/verb.h"

namespace gpumod::mcp {

struct Tool {
  std::string name;  ///< "switch_mode"
  const Verb* verb = nullptr;
  AssistantRights needs = AssistantRights::read;
  bool destructive = false;
  bool idempotent = true;
  bool open_world = false;  ///< it may ask others on the network
  bool only_plans = false;  ///< always a dry run
  bool quotes = false;      ///< its answer carries text of others: logs, model files, command lines
  bool can_dry_run() const;
};

/// For each verb that is one, in the order of the verbs.
std::vector<Tool> tools_of(const std::vector<Verb>& verbs);
/// Of gpumod's verbs.
const std::vector<Tool>& all_tools();
const Tool* find_tool(std::string_view name);
/// The tool of a verb, by the verb's name; "" when it is none.
std::string tool_of_verb(std::string_view verb);

/// "service list" is list_services, "service show" service_info, "mode switch" switch_mode.
std::string tool_name(std::string_view verb);

/// It may wait long: for the network, for files that lie on one, for a driver that hangs.
bool takes_its_time(const Verb& verb);

/// {"name","title","description","inputSchema","outputSchema","annotations"}. `rights`: with less than the tool needs
/// only its dry run is left.
boost::json::object declaration_of(const Tool& tool, AssistantRights rights);
/// Nothing may be done with it: it is not listed.
bool is_out_of_reach(const Tool& tool, AssistantRights rights);

/// The verb's request. Errors: usage, in the words of the tool.
Result<boost::json::object> request_of(const Tool& tool, const boost::json::object& arguments);

/// The same error without what only the command line understands: commands become tools, and options their arguments.
Error for_assistants(Error error);
/// What to try next after an error of this tool, in the names of tools.
std::vector<std::string> tools_after(const Error& error, const Tool& tool);

}  // namespace gpumod::mcp
