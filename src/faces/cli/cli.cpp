#include "faces/cli/cli.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/help.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

bool is_option(std::string_view word) {
  return word.size() > 1 && word.front() == '-';
}

bool holds(const std::vector<std::string>& arguments, std::initializer_list<std::string_view> spellings) {
  for (const auto& word : arguments) {
    if (word == "--") return false;
    if (std::find(spellings.begin(), spellings.end(), word) != spellings.end()) return true;
  }
  return false;
}

/// Takes the next word that is no option out of `rest`; "" when there is none.
std::string take_word(std::vector<std::string>& rest) {
  const auto found = std::find_if(rest.begin(), rest.end(), [](const std::string& word) { return !is_option(word); });
  if (found == rest.end()) return {};
  std::string word = *found;
  rest.erase(found);
  return word;
}

Error unknown_command(const std::string& word, const std::vector<Verb>& verbs) {
  std::vector<std::string> known = groups(verbs);
  for (const auto& verb : verbs)
    known.push_back(verb.name);
  for (const auto& command : own_commands())
    known.emplace_back(command.name);
  const auto near = nearest_names(word, known);
  return Error{ErrorCode::usage,
               fmt::format("there is no command '{}'", printable(word)),
               near.empty() ? "gpumod help lists the commands." : did_you_mean(word, known),
               {}};
}

/// The verb that the first words name; they are taken out of `rest`.
Result<const Verb*> take_verb(std::vector<std::string>& rest, const std::vector<Verb>& verbs) {
  const auto first = take_word(rest);
  std::vector<std::string> seconds;
  const Verb* alone = nullptr;  // a verb may be called like the group of others: history, history show
  for (const auto& verb : verbs) {
    if (verb.name == first) alone = &verb;
    if (group_of(verb) == first) seconds.push_back(verb.name.substr(first.size() + 1));
  }
  const auto next = std::find_if(rest.begin(), rest.end(), [](const auto& word) { return !is_option(word); });
  if (alone && (next == rest.end() || std::find(seconds.begin(), seconds.end(), *next) == seconds.end())) return alone;
  if (first.empty() || seconds.empty()) return fail(unknown_command(first, verbs));
  const auto second = take_word(rest);
  for (const auto& verb : verbs)
    if (verb.name == first + " " + second) return &verb;
  if (second.empty())
    return fail(ErrorCode::usage, fmt::format("'gpumod {}' needs one more word", first),
                fmt::format("It is one of: {}. gpumod help {} explains them.", join(seconds, ", "), first));
  return fail(ErrorCode::usage, fmt::format("'gpumod {}' has no command '{}'", first, printable(second)),
              did_you_mean(second, seconds));
}

/// Where CLI11 puts what it finds.
struct Values {
  std::map<std::string, std::string> texts;
  std::map<std::string, std::vector<std::string>> lists;
  std::map<std::string, bool> flags;
};

std::string names_of(const Parameter& parameter) {
  if (parameter.positional) return parameter.name;
  return (parameter.letter ? fmt::format("-{},--", parameter.letter) : "--") + parameter.name;
}

void declare(CLI::App& app, const Parameter& parameter, Values& values) {
  switch (parameter.kind) {
    case Parameter::Kind::flag: app.add_flag(names_of(parameter), values.flags[parameter.name]); break;
    case Parameter::Kind::text:
    case Parameter::Kind::integer: app.add_option(names_of(parameter), values.texts[parameter.name]); break;
    case Parameter::Kind::list: {
      auto* option = app.add_option(names_of(parameter), values.lists[parameter.name])->delimiter(',');
      if (!parameter.positional) option->allow_extra_args(false);  // --services a b: b is not a service
      break;
    }
  }
}

