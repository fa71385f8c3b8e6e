// What gpumod says about itself: help of every length, exit codes, the Markdown reference.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "faces/cli/style.h"
#include "verbs/verb.h"

namespace gpumod::cli {

/// A command that is no verb.
struct OwnCommand {
  std::string_view name;
  std::string_view usage;
  std::string_view summary;
};
const std::vector<OwnCommand>& own_commands();

/// `gpumod` alone: what to type next.
std::string short_help(const Screen& screen, bool configured, const std::vector<std::string>& modes);
/// `gpumod --help`
std::string full_help(const Screen& screen, const std::vector<Verb>& verbs);
/// Of a verb, a group or an own command, by its words. Nothing when there is no such thing.
std::optional<std::string> help_about(const std::vector<std::string>& words, const std::vector<Verb>& verbs,
                                      const Screen& screen = Screen{});

/// The same for programs: {"commands":[{"name","usage","summary","details","effect","parameters":[{"name","kind",
/// "positional","required","letter","help"}],"answer"}],"exit_codes":[{"code","meaning"}]}. `words`: as for help_about;
/// none, or what nothing is called, stands for every command.
boost::json::object help_document(const std::vector<std::string>& words, const std::vector<Verb>& verbs);

/// docs/cli.md: every verb, from its declaration.
std::string reference_markdown(const std::vector<Verb>& verbs);

struct ExitCode {
  int number;
  std::string_view meaning;
};
const std::vector<ExitCode>& exit_codes();

}  // namespace gpumod::cli
