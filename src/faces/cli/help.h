// What gpumod says about itself: help of every length, exit codes, the Markdown reference.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

/// docs/cli.md: every verb, from its declaration.
std::string reference_markdown(const std::vector<Verb>& verbs);

struct ExitCode {
  int number;
  std::string_view meaning;
};
const std::vector<ExitCode>& exit_codes();

}  // namespace gpumod::cli