Result<json::value> value_of(const Parameter& parameter, const Values& values) {
  if (parameter.kind == Parameter::Kind::flag) return json::value(values.flags.at(parameter.name));
  if (parameter.kind == Parameter::Kind::list) {
    json::array items;
    for (const auto& item : values.lists.at(parameter.name))
      if (const auto word = trim(item); !word.empty()) items.emplace_back(word);
    return json::value(std::move(items));
  }
  const auto& text = values.texts.at(parameter.name);
  if (!is_valid_utf8(text))
    return fail(ErrorCode::usage, fmt::format("the value of {} is not UTF-8", spelled(parameter)));
  if (parameter.kind == Parameter::Kind::text) return json::value(text);
  std::int64_t number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem == std::errc::result_out_of_range)
    return fail(ErrorCode::usage, fmt::format("{} cannot be as large as {}", spelled(parameter), printable(text)));
  if (problem != std::errc() || end != text.data() + text.size())
    return fail(ErrorCode::usage,
                fmt::format("{} needs a whole number, not '{}'", spelled(parameter), printable(text)));
  return json::value(number);
}

Error unknown_rest(const Verb& verb, const std::string& word) {
  if (!is_option(word))
    return Error{ErrorCode::usage,
                 fmt::format("'gpumod {}' has no use for '{}'", verb.name, printable(word)),
                 fmt::format("Usage: {}", usage_of(verb)),
                 {}};
  std::vector<std::string> known{"--json", "--no-color", "--help"};
  for (const auto& parameter : verb.parameters)
    if (!parameter.positional && !is_internal(parameter)) known.push_back("--" + parameter.name);
  return Error{ErrorCode::usage,
               fmt::format("'gpumod {}' has no option '{}'", verb.name, printable(word.substr(0, word.find('=')))),
               did_you_mean(word.substr(0, word.find('=')), known),
               {}};
}

Result<void> parse_verb(Invocation& invocation, std::vector<std::string> rest) {
  const Verb& verb = *invocation.verb;
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  app.add_flag("--json", invocation.json);
  app.add_flag("--no-color", invocation.no_colour);
  Values values;
  for (const auto& parameter : verb.parameters)
    if (!is_internal(parameter)) declare(app, parameter, values);
  std::reverse(rest.begin(), rest.end());  // CLI11 takes them from the back
  try {
    app.parse(std::move(rest));
  } catch (const CLI::ParseError& problem) {
    // "--lines: 1 required TEXT missing" is the parser's way to say it.
    std::string words = problem.what();
    if (const auto at = words.find(": 1 required "); at != std::string::npos)
      words.replace(at, words.npos, " needs a value");
    return fail(ErrorCode::usage, fmt::format("gpumod {}: {}", verb.name, printable(words)),
                fmt::format("Usage: {}", usage_of(verb)));
  }
  auto left = app.remaining();
  std::erase(left, "--");  // which only says that what follows is no option
  if (!left.empty()) return fail(unknown_rest(verb, left.front()));
  for (const auto& parameter : verb.parameters) {
    if (is_internal(parameter) || app.count(parameter.positional ? parameter.name : "--" + parameter.name) == 0)
      continue;
    invocation.request[parameter.name] = TRY(value_of(parameter, values));
  }
  auto checked = check_request(verb, invocation.request);
  if (!checked && checked.error().hint.empty()) checked.error().hint = fmt::format("Usage: {}", usage_of(verb));
  return checked;
}

/// The words of a command that is this face's own. Anything that looks like an option there is an error.
Result<std::vector<std::string>> words_only(const std::vector<std::string>& rest, std::string_view command) {
  std::vector<std::string> words;
  for (const auto& word : rest) {
    if (word == "--json" || word == "--no-color") continue;
    if (is_option(word))
      return fail(ErrorCode::usage, fmt::format("'gpumod {}' has no option '{}'", command, printable(word)));
    words.push_back(word);
  }
  return words;
}

Result<std::vector<std::string>> words_to_explain(std::vector<std::string> words, const std::vector<Verb>& verbs) {
  if (help_about(words, verbs)) return words;
  return fail(take_verb(words, verbs).error());  // nothing of that name, or it could be explained
}

}  // namespace

bool wants_json(const std::vector<std::string>& arguments) {
  return holds(arguments, {"--json"});
}

bool is_internal(const Parameter& parameter) {
  return parameter.name == "apply";
}

