#include "faces/cli/help.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/cli.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

struct Example {
  std::string_view verb;
  std::string_view command;
  std::string_view what;
};

constexpr Example examples[] = {
    {"init", "gpumod init", "find engines and models, and write a first configuration"},
    {"init", "gpumod init --models /data/gguf --yes", "without questions"},
    {"demo", "gpumod demo", "the product at work, on a simulated GPU"},
    {"demo", "gpumod demo --fault profile-abort", "and what it does when something goes wrong"},
    {"status", "gpumod status", "what runs, and whether it is what should run"},
    {"status", "gpumod status --visual", "and who holds each GPU's memory, as a picture"},
    {"gpu processes", "gpumod gpu processes", "whose the processes on the GPUs are"},
    {"gpu watch", "gpumod gpu watch", "the memory of the GPUs while it changes"},
    {"gpu watch", "gpumod gpu watch --json --interval 0.5 | jq -c .gpus[].ledger.free", "for scripts"},
    {"doctor", "gpumod doctor", "what is wrong with this machine, and how to mend it"},
    {"doctor", "gpumod doctor --json | jq -r '.checks[] | select(.state == \"failure\") | .id'", "for scripts"},
    {"mode switch", "gpumod mode switch code", "switch, and wait until every service has answered"},
    {"mode switch", "gpumod mode switch rag --dry-run", "what would be stopped and started"},
    {"mode switch", "gpumod mode switch rag --json | jq -r '.switch.result // .error.code'", "for scripts"},
    {"history", "gpumod history", "which switches there were, and how long they took"},
    {"history show", "gpumod history show last", "why the last one took so long, or failed"},
    {"history show", "gpumod history show 42 --trace switch.json", "for ui.perfetto.dev"},
    {"bench switch", "gpumod bench switch --modes code,rag --json > today.json", "how long switches take"},
    {"bench switch", "gpumod bench switch --modes code,rag --compare today.json", "and whether they are slower now"},
    {"mode create", "gpumod mode create rag --services chat,embedding", "a mode of two services"},
    {"mode edit", "gpumod mode edit rag", "in your editor"},
    {"mode edit", "gpumod mode edit rag --text \"$(cat rag.yaml)\"", "without one"},
    {"service start", "gpumod service start embedding", "beside what runs"},
    {"service logs", "gpumod service logs embedding -f", "follow what it writes"},
    {"repair", "gpumod repair", "bring what runs to what should run"},
    {"unit install", "gpumod unit install embedding", "to start it with systemctl --user"},
    {"qa run", "gpumod qa run --report qa/", "every transition between all modes"},
    {"qa run", "gpumod qa run --modes blank,code,rag,blank --rounds 3", "a sequence of your own, three times"},
};

std::string heading(const Screen& screen, std::string_view words) {
  return paint(screen, Ink::bold, words) + "\n";
}

Table two_columns() {
  return Table({{""}, {"", false, true, true}});
}

std::string list_verbs(const Screen& screen, const std::vector<Verb>& verbs, std::string_view group) {
  auto table = two_columns();
  for (const auto& verb : verbs)
    if (group_of(verb) == group) table.add({{verb.name, Ink::cyan}, {verb.summary}});
  return table.render(screen, 2, false);
}

std::string list_examples(const Screen& screen, std::string_view verb) {
  auto table = two_columns();
  for (const auto& example : examples)
    if (verb.empty() || example.verb == verb)
      table.add({{std::string(example.command)}, {std::string(example.what), Ink::dim}});
  return table.render(screen, 2, false);
}

std::string list_exit_codes(const Screen& screen) {
  auto table = Table({{"", true}, {"", false, true, true}});
  for (const auto& code : exit_codes())
    table.add({{std::to_string(code.number)}, {std::string(code.meaning)}});
  return table.render(screen, 2, false);
}

struct Variable {
  std::string_view name, meaning;
};
constexpr Variable variables[] = {
    {"GPUMOD_CONFIG_DIR", "your files (~/.config/gpumod)"},
    {"GPUMOD_STATE_DIR", "goal, history, measurements, logs (~/.local/state/gpumod)"},
    {"GPUMOD_CACHE_DIR", "what can be asked for again (~/.cache/gpumod)"},
    {"GPUMOD_RUNTIME_DIR", "lock and private files of what runs ($XDG_RUNTIME_DIR/gpumod)"},
    {"GPUMOD_UNIT_MANAGER", "systemd or local, whatever gpumod.yaml says"},
    {"NO_COLOR", "any value: no colours"},
};

