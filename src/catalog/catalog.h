// catalog/ — people's YAML becomes model values. Files are read, never written: what people wrote stays as they wrote
// it. It knows base/ and model/; it must never know what runs, what was running, or whether a file it names exists.
//
// Every problem of every file is found in one pass and carries file, line, column and what was expected. A broken file
// takes nothing else down: what other files define is there unchanged, and the ids of the broken ones are remembered so
// that "no such mode" and "that mode's file is broken" are different answers.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/paths.h"
#include "base/result.h"
#include "model/service.h"

namespace gpumod {

enum class Severity { error, warning };

struct Problem {
  Severity severity = Severity::error;
  SourceLocation where;
  std::string message;  ///< what is wrong: "unknown key 'prot'"
  std::string hint;     ///< what was expected, or what to write instead; may be empty
};
std::string to_string(
    const Problem& problem);  ///< "services/chat.yaml:3:1: error: unknown key 'prot'. Did you mean 'port'?"

struct Catalog {
  Settings settings;
  std::map<ServiceId, Service> services;
  std::map<ModeId, Mode> modes;
  std::vector<Problem> problems;
  std::set<ServiceId> broken_services;  ///< ids (or file stems) that a broken file would have defined
  std::set<ModeId> broken_modes;
  /// For each of those, the place of the first problem that broke it.
  std::map<ServiceId, SourceLocation> service_faults;
  std::map<ModeId, SourceLocation> mode_faults;

  std::set<std::filesystem::path> open_env_files;  ///< that others may read; a warning tells of each
  /// Values that no text for others may hold: those of every env_file (except paths under a name that is no key's), and
  /// what `env:`, `variables:`, arguments and commands call a key. Broken files count as well.
  std::set<std::string> secrets;

  bool has_errors() const;
  /// Errors: not_found with the nearest names; configuration when the file that defines it is broken, with its
  /// problems.
  Result<const Service*> service(std::string_view id) const;
  Result<const Mode*> mode(std::string_view id) const;
  /// The services whose unit is this one, more than one for a router.
  std::vector<const Service*> services_of_unit(std::string_view unit) const;
};

/// Reads gpumod.yaml, services/*.yaml, modes/*.yaml and, recursively, presets/**.{yaml,yml} under `config`.
/// A directory that does not exist is an empty catalogue. `variables` answers $VAR (tests pass their own).
/// Errors (environment) only when the directory itself cannot be read; everything else is in `problems`.
using VariableLookup = std::function<std::optional<std::string>(const std::string&)>;
Result<Catalog> load_catalog(const Paths& paths, VariableLookup variables = nullptr);

/// Fills in what a service inherits, of its engine's settings and of the others of its unit. A loaded catalogue has done so
/// for all of its own.
void inherit(const Catalog& catalog, Service& service);

/// The settings alone, as load_catalog would read them; its problems are for load_catalog to tell. For whoever must
/// know early with whom to speak.
Settings load_settings(const Paths& paths, VariableLookup variables = nullptr);

/// Would `text`, as the content of modes/<file_name>, be valid in this catalogue? For `mode edit` and `mode create`.
std::vector<Problem> check_mode_text(const Catalog& catalog, std::string_view file_name, std::string_view text);
/// A new mode file, as `mode create` writes it: commented, in the schema of modes/*.yaml.
std::string new_mode_text(const Mode& mode);
/// The path of the file that defines a mode, absolute.
std::filesystem::path path_of(const Paths& paths, const SourceLocation& source);

enum class FileKind { service, mode, settings };

/// One file held in memory, read as load_catalog would read it into an otherwise empty catalogue. `file_name` is
/// relative to the configuration directory. Opens nothing: an env_file counts as empty. For editors, tests and fuzzing.
Catalog read_catalog_text(FileKind kind, std::string_view file_name, std::string_view text,
                          VariableLookup variables = nullptr);

/// What a file declares, for editors and documentation, from the same declarations that the reader uses.
std::string json_schema(FileKind kind);          ///< JSON Schema 2020-12
std::string configuration_reference_markdown();  ///< docs/configuration.md

}  // namespace gpumod