std::string group_of(const Verb& verb) {
  const auto space = verb.name.find(' ');
  return space == std::string::npos ? std::string() : verb.name.substr(0, space);
}

std::vector<std::string> groups(const std::vector<Verb>& verbs) {
  std::vector<std::string> names;
  for (const auto& verb : verbs)
    if (auto name = group_of(verb); !name.empty() && std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(std::move(name));
  return names;
}

std::string spelled(const Parameter& parameter) {
  std::string value = parameter.value_name;
  if (value.empty())
    std::transform(parameter.name.begin(), parameter.name.end(), std::back_inserter(value),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  if (parameter.positional) return value;
  if (parameter.kind == Parameter::Kind::flag) return "--" + parameter.name;
  return fmt::format("--{} {}{}", parameter.name, value, parameter.kind == Parameter::Kind::list ? ",…" : "");
}

std::string usage_of(const Verb& verb) {
  std::string line = "gpumod " + verb.name;
  for (const auto& parameter : verb.parameters)
    if (!is_internal(parameter))
      line += parameter.required ? " " + spelled(parameter) : " [" + spelled(parameter) + "]";
  return line;
}

Result<Invocation> parse(const std::vector<std::string>& arguments, const std::vector<Verb>& verbs) {
  Invocation invocation;
  if (!arguments.empty() && arguments.front() == "__complete") {
    invocation.kind = Invocation::Kind::complete;
    invocation.words.assign(arguments.begin() + 1, arguments.end());
    return invocation;
  }
  invocation.json = wants_json(arguments);
  invocation.no_colour = holds(arguments, {"--no-color"});
  auto rest = arguments;
  const bool help_wanted = holds(arguments, {"--help", "-h"});
  if (help_wanted) std::erase_if(rest, [](const std::string& word) { return is_option(word); });
  const auto first = std::find_if(rest.begin(), rest.end(), [](const std::string& word) { return !is_option(word); });

  if (first == rest.end()) {
    if (!help_wanted && holds(arguments, {"--version", "-V"})) {
      invocation.kind = Invocation::Kind::version;
      return invocation;
    }
    const auto words = words_only(rest, "");
    if (!words) {
      const std::vector<std::string> known{"--json", "--no-color", "--help", "--version"};
      const auto unknown = std::find_if(rest.begin(), rest.end(),
                                        [](const auto& word) { return word != "--json" && word != "--no-color"; });
      return fail(ErrorCode::usage, fmt::format("gpumod has no option '{}'", printable(*unknown)),
                  did_you_mean(*unknown, known));
    }
    if (help_wanted) invocation.words = {"--help"};
    return invocation;
  }
  if (help_wanted) {
    invocation.words = TRY(words_to_explain(std::move(rest), verbs));
    return invocation;
  }
  const std::string command = *first;
  // `mcp` alone is the server; with a word more it is one of the verbs of that group.
  if (command == "mcp" &&
      std::none_of(std::next(first), rest.end(), [](const auto& word) { return !is_option(word); })) {
    rest.erase(first);
    invocation.kind = Invocation::Kind::mcp;
    invocation.words = TRY(words_only(rest, "mcp"));
    return invocation;
  }
  const std::pair<std::string_view, Invocation::Kind> own[] = {{"help", Invocation::Kind::help},
                                                               {"completion", Invocation::Kind::completion},
                                                               {"__reference", Invocation::Kind::reference}};
  for (const auto& [name, kind] : own) {
    if (command != name) continue;
    rest.erase(first);
    invocation.kind = kind;
    invocation.words = TRY(words_only(rest, name));
    if (kind == Invocation::Kind::help)
      invocation.words = invocation.words.empty() ? std::vector<std::string>{"--help"}
                                                  : TRY(words_to_explain(invocation.words, verbs));
    return invocation;
  }
  invocation.kind = Invocation::Kind::verb;
  invocation.verb = TRY(take_verb(rest, verbs));
  TRY(parse_verb(invocation, std::move(rest)));
  return invocation;
}

}  // namespace gpumod::cli
