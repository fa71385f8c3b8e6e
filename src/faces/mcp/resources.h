// What can be read without calling a tool: gpumod://services and its like. Each is a verb's answer as JSON.
#pragma once

#include <optional>
#include <string>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "verbs/verb.h"

namespace gpumod::mcp {

boost::json::array resource_list();
boost::json::array resource_template_list();

struct ResourceQuestion {
  const Verb* verb = nullptr;  ///< null: the help, which needs no verb
  boost::json::object request;
};
/// Nothing: there is no such resource.
std::optional<ResourceQuestion> resource_question(std::string_view uri);

/// gpumod://help, for an assistant that wants to know what there is.
std::string help_text();
/// What an assistant should know before it begins.
std::string instructions_text();

}  // namespace gpumod::mcp