std::string list_variables(const Screen& screen) {
  auto table = two_columns();
  for (const auto& variable : variables)
    table.add({{std::string(variable.name), Ink::cyan}, {std::string(variable.meaning)}});
  return table.render(screen, 2, false);
}

std::string list_options(const Screen& screen, const Verb* verb) {
  auto table = two_columns();
  if (verb)
    for (const auto& parameter : verb->parameters) {
      if (parameter.positional || is_internal(parameter)) continue;
      const auto letter = parameter.letter ? fmt::format("-{}, ", parameter.letter) : std::string();
      table.add({{letter + spelled(parameter), Ink::cyan}, {parameter.help}});
    }
  table.add({{"--json", Ink::cyan}, {"print one JSON value on standard output, also for errors"}});
  table.add({{"--no-color", Ink::cyan}, {"no colours; NO_COLOR=1 does the same"}});
  if (!verb) table.add({{"--version", Ink::cyan}, {"print the version"}});
  table.add({{"-h, --help", Ink::cyan}, {"print this"}});
  return table.render(screen, 2, false);
}

std::string help_of_verb(const Screen& screen, const Verb& verb) {
  std::string out = fmt::format("{}\n\nUsage: {}\n", verb.summary, usage_of(verb));
  auto details = verb.details;
  std::replace(details.begin(), details.end(), '\n', ' ');
  if (!details.empty())
    out += "\n" + join(wrapped(details, screen.width ? std::min(screen.width, 100) : 100), "\n") + "\n";
  auto arguments = two_columns();
  for (const auto& parameter : verb.parameters)
    if (parameter.positional) arguments.add({{spelled(parameter), Ink::cyan}, {parameter.help}});
  if (!arguments.empty()) out += "\n" + heading(screen, "Arguments") + arguments.render(screen, 2, false);
  out += "\n" + heading(screen, "Options") + list_options(screen, &verb);
  if (const auto shown = list_examples(screen, verb.name); !shown.empty())
    out += "\n" + heading(screen, "Examples") + shown;
  if (!verb.answer.empty()) out += "\n" + heading(screen, "Answer with --json") + "  " + verb.answer + "\n";
  return out + "\n" + heading(screen, "Exit codes") + list_exit_codes(screen);
}

std::string_view effect_of(const Verb& verb) {
  switch (verb.effect) {
    case Verb::Effect::reads: return "Only reads; any number may run at once.";
    case Verb::Effect::edits: return "Writes what it is asked to, at once; nothing is started or stopped.";
    case Verb::Effect::mutates: return "Changes what runs: one at a time, in a process that outlives the terminal.";
  }
  return "";
}

std::string_view name_of(Verb::Effect effect) {
  switch (effect) {
    case Verb::Effect::reads: return "reads";
    case Verb::Effect::edits: return "edits";
    case Verb::Effect::mutates: return "mutates";
  }
  return "";
}

std::string_view name_of(Parameter::Kind kind) {
  switch (kind) {
    case Parameter::Kind::text: return "text";
    case Parameter::Kind::integer: return "integer";
    case Parameter::Kind::flag: return "flag";
    case Parameter::Kind::list: return "list";
  }
  return "";
}

json::object document_of(const Verb& verb) {
  json::array parameters;
  for (const auto& parameter : verb.parameters) {
    if (is_internal(parameter)) continue;
    const auto letter = parameter.letter ? json::value(std::string(1, parameter.letter)) : json::value(nullptr);
    parameters.push_back(json::object{{"name", parameter.name},
                                      {"kind", name_of(parameter.kind)},
                                      {"positional", parameter.positional},
                                      {"required", parameter.required},
                                      {"letter", letter},
                                      {"help", parameter.help}});
  }
  auto details = verb.details;
  std::replace(details.begin(), details.end(), '\n', ' ');
  return {{"name", verb.name},    {"usage", usage_of(verb)},        {"summary", verb.summary},
          {"details", details},   {"effect", name_of(verb.effect)}, {"parameters", std::move(parameters)},
          {"answer", verb.answer}};
}

std::string escaped(std::string_view words) {
  std::string out;
  for (const char c : words) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

}  // namespace

