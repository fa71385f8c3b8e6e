#include "faces/mcp/tools.h"

#include <algorithm>
#include <cctype>
#include <set>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "faces/mcp/shape.h"

namespace gpumod::mcp {

namespace json = boost::json;

namespace {

using Kind = Parameter::Kind;
using Effect = Verb::Effect;

enum class Trait {
  hidden,      ///< no tool: it is for a person at a terminal, or for ever
  changes,     ///< it counts as a read among verbs, and changes what runs all the same
  looks,       ///< it counts as an edit, and only looks without the options that are for people
  records,     ///< it counts as a change of what runs, and changes records alone
  harmless,    ///< it adds, or takes nothing that runs away
  repeatable,  ///< twice is as good as once
  quotes,      ///< its answer carries text of others
  slow,        ///< it reads models, which may lie on a network, or tries programs that may hang
};

struct Row {
  std::string_view verb;
  std::string_view tool;  ///< "": by the rule
  std::vector<Trait> traits;
};

const std::vector<Row>& rows() {
  using enum Trait;
  static const std::vector<Row> all{
      {"init", "", {hidden}},
      {"demo", "", {hidden}},
      {"gpu watch", "", {hidden}},
      {"mcp install", "", {hidden}},
      {"status", "gpu_status", {}},
      {"gpu list", "", {}},
      {"gpu processes", "gpu_processes", {quotes}},
      {"mode switch", "", {repeatable}},
      {"mode list", "", {}},
      {"mode show", "", {}},
      {"mode status", "", {}},
      {"mode cancel", "cancel_switch", {changes, repeatable, slow}},
      {"mode create", "", {harmless}},
      {"mode edit", "", {}},
      {"mode remove", "", {}},
      {"simulate mode", "", {}},
      {"simulate services", "", {}},
      {"service list", "", {}},
      {"service show", "", {}},
      {"service start", "", {harmless, repeatable}},
      {"service stop", "", {repeatable}},
      {"service restart", "", {}},
      {"service sleep", "", {repeatable}},
      {"service wake", "", {harmless, repeatable}},
      {"service forget", "", {records, repeatable}},
      {"service logs", "service_logs", {quotes}},
      {"repair", "", {repeatable}},
      {"history", "", {quotes}},
      {"history show", "", {quotes}},
      {"bench switch", "bench_switch", {}},
      {"qa list", "list_qa_runs", {}},
      {"doctor", "", {looks, quotes, slow}},
      {"unit show", "", {}},
      {"unit install", "", {harmless, repeatable}},
      {"model list", "", {quotes, slow}},
      {"model info", "", {quotes}},
      {"model inspect", "", {quotes, slow}},
      {"unit remove", "", {}},
      {"config check", "", {}},
      {"model register", "", {harmless}},
      {"model scan", "", {harmless, repeatable, quotes, slow}},
  };
  return all;
}

const Row* row_of(std::string_view verb) {
  for (const auto& row : rows())
    if (row.verb == verb) return &row;
  return nullptr;
}

bool has(const Row* row, Trait trait) {
  return row && std::find(row->traits.begin(), row->traits.end(), trait) != row->traits.end();
}

/// Parameters that make no sense where nobody looks at a terminal, and those that name a file to be written: that would be
/// a right that no setting grants.
bool is_for_people(const Parameter& parameter) {
  for (const char* name : {"apply", "yes", "fix", "visual", "follow", "trace", "report"})
    if (parameter.name == name) return true;
  return false;
}

bool has_parameter(const Verb& verb, std::string_view name) {
  return std::any_of(verb.parameters.begin(), verb.parameters.end(),
                     [&](const Parameter& parameter) { return parameter.name == name; });
}

bool asks_the_network(const Verb& verb) {
  return has_parameter(verb, "offline") || has_parameter(verb, "hf");
}

std::string key_of(const Parameter& parameter) {
  auto key = parameter.name;
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

Tool tool_of(const Verb& verb) {
  const auto* row = row_of(verb.name);
  Tool tool;
  tool.verb = &verb;
  tool.name = row && !row->tool.empty() ? std::string(row->tool) : tool_name(verb.name);
  if ((verb.effect == Effect::edits && !has(row, Trait::looks)) || has(row, Trait::records))
    tool.needs = AssistantRights::admin;
  else if (verb.effect == Effect::mutates || has(row, Trait::changes))
    tool.needs = AssistantRights::switch_;
  const bool reads = tool.needs == AssistantRights::read;
  tool.destructive = !reads && !has(row, Trait::harmless);
  tool.idempotent = reads || has(row, Trait::repeatable);
  tool.open_world = asks_the_network(verb);
  tool.quotes = has(row, Trait::quotes) || !row;  // of a new verb nobody has said that it quotes nobody
  return tool;
}

/// The plan of a switch by a name of its own: so that it can be granted where switching is asked about.
Tool plan_of(Tool tool) {
  tool.name = "plan_switch";
  tool.needs = AssistantRights::read;
  tool.destructive = false;
  tool.only_plans = true;
  return tool;
}

json::object schema_of(const Parameter& parameter) {
  json::object schema;
  switch (parameter.kind) {
    case Kind::text: schema["type"] = "string"; break;
    case Kind::integer: schema["type"] = "integer"; break;
    case Kind::flag: schema["type"] = "boolean"; break;
    case Kind::list:
      schema["type"] = "array";
      schema["items"] = json::object{{"type", "string"}};
      break;
  }
  auto words = parameter.help;
  if (parameter.names == Parameter::Names::modes) words += "; list_modes names them";
  if (parameter.names == Parameter::Names::services) words += "; list_services names them";
  if (parameter.kind == Kind::list && !parameter.value_name.empty())
    words += fmt::format(" (each {})", parameter.value_name);
  schema["description"] = words;
  return schema;
}

json::object input_schema(const Tool& tool, AssistantRights rights) {
  json::object properties;
  json::array required;
  for (const auto& parameter : tool.verb->parameters) {
    if (is_for_people(parameter) || (tool.only_plans && parameter.name == "dry-run")) continue;
    auto schema = schema_of(parameter);
    if (parameter.name == "dry-run" && rights < tool.needs) schema["const"] = true;
    properties[key_of(parameter)] = std::move(schema);
    if (parameter.required || (parameter.name == "dry-run" && rights < tool.needs))
      required.emplace_back(key_of(parameter));
  }
  json::object schema{{"type", "object"}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = std::move(required);
  schema["additionalProperties"] = false;
  return schema;
}

json::object output_schema(const Tool& tool) {
  auto schema = schema_of_shape(tool.verb->answer);
  if (auto* properties = schema.if_contains("properties"); tool.can_dry_run() && properties)
    properties->get_object()["plan"] = json::object{{"description", "what a dry run would do"}};
  return schema;
}

std::string description_of(const Tool& tool, AssistantRights rights) {
  std::string words =
      tool.only_plans ? "Show what a switch to a mode would do, and change nothing" : tool.verb->summary;
  words += ".";
  if (!tool.verb->details.empty() && !tool.only_plans) words += fmt::format(" {}", tool.verb->details);
  std::replace(words.begin(), words.end(), '\n', ' ');
  if (rights < tool.needs) words += " Only dry runs are allowed here: the setting mcp.allow says so.";
  return words;
}

}  // namespace

bool Tool::can_dry_run() const {
  return has_parameter(*verb, "dry-run");
}

std::string tool_name(std::string_view verb) {
  const auto space = verb.find(' ');
  if (space == std::string_view::npos) return std::string(verb);
  const auto subject = verb.substr(0, space), deed = verb.substr(space + 1);
  std::string name;
  if (deed == "list")
    name = fmt::format("list_{}s", subject);
  else if (deed == "show" || deed == "info")
    name = fmt::format("{}_info", subject);
  else if (deed == "status" || subject == "simulate")
    name = fmt::format("{}_{}", subject, deed);
  else
    name = fmt::format("{}_{}", deed, subject);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == ' ' || c == '-'; }, '_');
  return name;
}

std::vector<Tool> tools_of(const std::vector<Verb>& verbs) {
  std::vector<Tool> tools;
  for (const auto& verb : verbs) {
    if (has(row_of(verb.name), Trait::hidden)) continue;
    auto tool = tool_of(verb);
    if (verb.name == "mode switch") tools.push_back(plan_of(tool));
    tools.push_back(std::move(tool));
  }
  return tools;
}

const std::vector<Tool>& all_tools() {
  static const auto tools = tools_of(all_verbs());
  return tools;
}

const Tool* find_tool(std::string_view name) {
  for (const auto& tool : all_tools())
    if (tool.name == name) return &tool;
  return nullptr;
}

std::string tool_of_verb(std::string_view verb) {
  for (const auto& tool : all_tools())
    if (tool.verb->name == verb && !tool.only_plans) return tool.name;
  return {};
}

bool takes_its_time(const Verb& verb) {
  return has(row_of(verb.name), Trait::slow) || asks_the_network(verb);
}

bool is_out_of_reach(const Tool& tool, AssistantRights rights) {
  return rights < tool.needs && !tool.can_dry_run();
}

json::object declaration_of(const Tool& tool, AssistantRights rights) {
  const bool reads = tool.needs == AssistantRights::read || rights < tool.needs;
  json::object annotations{{"title", tool.name},
                           {"readOnlyHint", reads},
                           {"destructiveHint", !reads && tool.destructive},
                           {"idempotentHint", reads || tool.idempotent},
                           {"openWorldHint", tool.open_world}};
  auto title = tool.name;
  std::replace(title.begin(), title.end(), '_', ' ');
  title.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(title.front())));
  annotations["title"] = title;
  return {{"name", tool.name},
          {"title", title},
          {"description", description_of(tool, rights)},
          {"inputSchema", input_schema(tool, rights)},
          {"outputSchema", output_schema(tool)},
          {"annotations", std::move(annotations)}};
}

