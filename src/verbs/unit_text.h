// Unit files as text: ours written, people's read. The rules are those of systemd.syntax(7), systemd.service(5)
// "COMMAND LINES" and systemd.unit(5) "SPECIFIERS":
//   * in a command line words are quoted, and inside "…" a backslash escapes; % begins a specifier and is doubled;
//   * $ begins a variable unless the command begins with ':', as ours do: then arguments arrive byte for byte;
//   * paths (EnvironmentFile=, WorkingDirectory=) and Description= are never quoted, only % is doubled.
//
// What we write carries a mark and a checksum over everything after it, so that a file that somebody edited is told
// from one that is still as we wrote it. The checksum guards against accidents, not against forgery.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/unit.h"

namespace gpumod {

/// The unit that starting `spec` would make, as a file. `environment_file` empty: it gets none. `remarks`: lines of
/// comment for people. The values of the environment are never in it.
/// Errors: configuration, for what no unit file can carry (a program whose path holds quotes or backslashes; text that
/// is not UTF-8; a line break in a path).
Result<std::string> unit_file_text(const UnitSpec& spec, const std::filesystem::path& environment_file,
                                   const std::vector<std::string>& remarks);

enum class Authorship {
  ours,     ///< as we wrote it
  edited,   ///< we wrote it, somebody changed it since
  foreign,  ///< somebody else's
};
Authorship authorship_of(std::string_view text);

/// The words of an ExecStart= value as systemd would pass them on, prefixes of the program (@ - : + !) taken off. %%
/// and %h are filled in, other specifiers and variables stand as they are. What cannot be parsed ends the list.
std::vector<std::string> command_words(std::string_view value, const std::filesystem::path& home);

/// Every value of a key in a section, in order; an empty assignment clears those before it. Lines that end in a
/// backslash go on in the next.
std::vector<std::string> unit_file_values(std::string_view text, std::string_view section, std::string_view key);

}  // namespace gpumod