const std::vector<OwnCommand>& own_commands() {
  static const std::vector<OwnCommand> commands{
      {"help", "gpumod help [COMMAND…|exit-codes]", "Explain a command, or the exit codes"},
      {"completion", "gpumod completion bash|zsh|fish", "Print a script that completes commands and ids in your shell"},
      {"mcp", "gpumod mcp", "Serve assistants over the Model Context Protocol, on standard input and output"},
  };
  return commands;
}

const std::vector<ExitCode>& exit_codes() {
  static const std::vector<ExitCode> codes{
      {0, "done; or left running by a second Ctrl-C, with result \"running\""},
      {1, "it failed, or was rolled back: the message says which and why"},
      {2, "the command line is wrong"},
      {3, "refused: nothing was touched"},
      {4, "no such mode, service, unit or model"},
      {5, "busy: another change is under way"},
      {6, "a file is invalid: of the configuration, or a model's"},
      {7, "the machine lacks something: no systemd, no NVML, no room on a disk, …"},
      {8, "doctor found warnings, and nothing worse"},
      {130, "cancelled by Ctrl-C: what ran before runs again"},
  };
  return codes;
}

std::string short_help(const Screen& screen, bool configured, const std::vector<std::string>& modes) {
  std::string out = "gpumod switches this machine's GPUs between sets of inference services.\n\n";
  auto table = two_columns();
  if (!configured) {
    out += "There is no configuration yet. Begin with:\n";
    table.add({{"gpumod init", Ink::cyan}, {"find engines and models, and write one"}});
    table.add({{"gpumod help", Ink::cyan}, {"everything else"}});
    return out + table.render(screen, 2, false);
  }
  table.add({{"gpumod status", Ink::cyan}, {"what runs, and whether it is what should run"}});
  if (modes.empty()) {
    table.add({{"gpumod service list", Ink::cyan}, {"the services"}});
    table.add({{"gpumod mode create MODE --services A,B", Ink::cyan}, {"name services that belong together"}});
  } else {
    const std::vector<std::string> few(modes.begin(),
                                       modes.begin() + static_cast<long>(std::min<std::size_t>(modes.size(), 8)));
    table.add({{"gpumod mode switch MODE", Ink::cyan},
               {"switch to: " + join(few, ", ") + (modes.size() > few.size() ? ", …" : "")}});
  }
  table.add({{"gpumod help", Ink::cyan}, {"everything else"}});
  return out + table.render(screen, 2, false);
}

std::string full_help(const Screen& screen, const std::vector<Verb>& verbs) {
  std::string out =
      "gpumod switches this machine's GPUs between sets of inference services.\n\nUsage: gpumod COMMAND [OPTIONS]\n\n";
  out += heading(screen, "Commands") + list_verbs(screen, verbs, "");
  auto own = two_columns();
  for (const auto& command : own_commands())
    own.add({{std::string(command.name), Ink::cyan}, {std::string(command.summary)}});
  out += own.render(screen, 2, false);
  for (const auto& group : groups(verbs))
    out += "\n" + list_verbs(screen, verbs, group);
  out += "\n" + heading(screen, "Options") + list_options(screen, nullptr);
  out += "\n" + heading(screen, "Environment") + list_variables(screen);
  out += "\n" + heading(screen, "Examples") + list_examples(screen, "");
  out += "\n" + heading(screen, "Exit codes") + list_exit_codes(screen);
  return out + "\ngpumod help COMMAND explains one command.\n";
}

std::optional<std::string> help_about(const std::vector<std::string>& words, const std::vector<Verb>& verbs,
                                      const Screen& screen) {
  if (words.empty()) return std::nullopt;
  if (words == std::vector<std::string>{"exit-codes"}) return list_exit_codes(screen);
  for (std::size_t taken = std::min<std::size_t>(words.size(), 2); taken > 0; --taken) {
    const auto name = taken == 2 ? words[0] + " " + words[1] : words[0];
    for (const auto& verb : verbs)
      if (verb.name == name) {
        const auto members = taken == 1 ? list_verbs(screen, verbs, name) : std::string();
        return help_of_verb(screen, verb) + (members.empty() ? "" : "\n" + heading(screen, "Commands") + members);
      }
  }
  for (const auto& command : own_commands())
    if (command.name == words[0] && words.size() == 1) {
      const auto listed = list_verbs(screen, verbs, words[0]);
      return fmt::format("{}\n\nUsage: {}\n{}{}", command.summary, command.usage, listed.empty() ? "" : "\n", listed);
    }
  if (words.size() > 1) return std::nullopt;
  const auto listed = list_verbs(screen, verbs, words[0]);
  if (listed.empty() || words[0].empty()) return std::nullopt;
  return fmt::format("Usage: gpumod {} COMMAND [OPTIONS]\n\n{}\ngpumod help {} COMMAND explains one of them.\n",
                     words[0], listed, words[0]);
}