Result<json::object> request_of(const Tool& tool, const json::object& arguments) {
  json::object request;
  std::vector<std::string> known;
  for (const auto& parameter : tool.verb->parameters) {
    if (is_for_people(parameter) || (tool.only_plans && parameter.name == "dry-run")) continue;
    known.push_back(key_of(parameter));
    if (const auto* value = arguments.if_contains(known.back()); value && !value->is_null())
      request[parameter.name] = *value;
  }
  for (const auto& [key, value] : arguments)
    if (std::find(known.begin(), known.end(), std::string_view(key)) == known.end())
      return fail(ErrorCode::usage, fmt::format("{} has no argument '{}'", tool.name, printable(key)),
                  known.empty() ? "It takes none." : did_you_mean(std::string_view(key), known));
  if (tool.only_plans) request["dry-run"] = true;
  if (auto checked = check_request(*tool.verb, request); !checked) {
    if (checked.error().hint.empty()) checked.error().hint = "Its inputSchema says what it takes.";
    return fail(checked.error());
  }
  return request;
}

namespace {

bool is_of_a_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
}

void replace_words(std::string& text, const std::string& from, const std::string& to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    if (at + from.size() == text.size() || !is_of_a_word(text[at + from.size()])) text.replace(at, from.size(), to);
}

}  // namespace