json::object help_document(const std::vector<std::string>& words, const std::vector<Verb>& verbs) {
  const auto collect = [&](const auto& is_meant) {
    json::array commands;
    for (const auto& verb : verbs)
      if (is_meant(verb.name, group_of(verb))) commands.push_back(document_of(verb));
    for (const auto& command : own_commands())
      if (is_meant(std::string(command.name), std::string()))
        commands.push_back(json::object{{"name", command.name},
                                        {"usage", command.usage},
                                        {"summary", command.summary},
                                        {"details", ""},
                                        {"effect", "reads"},
                                        {"parameters", json::array()},
                                        {"answer", ""}});
    return commands;
  };
  json::array commands;
  if (words.size() > 1)
    commands = collect([&](const std::string& name, const std::string&) { return name == words[0] + " " + words[1]; });
  if (commands.empty() && !words.empty())
    commands = collect([&](const std::string& name, const std::string& group) {
      return name == words[0] || (!group.empty() && group == words[0]);
    });
  if (commands.empty()) commands = collect([](const std::string&, const std::string&) { return true; });
  json::array codes;
  for (const auto& code : exit_codes())
    codes.push_back(json::object{{"code", code.number}, {"meaning", code.meaning}});
  return {{"commands", std::move(commands)}, {"exit_codes", std::move(codes)}};
}

std::string reference_markdown(const std::vector<Verb>& verbs) {
  std::string out =
      "# Command line\n\n"
      "Made from the declarations in the program by `gpumod __reference cli`; do not edit it by hand.\n\n"
      "Every command takes `--json` (one JSON value on standard output), `--no-color` and `--help`. Warnings and "
      "errors for\n"
      "people go to standard error. With `--json` an error is\n"
      "`{\"error\":{\"code\",\"message\",\"hint\",\"details\"}}` on standard output; when a switch did not reach its "
      "goal, its\n"
      "report stands beside it as `switch`, and so do `qa`, `bench`, `simulation` and `diff`. Without `--json` such an "
      "answer\n"
      "goes to standard output all the same. Help is JSON then as well: `{\"commands\":[…],\"exit_codes\":[…]}`, and "
      "`gpumod\ncompletion` answers `{\"shell\",\"script\"}`.\n\n"
      "## Exit codes\n\n| code | meaning |\n|---|---|\n";
  for (const auto& code : exit_codes())
    out += fmt::format("| {} | {} |\n", code.number, escaped(code.meaning));
  out += "\n## Environment\n\n| variable | meaning |\n|---|---|\n";
  for (const auto& variable : variables)
    out += fmt::format("| `{}` | {} |\n", variable.name, escaped(variable.meaning));
  out += "\n";
  for (const auto& verb : verbs) {
    out += fmt::format("## gpumod {}\n\n{}.\n\n```\n{}\n```\n\n", verb.name, verb.summary, usage_of(verb));
    if (!verb.details.empty()) out += verb.details + "\n\n";
    std::string rows;
    for (const auto& parameter : verb.parameters) {
      if (is_internal(parameter)) continue;
      const auto letter = parameter.letter ? fmt::format("`-{}`, ", parameter.letter) : std::string();
      rows += fmt::format("| {}`{}` | {}{} |\n", letter, escaped(spelled(parameter)), escaped(parameter.help),
                          parameter.required ? " (required)" : "");
    }
    if (!rows.empty()) out += "| argument | meaning |\n|---|---|\n" + rows + "\n";
    out += fmt::format("{}\n\n", effect_of(verb));
    for (const auto& example : examples)
      if (example.verb == verb.name) out += fmt::format("- `{}`: {}\n", example.command, example.what);
    if (out.ends_with("\n\n") == false) out += "\n";
    if (!verb.answer.empty()) out += fmt::format("Answer with `--json`:\n\n```\n{}\n```\n\n", verb.answer);
  }
  for (const auto& command : own_commands())
    out += fmt::format("## gpumod {}\n\n{}.\n\n```\n{}\n```\n\n", command.name, command.summary, command.usage);
  out.pop_back();
  return out;
}

}  // namespace gpumod::cli