Error for_assistants(Error error) {
  std::vector<std::pair<std::string, std::string>> commands;
  std::set<std::string> options;
  for (const auto& tool : all_tools()) {
    if (!tool.only_plans) commands.emplace_back("gpumod " + tool.verb->name, tool.name);
    for (const auto& parameter : tool.verb->parameters)
      if (!parameter.positional && !is_for_people(parameter)) options.insert(parameter.name);
  }
  // "history show" before "history".
  std::sort(commands.begin(), commands.end(),
            [](const auto& one, const auto& other) { return one.first.size() > other.first.size(); });
  for (const auto& [command, tool] : commands)
    replace_words(error.hint, command, tool);
  // Elsewhere "--parallel" may be a flag of a server's.
  const bool speaks_of_options = error.code == ErrorCode::usage || error.code == ErrorCode::environment;
  if (!speaks_of_options) return error;
  for (const auto& option : options) {
    auto key = option;
    std::replace(key.begin(), key.end(), '-', '_');
    for (auto* text : {&error.message, &error.hint})
      replace_words(*text, "--" + option, key);
  }
  return error;
}

std::vector<std::string> tools_after(const Error& error, const Tool& tool) {
  // What is wrong with a file that the call named is not seen by looking at the configuration.
  if (error.code == ErrorCode::configuration && tool.verb->name.starts_with("model ")) return {"list_models"};
  switch (error.code) {
    case ErrorCode::not_found: return {"list_modes", "list_services", "list_models"};
    case ErrorCode::busy: return {"gpu_status", "cancel_switch"};
    case ErrorCode::refused: return {"simulate_mode", "plan_switch", "gpu_status"};
    case ErrorCode::configuration: return {"check_config"};
    case ErrorCode::failed: return {"gpu_status", "service_logs", "repair"};
    case ErrorCode::cancelled: return {"gpu_status"};
    case ErrorCode::usage:
    case ErrorCode::environment: break;
  }
  return {};
}

}  // namespace gpumod::mcp
